"""What Airflow stores of the start of a task in the triggerer, and what counts until then."""

from __future__ import annotations

import copy
import importlib
import json
from bisect import bisect_left
from pathlib import Path
from typing import Any

import pytest
from airflow.triggers.base import BaseTrigger

if not hasattr(BaseTrigger, "render_template_fields"):
    pytest.skip("a worker launches every run", allow_module_level=True)

from airflow.providers.common.compat.sdk import DAG, Asset
from airflow.serialization.serialized_objects import DagSerialization

from airflow_jobs_provider.airflow_compat.stored_arguments import of_text
from airflow_jobs_provider.operators.jobs import (
    DatabricksNotebookOperator,
    DatabricksRunNowOperator,
    DatabricksSubmitRunOperator,
)
from airflow_jobs_provider.operators.launch_trigger import DatabricksLaunchTrigger
from airflow_jobs_provider.triggers.arguments import TriggerArguments
from tests.helpers.start_from_trigger import REQUEST, operator


def test_the_trigger_is_stored_without_defaults() -> None:
    """Airflow reads it with the whole DAG for each task that starts in the triggerer."""
    with DAG("sales", schedule=None):
        task = operator(polling_period_seconds=30, reattach=False)
    stored = of_text(task.start_trigger_args.trigger_kwargs)
    assert stored == {
        "notebook_task": REQUEST["notebook_task"],
        "existing_cluster_id": "c",
        "caller": "DatabricksSubmitRunOperator",
        "cancel_on_kill": True,
        "end_from_trigger": True,
        "fail_on_partial_success": True,
        "operator": "airflow_jobs_provider.operators.submit_run.DatabricksSubmitRunOperator",
        "operator_arguments": {
            "reattach": False,
            "openlineage_inject_parent_job_info": False,
            "openlineage_inject_transport_info": False,
        },
    }


def test_the_order_in_a_dict_makes_no_new_version_of_the_dag() -> None:
    """It differs between processes if the dict is made of a set."""
    stored = []
    for names in ("ab", "ba"):
        with DAG("sales", schedule=None) as dag:
            parameters = dict.fromkeys(names, "{{ ds }}")
            operator(notebook_task={"notebook_path": "/x", "base_parameters": parameters})
        stored.append(json.dumps(DagSerialization.to_dict(dag), sort_keys=True))
    assert stored[0] == stored[1]


@pytest.mark.parametrize("character", ["x", '"', "\\", "ä", "🙂"])
def test_the_longest_request_that_is_stored(character: str) -> None:
    """It has 40,000 bytes as Airflow stores it, whatever its characters take. Others need a worker.

    What is stored beside the request has a few hundred bytes.
    """

    def stored_size(length: int) -> int:
        parameters = {"text": character * length}
        with DAG("sales", schedule=None):
            task = operator(notebook_task={"notebook_path": "/x", "base_parameters": parameters})
        arguments = task.start_trigger_args
        return 0 if arguments is None else len(json.dumps(arguments.trigger_kwargs))

    longest = bisect_left(range(1, 50_000), True, key=lambda length: not stored_size(length))
    assert 39_980 <= stored_size(longest) < 41_000
    assert stored_size(longest + 1) == 0


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (DatabricksSubmitRunOperator, {}),
        (DatabricksRunNowOperator, {"job_id": 1}),
        (
            DatabricksNotebookOperator,
            {"notebook_path": "/x", "source": "WORKSPACE", "existing_cluster_id": "c"},
        ),
    ],
)
def test_what_is_left_out_is_the_default_of_the_operator(
    kind: Any, arguments: dict[str, Any]
) -> None:
    """So the trigger makes the same operator without it."""
    with DAG("sales", schedule=None):
        task: Any = operator(kind, **arguments)
    stored = of_text(task.start_trigger_args.trigger_kwargs)["operator_arguments"]
    left_out = task._operator_arguments().keys() - stored.keys() - {"execution_timeout_seconds"}
    assert "validate" in left_out
    fresh = kind(task_id="fresh", **{**(REQUEST if not arguments else {}), **arguments})
    for name in left_out - {"databricks_task_key"}:
        assert getattr(fresh, name) == task._operator_arguments()[name], name


def test_a_trigger_with_all_arguments_is_accepted() -> None:
    """As versions stored it that left out no defaults."""
    with DAG("sales", schedule=None):
        task: Any = operator()
    stored = of_text(task.start_trigger_args.trigger_kwargs)
    whole = {
        **TriggerArguments().as_kwargs(),
        **stored,
        "operator_arguments": task._operator_arguments(),
    }
    assert len(whole) > 20
    trigger = DatabricksLaunchTrigger(**whole)
    assert trigger.as_kwargs() == {
        **DatabricksLaunchTrigger(**stored).as_kwargs(),
        "operator_arguments": whole["operator_arguments"],
    }


class Counted(dict[str, Any]):
    """A field of a request that counts how often it is read."""

    times = 0

    def items(self) -> Any:
        """Return the items."""
        self.times += 1
        return super().items()


@pytest.mark.parametrize("is_mapped", [False, True])
def test_the_start_is_found_out_once_while_airflow_serializes_the_task(is_mapped: bool) -> None:
    """Airflow asks four times. To find it out takes one look at the request, or two if mapped."""
    times = []
    for start_from_trigger in (False, True):
        field = Counted(REQUEST["notebook_task"])
        given: dict[str, Any] = {
            "task_id": "etl",
            "start_from_trigger": start_from_trigger,
            **REQUEST,
            "notebook_task": field,
        }
        with DAG("sales", schedule=None) as dag:
            if is_mapped:
                DatabricksSubmitRunOperator.partial(**given).expand(run_name=["a", "b"])
            else:
                DatabricksSubmitRunOperator(**given)
        field.times = 0
        DagSerialization.to_dict(dag)
        times.append(field.times)
    assert times[1] - times[0] == 1 + is_mapped


def stored_start(dag: DAG) -> dict[str, Any] | None:
    """Return what Airflow stores of the start of a DAG's task; None: a worker starts it."""
    task: Any = DagSerialization.from_dict(DagSerialization.to_dict(dag)).get_task("etl")
    arguments = task.start_trigger_args
    assert task.start_from_trigger == (arguments is not None)
    return arguments and of_text(arguments.trigger_kwargs["__var"])


def change_request(task: Any) -> None:
    """Change a part of the request."""
    task.notebook_task["base_parameters"]["day"] = "{{ var.value.day }}"


def change_dag(task: Any) -> None:
    """Change the DAG."""
    task.dag.max_active_tasks = 3


@pytest.mark.parametrize(
    "change",
    [
        change_request,
        change_dag,
        lambda task: setattr(task, "pool", "other"),
        lambda task: setattr(task, "libraries", [{"jar": "{{ var.value.jar }}"}]),
        lambda task: setattr(task, "on_execute_callback", [print]),
    ],
    ids=["request", "DAG", "pool", "field", "callback"],
)
@pytest.mark.parametrize("is_mapped", [False, True])
def test_what_is_changed_after_a_serialization_counts(change: Any, is_mapped: bool) -> None:
    """Also where no part of the task itself is set."""
    given: dict[str, Any] = {"task_id": "etl", "start_from_trigger": True, **copy.deepcopy(REQUEST)}
    with DAG("sales", schedule=None) as dag:
        task: Any = (
            DatabricksSubmitRunOperator.partial(**given).expand(run_name=["a", "b"])
            if is_mapped
            else DatabricksSubmitRunOperator(**given)
        )
    assert stored_start(dag)
    if is_mapped and change is not change_dag:
        task.partial_kwargs.update(
            pool="other", on_execute_callback=print, notebook_task=given["notebook_task"]
        )
    else:
        change(task)
    assert not task.start_from_trigger
    assert task.start_trigger_args is None
    assert stored_start(dag) is None


def test_what_follows_a_task_counts_when_its_dag_is_serialized() -> None:
    """A task that expands over its output, and outlets, need a worker at the end."""
    with DAG("sales", schedule=None) as dag:
        task: Any = operator()
        other = operator(task_id="other")
    assert stored_start(dag)["end_from_trigger"]  # type: ignore[index]
    with dag:
        DatabricksRunNowOperator.partial(task_id="each").expand(job_id=task.output)
    assert "end_from_trigger" not in stored_start(dag)  # type: ignore[operator]
    assert of_text(other.start_trigger_args.trigger_kwargs)["end_from_trigger"]
    other.outlets.append(Asset("s3://sales"))
    assert "end_from_trigger" not in of_text(other.start_trigger_args.trigger_kwargs)


def test_a_cluster_policy_changes_how_a_task_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow applies it to the complete DAG."""

    def policy(task: Any) -> None:
        if task.task_id == "pool":
            task.pool = "other"
        else:
            task.run_name = "by the policy"

    monkeypatch.setattr("airflow.settings.task_policy", policy)
    file = tmp_path / "sales.py"
    file.write_text(POLICY_DAG)
    processor: Any = importlib.import_module("airflow.dag_processing.processor")
    request = processor.DagFileParseRequest(
        file=str(file), bundle_path=tmp_path, bundle_name="dags"
    )
    result = processor._parse_file(request, importlib.import_module("structlog").get_logger())
    assert not result.import_errors
    dag = DagSerialization.from_dict(result.serialized_dags[0].data)
    assert dag.get_task("pool").start_trigger_args is None
    named: Any = dag.get_task("name")
    assert of_text(named.start_trigger_args.trigger_kwargs["__var"])["run_name"] == "by the policy"
    assert "run_name" in named.template_fields


POLICY_DAG = """
from airflow.sdk import DAG
from airflow_jobs_provider.operators.jobs import DatabricksSubmitRunOperator

with DAG("sales", schedule=None):
    for name in ("pool", "name"):
        DatabricksSubmitRunOperator(
            task_id=name, start_from_trigger=True, existing_cluster_id="c",
            notebook_task={"notebook_path": "/x"},
        )
"""

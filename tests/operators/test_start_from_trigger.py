"""Which tasks start in the triggerer, and why the others start on a worker."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.triggers.base import BaseTrigger

if not hasattr(BaseTrigger, "render_template_fields"):
    pytest.skip("a worker launches every run", allow_module_level=True)

from airflow.providers.common.compat.sdk import DAG, Asset, Param
from airflow.sdk.definitions.mappedoperator import MappedOperator
from airflow.serialization.serialized_objects import DagSerialization
from jinja2 import Undefined

from airflow_jobs_provider.airflow_compat import completion_reasons
from airflow_jobs_provider.airflow_compat.lines import airflow_line
from airflow_jobs_provider.airflow_compat.stored_arguments import of_text
from airflow_jobs_provider.operators.jobs import (
    DatabricksRunNowOperator,
    DatabricksSubmitRunOperator,
)
from tests.fakes.scripted_server import ScriptedServer
from tests.helpers.responses import LAUNCHED, RUNNING
from tests.helpers.start_from_trigger import REQUEST, operator
from tests.helpers.tasks import deferred_by


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"on_execute_callback": print}, "on_execute_callback"),
        ({"pre_execute": print}, "pre_execute"),
        ({"do_xcom_push": False}, "do_xcom_push=False"),
        ({"pool": "other"}, "its pool"),
        ({"pool_slots": 2}, "its pool"),
        ({"max_active_tis_per_dag": 1}, "max_active_tis_per_dag"),
        ({"max_active_tis_per_dagrun": 1}, "max_active_tis_per_dagrun"),
        ({"run_as_user": "nobody"}, "run_as_user"),
        ({"render_template_as_native_obj": True}, "render_template_as_native_obj"),
        ({"wait_for_termination": False}, "wait_for_termination=False"),
        ({"openlineage_inject_parent_job_info": True}, "OpenLineage"),
        ({"run_name": "{{ ti.xcom_pull('other') }}"}, "ti.xcom_pull in a template in run_name"),
        ({"run_name": "{{ ti.max_tries }}"}, "ti.max_tries in a template in run_name"),
        ({"run_name": "{{ var.value.name }}"}, "var in a template in run_name"),
        ({"run_name": "{{ conn.name.host }}"}, "conn in a template in run_name"),
        ({"run_name": "{{ ti }}"}, "ti as a whole in a template in run_name"),
        ({"run_name": "{{ dag_run.clear_number }}"}, "dag_run.clear_number in a template"),
        ({"run_name": "{% include 'x' %}"}, "includes another"),
        ({"run_name": "of {{ ds }}, {{ ti.max_tries }} tries"}, "ti.max_tries in a template"),
        ({"run_name": "{{ ds"}, "Jinja cannot parse"),
        ({"run_name": "{{{ ds }}"}, "Jinja cannot parse"),
        ({"json": "x.json-tpl"}, "a template file in json"),
        ({"libraries": [{1: "a"}]}, "a key that is no text in libraries"),
        ({"libraries": [{"jar": "a"}] * 2500}, "a request of 4"),
        ({"run_name": datetime(2026, 1, 1, tzinfo=UTC)}, "the type datetime in run_name"),
    ],
)
def test_what_needs_a_worker_starts_on_one(arguments: dict[str, Any], reason: str) -> None:
    """The log of the task names the reason."""
    with DAG("sales", schedule=None, catchup=False):
        task = operator(**arguments, validate=False)
    assert any(reason in one for one in task.worker_start_reasons())
    assert not task.start_from_trigger
    assert task.start_trigger_args is None
    assert task.deferrable


def test_with_queues_of_triggerers_a_worker_starts_the_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Airflow 3.3.2 does not name the task's queue where a task starts in the triggerer."""
    monkeypatch.setenv("AIRFLOW__TRIGGERER__QUEUES_ENABLED", "True")
    completion_reasons.queues_are_enabled.cache_clear()
    try:
        with DAG("sales", schedule=None, catchup=False):
            assert operator().worker_start_reasons() == ["queues of triggerers"]
    finally:
        completion_reasons.queues_are_enabled.cache_clear()


def test_an_older_airflow_refuses_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the DAG is parsed, of mapped tasks, too."""
    monkeypatch.setattr(airflow_line(), "renders_in_triggerer", False)
    arguments: Any = {"task_id": "etl", "start_from_trigger": True, **REQUEST}
    for make in (DatabricksSubmitRunOperator, DatabricksSubmitRunOperator.partial):
        with pytest.raises(ValueError, match=r"needs Airflow 3\.3 or later; this is"):
            make(**arguments)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"max_active_tasks": 3}, "the DAG's max_active_tasks"),
        ({"render_template_as_native_obj": True}, "the DAG's render_template_as_native_obj"),
        ({"user_defined_macros": {"a": 1}}, "the DAG's user_defined_macros"),
        ({"template_undefined": Undefined}, "the DAG's template_undefined"),
        (
            {"jinja_environment_kwargs": {"trim_blocks": True}},
            "the DAG's jinja_environment_kwargs",
        ),
        ({"params": {"day": Param(type="string")}}, "params without a default (day)"),
    ],
)
def test_what_the_dag_has_for_a_worker(arguments: dict[str, Any], reason: str) -> None:
    """Airflow does not heed it where a task starts in the triggerer, or its triggerer ends."""
    with DAG("sales", schedule=None, catchup=False, **arguments):
        task = operator()
    assert reason in task.worker_start_reasons()


def test_text_that_is_no_template_becomes_an_object_on_a_worker_too() -> None:
    """Airflow makes a number of ``1e3``, also in a mapped task. A task may refuse that."""
    values: dict[str, Any] = {"job_id": 1, "notebook_params": {"a": "1e3"}}
    mapped: dict[str, Any] = {"job_id": 1, "start_from_trigger": True}
    with DAG("sales", schedule=None, catchup=False, render_template_as_native_obj=True):
        one = operator(DatabricksRunNowOperator, **values)
        two: Any = DatabricksRunNowOperator.partial(task_id="two", **mapped).expand(
            notebook_params=[values["notebook_params"]]
        )
        text = operator(
            DatabricksRunNowOperator,
            task_id="text",
            render_template_as_native_obj=False,
            **values,
        )
    for task in (one, two):
        assert task.worker_start_reasons() == ["the DAG's render_template_as_native_obj"]
    assert text.worker_start_reasons() == []


@pytest.mark.parametrize("value", [None, "", 0, Param("x", type="string"), Param(None)])
def test_params_with_a_default_need_no_worker(value: Any) -> None:
    """Whatever the default is."""
    with DAG("sales", schedule=None, catchup=False, params={"day": value}):
        assert operator(params={"hour": value}).worker_start_reasons() == []


def test_a_subclass_starts_on_a_worker() -> None:
    """It may do more than the trigger, also where it is mapped."""

    class Own(DatabricksSubmitRunOperator):
        """A user's operator."""

    arguments: dict[str, Any] = {"start_from_trigger": True, **REQUEST}
    with DAG("sales", schedule=None, catchup=False):
        own = Own(task_id="own", **arguments)
        mapped: Any = Own.partial(task_id="etl", **arguments).expand(run_name=["a", "b"])
    assert own.worker_start_reasons() == ["a subclass of the operator"]
    assert mapped.worker_start_reasons() == ["a subclass of the operator"]
    assert mapped.start_trigger_args is None


def test_the_option_starts_all_tasks_in_the_triggerer_that_can(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The others stay as they are, and an operator's own argument wins."""
    monkeypatch.setenv("AIRFLOW__DATABRICKS_JOBS__START_FROM_TRIGGER", "auto")
    with DAG("sales", schedule=None, catchup=False):
        able = DatabricksSubmitRunOperator(task_id="able", **REQUEST)
        unable = DatabricksSubmitRunOperator(task_id="unable", pool="other", **REQUEST)
        unwilling = DatabricksSubmitRunOperator(
            task_id="unwilling", start_from_trigger=False, **REQUEST
        )
    assert (able.start_from_trigger, able.deferrable, able._end_from_trigger) == (True,) * 3
    for task in (unable, unwilling):
        assert (task.start_from_trigger, task.deferrable, task._end_from_trigger) == (False,) * 3


@pytest.mark.parametrize(
    ("start_from_trigger", "line"),
    [
        (True, "in spite of start_from_trigger, because of: its pool, max_active_tis_per_dag"),
        (None, "in spite of start_from_trigger, because of: its pool, max_active_tis_per_dag"),
        (False, None),
    ],
    ids=["argument", "option", "neither"],
)
def test_the_log_says_why_a_worker_starts_the_task(
    start_from_trigger: bool | None,
    line: str | None,
    server: ScriptedServer,
    context: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whether the argument or the option asks for a start in the triggerer."""
    monkeypatch.setenv("AIRFLOW__DATABRICKS_JOBS__START_FROM_TRIGGER", "auto")
    arguments: dict[str, Any] = {"pool": "other", "max_active_tis_per_dag": 1, "deferrable": True}
    with DAG("sales", schedule=None, catchup=False):
        task = operator(start_from_trigger=start_from_trigger, **arguments)
    server.will(LAUNCHED, RUNNING)
    deferred_by(task, context)
    log = capsys.readouterr().out
    assert (line is None) == ("start_from_trigger" not in log)
    assert line is None or f"A worker starts this task {line}" in log


@pytest.mark.parametrize("option", ["argument", "option"])
def test_the_log_says_why_a_mapped_task_starts_on_a_worker(
    option: str,
    server: ScriptedServer,
    context: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The reasons are those of the mapped task, of which the worker has one instance."""
    monkeypatch.setenv("AIRFLOW__DATABRICKS_JOBS__START_FROM_TRIGGER", "auto")
    arguments = {"start_from_trigger": True} if option == "argument" else {"deferrable": True}
    with DAG("sales", schedule=None, catchup=False):
        mapped = DatabricksSubmitRunOperator.partial(
            task_id="etl", polling_period_seconds=0.01, pool="other", **arguments, **REQUEST
        ).expand(run_name=["a", "b"])
    server.will(LAUNCHED, RUNNING)
    task = mapped.unmap({"run_name": "a"})
    deferred_by(task, context)
    assert "in spite of start_from_trigger, because of: its pool" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"on_execute_callback": print}, "on_execute_callback"),
        ({"pre_execute": print}, "pre_execute"),
        ({"do_xcom_push": False}, "do_xcom_push=False"),
        ({"pool": "other"}, "its pool"),
        ({"max_active_tis_per_dag": 1}, "max_active_tis_per_dag"),
        ({"max_active_tis_per_dagrun": 1}, "max_active_tis_per_dagrun"),
        ({"run_as_user": "nobody"}, "run_as_user"),
        ({"render_template_as_native_obj": True}, "render_template_as_native_obj"),
        ({"wait_for_termination": False}, "wait_for_termination=False"),
        ({"params": {"day": Param(type="string")}}, "params without a default (day)"),
        ({"libraries": [{"jar": "{{ var.value.jar }}"}]}, "var in a template in libraries"),
        ({"existing_cluster_id": 1, "validate": "no"}, "arguments that are known when"),
    ],
)
def test_what_needs_a_worker_for_a_mapped_task(arguments: dict[str, Any], reason: str) -> None:
    """The same as for other tasks, and Airflow's triggerer gets nothing of it."""
    with DAG("sales", schedule=None, catchup=False) as dag:
        given: dict[str, Any] = {"start_from_trigger": True, **REQUEST, **arguments}
        mapped: Any = DatabricksSubmitRunOperator.partial(task_id="etl", **given).expand(
            run_name=["a", "b"]
        )
    (found,) = mapped.worker_start_reasons()
    assert found.startswith(reason)
    serialized = DagSerialization.from_dict(DagSerialization.to_dict(dag)).get_task("etl")
    assert serialized.start_trigger_args is None
    assert not serialized.start_from_trigger


def test_a_mapped_task_is_what_airflow_makes_of_it_and_what_is_set_later() -> None:
    """It can be copied, and changed until its DAG is serialized."""
    with DAG("sales", schedule=None, catchup=False) as dag:
        mapped: Any = DatabricksSubmitRunOperator.partial(
            task_id="etl", start_from_trigger=True, end_from_trigger=True, **REQUEST
        ).expand(run_name=["a", "b"])
    copied: Any = copy.deepcopy(dag).get_task("etl")
    assert isinstance(copied, MappedOperator)
    assert copied.start_trigger_args == mapped.start_trigger_args
    assert of_text(mapped.start_trigger_args.trigger_kwargs)["end_from_trigger"]
    mapped.outlets = [Asset("s3://sales")]
    assert "end_from_trigger" not in of_text(mapped.start_trigger_args.trigger_kwargs)
    mapped.pool = "other"
    assert not mapped.start_from_trigger
    assert copied.start_from_trigger


def test_the_option_leaves_mapped_tasks_that_need_a_worker_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only the instances of the others wait in the triggerer and end there."""
    monkeypatch.setenv("AIRFLOW__DATABRICKS_JOBS__START_FROM_TRIGGER", "auto")
    with DAG("sales", schedule=None, catchup=False):
        able = DatabricksSubmitRunOperator.partial(task_id="able", **REQUEST).expand(run_name=["a"])
        unable = DatabricksSubmitRunOperator.partial(
            task_id="unable", pool="other", **REQUEST
        ).expand(run_name=["a"])
    task: Any = able.unmap({"run_name": "a"})
    assert (task.deferrable, task._end_from_trigger) == (True, True)
    task = unable.unmap({"run_name": "a"})
    assert (task.deferrable, task._end_from_trigger) == (False, False)


def test_a_filter_of_the_dag_is_read_by_a_worker() -> None:
    """It is no error of the DAG file."""
    with DAG("sales", schedule=None, catchup=False, user_defined_filters={"half": len}):
        task = operator(run_name="{{ ds | half }}")
    (reason,) = task.worker_start_reasons()
    assert "No filter named 'half'" in reason


@pytest.mark.parametrize(
    "options",
    [
        {"keep_trailing_newline": True},
        {"newline_sequence": "\r\n"},
        {"variable_start_string": "[[", "variable_end_string": "]]"},
    ],
)
def test_options_of_jinja_that_change_text_without_a_template(options: dict[str, Any]) -> None:
    """A worker starts the task: the triggerer renders with Airflow's own options."""
    with DAG("sales", schedule=None, catchup=False, jinja_environment_kwargs=options):
        task = operator(
            notebook_task={"notebook_path": "/x", "base_parameters": {"a": "[[ ds ]]\nb\n"}}
        )
    assert task.worker_start_reasons() == ["the DAG's jinja_environment_kwargs"]

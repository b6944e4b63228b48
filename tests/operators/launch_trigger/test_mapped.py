"""Mapped tasks that are launched in the triggerer, and those that a worker starts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.triggers.base import BaseTrigger

if not hasattr(BaseTrigger, "render_template_fields"):
    pytest.skip("a worker launches every run", allow_module_level=True)

from airflow.providers.common.compat.sdk import DAG, BaseOperator

from airflow_jobs_provider.airflow_compat.stored_arguments import of_text
from airflow_jobs_provider.operators.jobs import (
    DatabricksNotebookOperator,
    DatabricksRunNowOperator,
    DatabricksSubmitRunOperator,
    DatabricksTaskOperator,
)
from tests.fakes.fake_service import FakeService
from tests.helpers.launch_trigger import succeeded
from tests.helpers.mapped_tasks import COMMON, Expand, mapped, over_literal_values, sent
from tests.helpers.triggerer import Attempt, values_of

NOTEBOOK = {"notebook_task": {"notebook_path": "/x"}, "existing_cluster_id": "c"}


@pytest.mark.parametrize(
    ("expand", "pushed", "wanted"),
    [
        (
            lambda partial, _: partial.expand(notebook_params=[{"a": "1"}, {"a": "{{ ds }}"}]),
            None,
            [{"a": "1"}, {"a": "2026-01-02"}],
        ),
        (
            lambda partial, _: partial.expand_kwargs(
                [
                    {"notebook_params": {"a": "{{ ti.map_index }}"}},
                    {"job_parameters": {"b": "2"}},
                    {"notebook_params": {"a": "3"}},
                ]
            ),
            None,
            [{"a": "0"}, None, {"a": "3"}],
        ),
        (
            lambda partial, other: partial.expand(notebook_params=other.output),
            [{"a": "x"}, {"a": "y"}],
            [{"a": "x"}, {"a": "y"}],
        ),
        (
            lambda partial, other: partial.expand_kwargs(other.output),
            [{"notebook_params": {"a": "x"}}, {"job_parameters": {"b": "y"}}],
            [{"a": "x"}, None],
        ),
        (
            lambda partial, other: partial.expand(notebook_params=[{"a": other.output}]),
            "x",
            [{"a": "x"}],
        ),
    ],
    ids=["expand", "expand_kwargs", "output", "output of arguments", "output in a value"],
)
def test_each_instance_launches_its_own_values(
    expand: Expand,
    pushed: Any,
    wanted: list[Any],
    service: FakeService,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Literal values, rendered, and what another task has pushed; the XComs are the instance's."""
    triggerer = mapped(service, monkeypatch, expand)
    triggerer.xcoms["other", "return_value"] = pushed
    for index in range(len(wanted)):
        assert succeeded(triggerer.start(Attempt(map_index=index)))
        run = service.runs[1001 + index]
        assert values_of(triggerer, f"etl[{index}]") == {
            "run_id": run.run_id,
            "job_id": run.job_id,
            "run_page_url": f"http://workspace.invalid/#job/{run.job_id}/run/{run.run_id}",
            "return_value": f"output of {run.run_id}",
        }
    assert sent(service) == wanted
    assert not values_of(triggerer)


def test_two_arguments_are_multiplied_as_airflow_does(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request of each index is that of the operator which a worker gets from Airflow."""
    expanded: list[Any] = []

    def expand(partial: Any, _: BaseOperator) -> Any:
        expanded.append(
            partial.expand(
                python_params=[["z"], ["y"], ["x"]], jar_params=[["b"], ["a"]], dbt_commands=[["d"]]
            )
        )

    triggerer = mapped(service, monkeypatch, expand, validate=False)
    for index in range(6):
        assert succeeded(triggerer.start(Attempt(map_index=index)))
    names = ("python_params", "jar_params", "dbt_commands")
    on_worker = []
    for index in range(6):
        context = {"ti": SimpleNamespace(map_index=index)}
        task = expanded[0].unmap(expanded[0].expand_input.resolve(context)[0])
        on_worker.append({name: getattr(task, name) for name in names})
    of_trigger = [{name: run.request[name] for name in names} for run in service.runs.values()]
    assert of_trigger == on_worker


def test_an_output_times_literal_values(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The output comes first; the literal values vary fastest."""
    triggerer = mapped(
        service,
        monkeypatch,
        lambda partial, other: partial.expand(
            python_params=other.output, jar_params=[["a"], ["b"]]
        ),
        validate=False,
    )
    triggerer.xcoms["other", "return_value"] = [["x"], ["y"]]
    for index in range(4):
        assert succeeded(triggerer.start(Attempt(map_index=index)))
    assert sent(service, "python_params") == [["x"], ["x"], ["y"], ["y"]]
    assert sent(service, "jar_params") == [["a"], ["b"], ["a"], ["b"]]


@pytest.mark.parametrize(
    ("kind", "shared", "argument", "values"),
    [
        (DatabricksSubmitRunOperator, NOTEBOOK, "run_name", ["first", "second"]),
        (
            DatabricksNotebookOperator,
            {"source": "WORKSPACE", "existing_cluster_id": "c"},
            "notebook_path",
            ["/first", "/second"],
        ),
        (
            DatabricksTaskOperator,
            {"existing_cluster_id": "c"},
            "task_config",
            [{"notebook_task": {"notebook_path": path}} for path in ("/first", "/second")],
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_each_operator_that_starts_in_the_triggerer(
    kind: Any,
    shared: dict[str, Any],
    argument: str,
    values: list[Any],
    service: FakeService,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Run-now is in the other tests."""
    triggerer = mapped(
        service,
        monkeypatch,
        lambda partial, _: partial.expand(**{argument: values}),
        kind,
        **shared,
    )
    for index in range(2):
        assert succeeded(triggerer.start(Attempt(map_index=index)))
    first, second = (run.request for run in service.runs.values())
    assert "first" in str(first)
    assert "second" in str(second)


@pytest.mark.parametrize("option", ["argument", "option", "default_args"])
def test_how_mapped_tasks_are_told_to_start_there(
    option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As other tasks: by the argument, the option, or the DAG's default_args."""
    if option == "option":
        monkeypatch.setenv("AIRFLOW__DATABRICKS_JOBS__START_FROM_TRIGGER", "auto")
    defaults = {"start_from_trigger": True} if option == "default_args" else {}
    given: dict[str, Any] = {"start_from_trigger": True} if option == "argument" else {}
    with DAG("sales", schedule=None, catchup=False, default_args=defaults):
        able: Any = DatabricksRunNowOperator.partial(task_id="able", job_id=1, **given).expand(
            notebook_params=[{"a": "1"}]
        )
        unwilling = DatabricksRunNowOperator.partial(
            task_id="unwilling", job_id=1, start_from_trigger=False
        ).expand(notebook_params=[{"a": "1"}])
    assert able.start_from_trigger
    ends = "end_from_trigger" in of_text(able.start_trigger_args.trigger_kwargs)
    assert ends == (option == "option")
    assert not unwilling.start_from_trigger
    assert unwilling.start_trigger_args is None


@pytest.mark.parametrize(
    ("expand", "reason"),
    [
        (lambda one, other: one.expand(notebook_params=other.output.map(dict)), "mapped over"),
        (
            lambda one, other: one.expand(notebook_params=other.output.zip(other.output)),
            "mapped over",
        ),
        (
            lambda one, other: one.expand(notebook_params=other.output.concat(other.output)),
            "mapped over",
        ),
        (
            lambda one, other: one.expand(jar_params=[["a"]], python_params=other.output),
            "after another argument",
        ),
        (
            lambda one, other: one.expand(jar_params=other.output, python_params=other.output),
            "after another argument",
        ),
        (lambda one, _: one.expand(notebook_params={"a": 1}), "mapped over a dict"),
        (
            lambda one, other: one.expand_kwargs([{"jar_params": ["a"]}, other.output]),
            "expand_kwargs with",
        ),
        (
            lambda one, other: one.expand_kwargs([{"jar_params": other.output}]),
            "expand_kwargs with",
        ),
        (lambda one, _: one.expand(databricks_conn_id=["a", "b"]), "argument databricks_conn_id"),
        (lambda one, _: one.expand(queued_timeout_seconds=[[1]]), "argument queued_timeout_"),
        (lambda one, _: one.expand_kwargs([{"job_id": 2}]), "the mapped argument job_id"),
        (
            lambda one, _: one.expand(jar_params=[["a"], ["{{ var.value.b }}"]]),
            "var in a template in jar_params",
        ),
        (lambda one, _: one.expand(json=["a.json-tpl"]), "a template file in json"),
    ],
)
def test_what_only_a_worker_can_expand(
    expand: Expand, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the task is stored for the triggerer."""
    with DAG("sales", schedule=None, catchup=False):
        other = BaseOperator(task_id="other")
        task: Any = expand(DatabricksRunNowOperator.partial(job_id=1, **COMMON), other)
    assert any(reason in one for one in task.worker_start_reasons()), task.worker_start_reasons()
    assert task.start_trigger_args is None
    assert not task.start_from_trigger


@pytest.mark.parametrize(
    ("expand", "pushed", "index", "reason"),
    [
        ("output", None, 0, "has pushed no XCom"),
        ("output", "text", 0, "mapped over a str"),
        ("output", {"a": 1}, 0, "mapped over a dict"),
        ("output", [{"a": "x"}], 1, "mapped over 1 items, without one at 1"),
        ("output", [{"a": "{{ ds }}"}], 0, "a value that may be a template"),
        ("output", [{"a": "line\n"}], 0, "a value that may be a template"),
        ("arguments", ["text"], 0, "an item of 'other' that is no dict"),
        ("arguments", [{"job_id": 2}], 0, "mapped arguments of 'other': job_id"),
        ("arguments", [{"retries": 2}], 0, "mapped arguments of 'other': retries"),
        ("arguments", [{"json": {}}], 0, "mapped arguments of 'other': json"),
        (
            "arguments",
            [{"notebook_params": {"a": "{{ ds }}"}}],
            0,
            "a value that may be a template",
        ),
        ("literal", None, 2, "no mapped values at 2"),
        ("literals", None, 1, "no mapped values at 1"),
        ("literal", None, -1, "a mapped task that is not expanded"),
    ],
)
def test_a_worker_starts_what_the_triggerer_cannot_read(
    expand: str,
    pushed: Any,
    index: int,
    reason: str,
    service: FakeService,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No run is launched with other values than a worker's."""
    expansions: dict[str, Expand] = {
        "output": lambda partial, other: partial.expand(notebook_params=other.output),
        "arguments": lambda partial, other: partial.expand_kwargs(other.output),
        "literal": lambda partial, _: partial.expand(notebook_params=[{"a": "1"}, {"a": "2"}]),
        "literals": lambda partial, _: partial.expand_kwargs([{"notebook_params": {"a": "1"}}]),
    }
    triggerer = mapped(service, monkeypatch, expansions[expand])
    triggerer.xcoms["other", "return_value"] = pushed
    event = triggerer.start(Attempt(map_index=index))
    assert reason in event.payload["start_on_worker"]
    assert not service.runs


def test_a_trigger_that_airflow_does_not_render_launches_nothing(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task was told to start on a worker after the scheduler had started it."""
    triggerer = mapped(service, monkeypatch, over_literal_values)

    async def run_unrendered(rendered: Any) -> Any:
        trigger = type(rendered)(**rendered.as_kwargs())
        trigger.task_instance, trigger.trigger_id = rendered.task_instance, 1
        return await triggerer.first_event(trigger)

    event = triggerer.run(run_unrendered, Attempt(map_index=1))
    assert event.payload["start_on_worker"] == "a mapped task that is not expanded"
    assert not service.runs


def test_a_task_that_is_mapped_after_its_arguments_were_stored(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The triggerer has no values for it."""
    triggerer = mapped(service, monkeypatch, over_literal_values)
    arguments: Any = triggerer._dag.get_task("etl").start_trigger_args
    arguments.trigger_kwargs["__var"].pop("mapped")
    triggerer.start_with(arguments)
    event = triggerer.start(Attempt(map_index=1))
    assert "no mapped values at 1" in event.payload["start_on_worker"]
    assert not service.runs

"""Mapped tasks that are launched in the triggerer, and those that a worker starts."""

from __future__ import annotations

import asyncio
import base64
import bz2
import hashlib
import json
import pickle
import zlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.triggers.base import BaseTrigger

if not hasattr(BaseTrigger, "render_template_fields"):
    pytest.skip("a worker launches every run", allow_module_level=True)

from airflow.providers.common.compat.sdk import DAG, BaseOperator
from airflow.serialization.serialized_objects import DagSerialization

from airflow_jobs_provider.airflow_compat import stored_text
from airflow_jobs_provider.airflow_compat.stored_arguments import of_text
from airflow_jobs_provider.airflow_compat.task_identity import TaskAttempt
from airflow_jobs_provider.operators.jobs import (
    DatabricksNotebookOperator,
    DatabricksRunNowOperator,
    DatabricksSubmitRunOperator,
    DatabricksTaskOperator,
)
from tests.fakes.fake_service import UNTIL_ENDED, FakeService, Plan
from tests.helpers.launch_trigger import (
    messages,
    pause,
    succeeded,
    triggerer_of,
    until_launched,
)
from tests.helpers.triggerer import RUN_ID, START, Attempt, Triggerer, values_of

COMMON: dict[str, Any] = {
    "task_id": "etl",
    "start_from_trigger": True,
    "end_from_trigger": True,
    "polling_period_seconds": 0.05,
    "retries": 2,
}
NOTEBOOK = {"notebook_task": {"notebook_path": "/x"}, "existing_cluster_id": "c"}
Expand = Callable[[Any, Any], Any]


def mapped(
    service: FakeService,
    monkeypatch: pytest.MonkeyPatch,
    expand: Expand,
    kind: Any = DatabricksRunNowOperator,
    **arguments: Any,
) -> Triggerer:
    """Make a DAG with one mapped task, and the triggerer."""
    if kind is DatabricksRunNowOperator:
        arguments.setdefault("job_id", 1)
    with DAG("sales", schedule=None, catchup=False) as dag:
        expand(kind.partial(**{**COMMON, **arguments}), BaseOperator(task_id="other"))
    return triggerer_of(dag, service, monkeypatch)


def sent(service: FakeService, name: str = "notebook_params") -> list[Any]:
    """Return a field of each request."""
    return [run.request.get(name) for run in service.runs.values()]


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


@pytest.mark.parametrize("number", [1000, 20_000])
def test_a_thousand_instances_fit_into_the_arguments_of_each(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scheduler stores all values for each instance. Too many of them start on workers."""
    values = [{"day": f"day {index}", "text": f"{index * 7919 % 10007}"} for index in range(number)]
    with DAG("sales", schedule=None, catchup=False):
        task: Any = DatabricksRunNowOperator.partial(job_id=1, **COMMON).expand(
            notebook_params=values
        )
    if number == 1000:
        assert len(str(task.start_trigger_args.trigger_kwargs)) < 12_000
    else:
        (reason,) = task.worker_start_reasons()
        assert reason.startswith("a request of ")


@pytest.mark.parametrize(
    ("expand", "instances"),
    [
        (lambda partial, values: partial.expand(notebook_params=values), 1_000),
        (
            lambda partial, values: partial.expand(
                notebook_params=values, dbt_commands=[["a"]] * 2
            ),
            2_000,
        ),
        (
            lambda partial, values: partial.expand_kwargs(
                [{"notebook_params": one} for one in values]
            ),
            1_000,
        ),
    ],
    ids=["expand", "two arguments", "expand_kwargs"],
)
@pytest.mark.parametrize("starts_in_triggerer", [True, False])
def test_the_serialized_dag_has_the_number_of_the_values_only(
    starts_in_triggerer: bool, expand: Expand, instances: int
) -> None:
    """The triggerer reads it twice for each instance; the scheduler needs their number."""
    arguments = {**COMMON, "start_from_trigger": starts_in_triggerer}
    values = [{"table": f"table_{number}"} for number in range(1_000)]
    with DAG("sales", schedule=None, catchup=False) as dag:
        expand(DatabricksRunNowOperator.partial(**arguments, job_id=1, validate=False), values)
    stored = json.dumps(DagSerialization.to_dict(dag)["dag"]["tasks"][0]["__var"]["expand_input"])
    assert ("table_999" in stored) is not starts_in_triggerer
    task = DagSerialization.from_dict(DagSerialization.to_dict(dag)).get_task("etl")
    assert task.start_from_trigger is starts_in_triggerer
    assert task.get_parse_time_mapped_ti_count() == instances
    mapped_task: Any = dag.get_task("etl")
    context = {"ti": SimpleNamespace(map_index=instances - 1)}
    on_worker, _ = mapped_task._expand_mapped_kwargs(context)
    assert on_worker["notebook_params"] == values[-1]


LITERAL: Expand = lambda partial, _: partial.expand(  # noqa: E731 - as in the tests above
    notebook_params=[{"a": "0"}, {"a": "1"}]
)


@pytest.mark.parametrize("stores_xcoms", [True, False])
def test_killed_at_each_moment_each_instance_has_one_run(
    stores_xcoms: bool, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another triggerer takes over, and gets the run of the same instance."""
    triggerer = mapped(service, monkeypatch, LITERAL)
    triggerer.stores_xcoms = stores_xcoms
    assert succeeded(triggerer.start(Attempt(map_index=1)))
    moments = list(triggerer.moments)
    moments = moments[: moments.index("SetXCom job_id received")]
    killed = 0
    for number in range(len(moments)):
        service.forget()
        triggerer = mapped(service, monkeypatch, LITERAL)
        triggerer.stores_xcoms = stores_xcoms
        assert succeeded(triggerer.start(Attempt(map_index=0)))
        triggerer.die_at = number
        attempt = Attempt(map_index=1)
        assert triggerer.start(attempt) is None, moments[number]
        triggerer.die_at = None
        killed += 1
        assert succeeded(triggerer.start(attempt))
        assert sent(service) == [{"a": "0"}, {"a": "1"}], moments[number]
        run = service.runs[1002]
        assert values_of(triggerer, "etl[1]")["return_value"] == f"output of {run.run_id}"
        assert (run.cancels, run.beside) == (0, 0)
    assert killed == len(moments)


def test_a_retry_follows_the_active_run_of_its_own_instance(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the tokens of a worker that executes the same instance."""
    triggerer = mapped(service, monkeypatch, LITERAL)
    first = Attempt(map_index=1)
    assert succeeded(triggerer.start(Attempt(map_index=0)))
    service.plans.append(UNTIL_ENDED)
    service.at("runs/get", service.count("runs/get") + 3, triggerer.kill)
    service.at("runs/list", service.count("runs/list") + 1, triggerer.kill)
    assert triggerer.start(first) is None
    triggerer.is_dead = False
    run = service.runs[1002]
    ti = SimpleNamespace(
        dag_id="sales", run_id=RUN_ID, task_id="etl", map_index=1, try_number=1, max_tries=2
    )
    context: Any = {
        "ti": ti,
        "task": SimpleNamespace(retries=2),
        "dag_run": SimpleNamespace(start_date=START),
    }
    assert TaskAttempt.from_context(context).tokens()[0] == run.token
    service.end(1002)
    triggerer.xcoms["etl[1]", "launch_record"] = {
        "carrier": first.carrier,
        "first_try": 1,
        "try_number": 1,
        "handed_over": True,
    }
    assert succeeded(triggerer.start(first.next_try()))
    assert len(service.runs) == 2


def test_a_failed_run_is_launched_again_by_a_retry_and_a_cleared_one_starts_afresh(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with the values of its index; the other instance is not touched."""
    triggerer = mapped(service, monkeypatch, LITERAL)
    assert succeeded(triggerer.start(Attempt(map_index=0)))
    service.plans.append(Plan("FAILED"))
    first = Attempt(map_index=1)
    assert triggerer.start(first).payload["run"]["state"]["result_state"] == "FAILED"
    second = first.next_try()
    assert succeeded(triggerer.start(second))
    assert succeeded(triggerer.start(second.cleared()))
    assert sent(service) == [{"a": "0"}, {"a": "1"}, {"a": "1"}, {"a": "1"}]
    assert values_of(triggerer, "etl[0]")["run_id"] == 1001
    assert values_of(triggerer, "etl[1]")["run_id"] == 1004
    assert all(run.cancels == 0 for run in service.runs.values())


def test_an_instance_that_was_cleared_while_no_triggerer_ran(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next attempt cancels the run of its own instance, and launches another one."""
    triggerer = mapped(service, monkeypatch, LITERAL)
    attempt = Attempt(map_index=1)
    until_launched(triggerer, service, attempt)
    assert succeeded(triggerer.start(attempt.cleared()))
    first, second = service.runs.values()
    assert (first.cancels, second.cancels) == (1, 0)
    assert sent(service) == [{"a": "1"}, {"a": "1"}]


def test_a_trigger_that_airflow_does_not_render_launches_nothing(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task was told to start on a worker after the scheduler had started it."""
    triggerer = mapped(service, monkeypatch, LITERAL)

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
    triggerer = mapped(service, monkeypatch, LITERAL)
    arguments: Any = triggerer._dag.get_task("etl").start_trigger_args
    arguments.trigger_kwargs["__var"].pop("mapped")
    triggerer.start_with(arguments)
    event = triggerer.start(Attempt(map_index=1))
    assert "no mapped values at 1" in event.payload["start_on_worker"]
    assert not service.runs


def test_a_pickled_dag_has_the_same_mapped_task() -> None:
    """Airflow pickles a DAG for a function in a virtual environment that takes ``dag``."""
    with DAG("sales", schedule=None, catchup=False) as dag:
        LITERAL(DatabricksRunNowOperator.partial(job_id=1, **COMMON), None)
    copied = pickle.loads(pickle.dumps(dag)).get_task("etl")
    assert copied.start_trigger_args == dag.get_task("etl").start_trigger_args
    assert copied.start_from_trigger


def test_many_instances_start_without_blocking_the_triggerer(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow renders each in the event loop. The values of all are decoded once, not for each."""
    text = "text that is long enough to be compressed"
    values = [{"number": f"{index}, {text}"} for index in range(20)]
    triggerer = mapped(
        service, monkeypatch, lambda partial, _: partial.expand(notebook_params=values)
    )
    decoded: list[bytes] = []
    decompress = bz2.decompress

    def counting(*arguments: Any, **options: Any) -> bytes:
        text = decompress(*arguments, **options)
        if text.startswith(b'{"product":'):  # Others decompress, too.
            decoded.append(text)
        return text

    monkeypatch.setattr(bz2, "decompress", counting)
    for index in range(20):
        assert succeeded(triggerer.start(Attempt(map_index=index)))
    assert sent(service) == values
    assert len(decoded) == 1


VALUES = [{"day": f"day {index}", "text": f"{index * 7919 % 10007}"} for index in range(1000)]


def test_the_stored_values_do_not_depend_on_how_zlib_was_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two DAG processors with different builds would make new versions of the DAG in turn."""

    def other_build(data: bytes, *_: Any, **__: Any) -> bytes:
        return compress(data, 1)

    compress = zlib.compress
    texts = []
    for used in (compress, other_build):
        monkeypatch.setattr(zlib, "compress", used)
        stored_text.compressed.cache_clear()
        with DAG("sales", schedule=None, catchup=False):
            task: Any = DatabricksRunNowOperator.partial(job_id=1, **COMMON).expand(
                notebook_params=VALUES
            )
        texts.append(task.start_trigger_args.trigger_kwargs["mapped"])
    first, second = texts
    assert first == second
    # In no environment of the tests is it another text.
    assert hashlib.sha256(first.encode()).hexdigest() == (
        "1276efa83c67e52176243321441850b276b08330c854a93c6a9203dcafbe88bb"
    )


def test_few_values_are_stored_as_they_are(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compressed, they would take more."""
    triggerer = mapped(service, monkeypatch, LITERAL)
    trigger = triggerer.trigger(Attempt(map_index=0))
    assert json.loads(trigger.mapped) == {
        "product": [["notebook_params", [{"a": "0"}, {"a": "1"}]]]
    }


def test_values_that_an_earlier_version_has_stored(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It compressed them with zlib."""
    triggerer = mapped(service, monkeypatch, LITERAL)
    text = json.dumps({"product": [["notebook_params", [{"a": "x"}, {"a": "y"}]]]})
    arguments: Any = triggerer._dag.get_task("etl").start_trigger_args
    stored = base64.b85encode(zlib.compress(text.encode())).decode()
    arguments.trigger_kwargs["__var"]["mapped"] = stored
    triggerer.start_with(arguments)
    assert succeeded(triggerer.start(Attempt(map_index=1)))
    assert sent(service) == [{"a": "y"}]


@pytest.mark.parametrize("was_paused", [False, True])
def test_many_instances_that_start_in_a_new_triggerer_store_one_record(
    was_paused: bool, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each message takes Airflow's main process a turn; the others know that XComs are stored."""
    values = [{"number": f"{index}"} for index in range(10)]
    triggerer = mapped(
        service, monkeypatch, lambda partial, _: partial.expand(notebook_params=values)
    )
    triggerer.stores_xcoms = False

    async def start_all(first: Any) -> list[Any]:
        others = [triggerer.trigger(Attempt(map_index=index)) for index in range(1, 10)]
        if was_paused:
            pause(monkeypatch)
        return await asyncio.gather(*map(triggerer.first_event, [first, *others]))

    events = triggerer.run(start_all, Attempt(map_index=0))
    assert all(map(succeeded, events))
    assert sorted(sent(service), key=str) == values
    asked = messages(triggerer)
    assert asked.count("SetXCom launch_record") == 1
    assert asked.count("GetXCom launch_record") >= (10 if was_paused else 1)
    if not was_paused:
        assert asked.count("GetXCom launch_record") == 1

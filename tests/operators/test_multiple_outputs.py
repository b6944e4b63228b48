"""``multiple_outputs=True``: the output of each task of a run as an XCom of its own.

What Airflow makes of it in a DAG is in tests/end_to_end/test_several_tasks.py.
"""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG
from airflow.triggers.base import TaskSuccessEvent

from airflow_jobs_provider.exceptions import DatabricksRunFailedError
from airflow_jobs_provider.operators.jobs import DatabricksSubmitRunOperator
from tests.fakes.scripted_server import ScriptedServer, Step, answer
from tests.helpers.responses import (
    LAUNCHED,
    OUTPUT,
    RUNNING,
    SUCCEEDED,
    each,
    good,
    iterations,
    run,
    whole,
)
from tests.helpers.tasks import (
    XCOMS,
    InTriggerer,
    Logged,
    deferred_by,
    fired,
    run_now,
    sensor,
    stored_from_trigger,
    submit,
)

pytestmark = pytest.mark.usefixtures("triggerer_keeps_dags")

WHERE = ["worker", "deferred", "triggerer"]
KINDS = ["submit", "run now", "sensor"]
RESERVED = [
    "run_id",
    "job_id",
    "run_page_url",
    "output_truncated",
    "task_run_ids",
    "return_value",
]


def task(key: str, run_id: int) -> dict[str, Any]:
    """Make a task of a run that succeeded."""
    state = run("TERMINATED", "SUCCESS")
    return {**state, "task_key": key, "run_id": run_id, "notebook_task": {}}


def pushed(
    kind: str, where: str, context: Any, server: ScriptedServer, *steps: Step, **arguments: Any
) -> dict[str, Any]:
    """Wait for a run in one of the ways; return all XComs that Airflow has of the task then."""
    make = {"submit": submit, "run now": lambda **a: run_now(job_id=3, **a), "sensor": sensor}[kind]
    arguments = {"multiple_outputs": True, **arguments}
    launch = [] if kind == "sensor" else [LAUNCHED]
    xcoms = context["ti"].xcoms
    if where == "worker":
        server.will(*launch, *steps)
        operator: Any = make(**arguments)
        value = operator.poke(context).xcom_value if kind == "sensor" else operator.execute(context)
    else:
        server.will(*launch, RUNNING)
        operator = make(deferrable=True, end_from_trigger=where == "triggerer", **arguments)
        deferred = deferred_by(operator, context)
        server.will(*steps)
        event = fired(deferred.trigger)
        if where == "triggerer":
            assert isinstance(event, TaskSuccessEvent)
            return {**xcoms, **(event.xcoms or {})}
        operator = make(**arguments)
        value = operator.execute_complete(context, event.payload, **deferred.kwargs or {})
    # What Airflow would do with it; see the end of its _push_xcom_if_needed.
    assert not operator.multiple_outputs
    return {**xcoms, **({} if value is None else {"return_value": value})}


def expected(kind: str, **xcoms: Any) -> dict[str, Any]:
    """Add what each task pushes besides."""
    others = {"run_id": 7, "run_page_url": "http://w/7"} if kind == "sensor" else XCOMS
    return {**others, **xcoms}


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("kind", KINDS)
def test_each_task_has_an_xcom(kind: str, where: str, context: Any, server: ScriptedServer) -> None:
    """Beside the whole, and None where a task gave nothing, as Airflow pushes it."""
    steps = [whole("SUCCESS", task("load", 71), task("report", 72)), good("9 rows"), answer({})]
    value = {"load": "9 rows", "report": None}
    ids = {"load": 71, "report": 72}
    assert pushed(kind, where, context, server, *steps) == expected(
        kind, **value, return_value=value, task_run_ids=ids
    )


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("key", RESERVED)
def test_a_task_never_takes_the_place_of_another_xcom(
    key: str, where: str, context: Any, server: ScriptedServer, logged: Logged
) -> None:
    """Its output is in return_value, and the log says so."""
    steps = [whole("SUCCESS", task(key, 71), task("report", 72)), good("mine"), good("42")]
    value = {key: "mine", "report": "42"}
    assert pushed("submit", where, context, server, *steps) == expected(
        "submit", report="42", return_value=value, task_run_ids={key: 71, "report": 72}
    )
    assert f"The output of task '{key}' is in return_value only" in logged()


@pytest.mark.parametrize("where", WHERE)
def test_the_flag_is_pushed_beside(where: str, context: Any, server: ScriptedServer) -> None:
    """Each task's text is cut, under its key as in the whole."""
    steps = [whole("SUCCESS", task("a", 71), task("b", 72)), good("long"), good("x")]
    value = {"a": "lo", "b": "x"}
    xcoms = pushed("run now", where, context, server, *steps, max_output_bytes=2)
    rest = {"output_truncated": True, "task_run_ids": {"a": 71, "b": 72}}
    assert xcoms == expected("run now", **value, return_value=value, **rest)


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_without_task_keys_does_not_fail(
    kind: str, where: str, context: Any, server: ScriptedServer, logged: Logged
) -> None:
    """Airflow fails a task with multiple_outputs whose value is no dict; the run has succeeded."""
    xcoms = pushed(kind, where, context, server, SUCCEEDED, OUTPUT)
    assert xcoms == expected(kind, return_value="42")
    assert "the run has no task keys" in logged()


@pytest.mark.parametrize("where", WHERE)
def test_a_run_of_one_task_has_its_key(where: str, context: Any, server: ScriptedServer) -> None:
    """So a DAG need not change when a job gets its second task."""
    steps = [whole("SUCCESS", task("load", 71)), good("9 rows")]
    assert pushed("submit", where, context, server, *steps) == expected(
        "submit", load="9 rows", return_value="9 rows"
    )


@pytest.mark.parametrize("where", WHERE)
def test_a_loop_is_one_of_them(where: str, context: Any, server: ScriptedServer) -> None:
    """With its list."""
    steps = [
        whole("SUCCESS", task("load", 71), each("SUCCESS")),
        good("9 rows"),
        iterations("SUCCESS", "SUCCESS"),
        good("a"),
        good("b"),
    ]
    xcoms = pushed("submit", where, context, server, *steps)
    assert (xcoms["load"], xcoms["each"]) == ("9 rows", ["a", "b"])


@pytest.mark.parametrize("where", WHERE)
def test_an_output_that_cannot_be_read_does_not_fail(
    where: str, context: Any, server: ScriptedServer
) -> None:
    """Neither one task's, nor all."""
    steps = [whole("SUCCESS", task("a", 71), task("b", 72)), answer({}, 403), good("x")]
    if where == "deferred":
        steps.append(answer({}, 403))  # the worker asks for it, too, and logs why there is none
    xcoms = pushed("submit", where, context, server, *steps)
    assert (xcoms["a"], xcoms["b"]) == (None, "x")


@pytest.mark.parametrize("where", ["worker", "deferred"])
def test_a_run_that_failed_has_the_runs_of_its_tasks(
    where: str, context: Any, server: ScriptedServer
) -> None:
    """For the links to their pages, where a user looks for the cause."""
    failed = {**task("b", 72), **run("TERMINATED", "FAILED"), "run_id": 72}
    steps = [whole("FAILED", task("a", 71), failed), answer({"error": "no", "metadata": failed})]
    with pytest.raises(DatabricksRunFailedError):
        pushed("submit", where, context, server, *steps)
    assert context["ti"].xcoms["task_run_ids"] == {"a": 71, "b": 72}


@pytest.mark.parametrize("where", WHERE)
def test_nothing_is_pushed_where_nothing_is_wanted(
    where: str, context: Any, server: ScriptedServer
) -> None:
    """do_xcom_push=False, as in Airflow."""
    steps = [whole("SUCCESS", task("a", 71), task("b", 72))]
    assert pushed("submit", where, context, server, *steps, do_xcom_push=False) == {}


@pytest.mark.parametrize("where", WHERE)
def test_without_it_there_is_the_whole_only(
    where: str, context: Any, server: ScriptedServer
) -> None:
    """The default."""
    steps = [whole("SUCCESS", task("a", 71), task("b", 72)), good("1"), good("2")]
    xcoms = pushed("submit", where, context, server, *steps, multiple_outputs=False)
    ids = {"a": 71, "b": 72}
    assert xcoms == expected("submit", return_value={"a": "1", "b": "2"}, task_run_ids=ids)


def test_the_trigger_stores_them_one_by_one(
    context: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Airflow 3 the event brings none: each is stored as a worker does."""
    server.will(LAUNCHED, RUNNING)
    operator = submit(deferrable=True, end_from_trigger=True, multiple_outputs=True)
    trigger = deferred_by(operator, context).trigger
    stored = stored_from_trigger(monkeypatch)
    server.will(whole("SUCCESS", task("a", 71), task("run_id", 72)), good("1"), good("2"))
    event = fired(trigger, InTriggerer())
    assert isinstance(event, TaskSuccessEvent)
    assert event.xcoms is None
    assert [one[:2] for one in stored] == [
        ("a", "1"),
        ("return_value", {"a": "1", "run_id": "2"}),
        ("task_run_ids", {"a": 71, "run_id": 72}),
    ]


def test_a_mapped_task_takes_it_too() -> None:
    """As any argument of an operator."""
    with DAG("d", schedule=None):
        mapped: Any = type(run_now(job_id=3)).partial(task_id="each", multiple_outputs=True)
        assert mapped.expand(job_id=[1, 2]).partial_kwargs["multiple_outputs"] is True


def test_a_task_that_waits_for_several_runs(context: Any, server: ScriptedServer) -> None:
    """The flag counts for each of them; a task key keeps the output of the last run."""

    class Twice(DatabricksSubmitRunOperator):
        def execute(self, context: Any) -> Any:
            super().execute(context)
            return super().execute(context)

    ended = answer(run("TERMINATED", "SUCCESS", tasks=[task("load", 71)]))
    outputs = [answer({"metadata": {}, "notebook_output": {"result": text}}) for text in "ab"]
    for output in outputs:
        server.will(LAUNCHED, ended, output)
    operator = Twice(
        task_id="etl",
        existing_cluster_id="c",
        notebook_task={"notebook_path": "/etl"},
        multiple_outputs=True,
    )
    assert operator.execute(context) == "b"
    assert context["ti"].xcoms["load"] == "b"

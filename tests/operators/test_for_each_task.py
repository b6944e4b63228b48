"""Runs with a ``for_each_task``: the outputs and the errors of its iterations, on every face."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.triggers.base import TaskSuccessEvent

from airflow_jobs_provider.exceptions import DatabricksRunFailedError
from airflow_jobs_provider.sensors.jobs import DatabricksJobRunSensor
from tests.fakes.scripted_server import ScriptedServer, Step, answer
from tests.helpers.responses import LAUNCHED, RUNNING, each, good, iterations, run, whole
from tests.helpers.tasks import Logged, connect, deferred_by, fired, submit

pytestmark = pytest.mark.usefixtures("triggerer_keeps_dags")

REFUSED = answer(
    {
        "error_code": "INVALID_PARAMETER_VALUE",
        "message": "Retrieving the output of runs with multiple tasks is not supported.",
    },
    400,
)
WHERE = ["worker", "deferred", "triggerer"]


def load() -> dict[str, Any]:
    """Make another task of the run."""
    return {**run("TERMINATED", "SUCCESS"), "run_id": 71, "task_key": "load", "notebook_task": {}}


def bad(error: str) -> Step:
    """Answer the output of one that failed."""
    metadata = run("TERMINATED", "FAILED")
    trace = f"Traceback\n  File 'cell 2'\n{error}"
    return answer({"metadata": metadata, "error": error, "error_trace": trace})


def concluded(
    where: str,
    context: Any,
    server: ScriptedServer,
    ended: Step,
    *answers: Step,
    **arguments: Any,
) -> tuple[Any, dict[str, Any]]:
    """Wait for a run in one of the ways; return the task's value, and what else it pushed."""
    if where == "worker":
        server.will(LAUNCHED, ended, *answers)
        value = submit(**arguments).execute(context)
        return value, dict(context["ti"].xcoms)
    ends = where == "triggerer"
    server.will(LAUNCHED, RUNNING)
    deferred = deferred_by(submit(deferrable=True, end_from_trigger=ends, **arguments), context)
    server.will(ended, *answers)
    event = fired(deferred.trigger)
    if isinstance(event, TaskSuccessEvent):
        assert ends
        xcoms = dict(event.xcoms or {})
        return xcoms.pop("return_value", None), xcoms
    value = submit(**arguments).execute_complete(context, event.payload, **deferred.kwargs or {})
    return value, dict(context["ti"].xcoms)


def asked(server: ScriptedServer) -> list[str]:
    """Return what was asked after the run had ended: version, endpoint and run."""
    return [
        f"{request.path.split('/')[2]} {request.path.rpartition('jobs/')[2]} "
        f"{request.query['run_id']}"
        for request in server.requests
        if request.verb == "GET" and request.query["run_id"] != "7"
    ]


@pytest.mark.parametrize("where", WHERE)
def test_the_outputs_come_as_a_list(where: str, context: Any, server: ScriptedServer) -> None:
    """In the order of the inputs, over all pages; other tasks as ever."""
    pages = [
        iterations("SUCCESS", "SUCCESS", next_page_token="more"),
        iterations("SUCCESS", first=2),
    ]
    answers = [good("9 rows"), *pages, good("a"), good(""), answer({})]
    value, _ = concluded(
        where, context, server, whole("SUCCESS", load(), each("SUCCESS")), *answers
    )
    assert value == {"load": "9 rows", "each": ["a", "", None]}
    assert asked(server) == [
        "2.0 runs/get-output 71",
        "2.2 runs/get 72",
        "2.2 runs/get 72",
        *(f"2.0 runs/get-output {n}" for n in (800, 801, 802)),
    ]
    assert server.requests[-4].query["page_token"] == "more"


@pytest.mark.parametrize("where", WHERE)
def test_a_run_of_one_loop_gives_the_list(where: str, context: Any, server: ScriptedServer) -> None:
    """As a run of one notebook gives the text."""
    answers = [iterations("SUCCESS", "SUCCESS"), good("a"), good("b")]
    value, _ = concluded(where, context, server, whole("SUCCESS", each("SUCCESS")), *answers)
    assert value == ["a", "b"]


@pytest.mark.parametrize("where", WHERE)
def test_a_failure_has_the_errors_of_the_iterations(
    where: str, context: Any, server: ScriptedServer, logged: Logged
) -> None:
    """Not just that one of three failed; those that succeeded are not asked for."""
    ended = whole("FAILED", load(), each("FAILED", "1 of 3 failed"))
    listed = iterations("SUCCESS", "FAILED", "SUCCESS")
    with pytest.raises(DatabricksRunFailedError) as failure:
        concluded(where, context, server, ended, listed, bad("KeyError: 'day'"))
    assert str(failure.value).splitlines()[1:-1] == [
        "Task 'each': TERMINATED/FAILED: 1 of 3 failed",
        "Task 'each', iteration 1 (run 801): KeyError: 'day'",
    ]
    assert asked(server) == ["2.2 runs/get 72", "2.0 runs/get-output 801"]
    # Several lines, as a trace is read, and none of them at the start of a line of the log.
    trace = "Traceback\n      File 'cell 2'\n    KeyError: 'day'"
    assert f"The trace of run 801:\n    {trace}" in logged()


@pytest.mark.parametrize("where", ["worker", "triggerer"])
def test_at_most_a_hundred_errors_are_read(
    where: str, context: Any, server: ScriptedServer
) -> None:
    """Two loops share the limit; the message says how many more failed."""
    first, second = each("FAILED"), each("FAILED", run_id=73, task_key="other")
    pages = [
        iterations(*["FAILED"] * 100, next_page_token="more"),
        iterations(*["FAILED"] * 20, "CANCELED", first=100),
    ]
    others = iterations("FAILED", "SUCCESS", run_id=73)
    answers = [*pages, *(bad(f"error {n}") for n in range(100)), others]
    with pytest.raises(DatabricksRunFailedError) as failure:
        concluded(where, context, server, whole("FAILED", first, second), *answers)
    lines = str(failure.value).splitlines()
    assert lines[2] == "Task 'each', iteration 0 (run 800): error 0"
    assert lines[101:-1] == [
        "Task 'each', iteration 99 (run 899): error 99",
        "Task 'each', further iterations that failed: 21",
        "Task 'other': TERMINATED/FAILED",
        "Task 'other', further iterations that failed: 1",
    ]
    assert sum("get-output" in one for one in asked(server)) == 100


@pytest.mark.parametrize("where", WHERE)
def test_what_failed_is_a_gap(
    where: str, context: Any, server: ScriptedServer, logged: Logged
) -> None:
    """Of a run that succeeded with failures the good outputs keep their places."""
    ended = whole("SUCCESS_WITH_FAILURES", load(), each("FAILED", "1 of 3 failed"))
    listed = iterations("SUCCESS", "FAILED", "SUCCESS")
    answers = [good("9 rows"), listed, good("a"), bad("KeyError: 'day'"), good("c")]
    value, _ = concluded(where, context, server, ended, *answers, fail_on_partial_success=False)
    assert value == {"load": "9 rows", "each": ["a", None, "c"]}
    assert "Task 'each', iteration 1 (run 801): KeyError: 'day'" in logged()


@pytest.mark.parametrize("where", WHERE)
def test_version_2_0_need_not_tell_that_it_is_a_loop(
    where: str, context: Any, server: ScriptedServer
) -> None:
    """Its output is refused there; version 2.2 tells its iterations."""
    task = each("SUCCESS")
    del task["for_each_task"]
    answers = [REFUSED, iterations("SUCCESS"), good("a")]
    value, _ = concluded(where, context, server, whole("SUCCESS", task), *answers)
    assert value == ["a"]
    assert asked(server)[:2] == ["2.0 runs/get-output 72", "2.2 runs/get 72"]


@pytest.mark.parametrize("where", WHERE)
def test_a_connection_that_pins_version_2_0_leaves_the_loop_out(
    where: str,
    context: Any,
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    logged: Logged,
) -> None:
    """The run has succeeded, so the task does; the log says what would bring the outputs."""
    connect(monkeypatch, server, "2.0")
    answers = [good("9 rows"), answer({**each("SUCCESS")})]
    value, _ = concluded(
        where, context, server, whole("SUCCESS", load(), each("SUCCESS")), *answers
    )
    assert value == {"load": "9 rows", "each": None}
    assert asked(server)[-1] == "2.0 runs/get 72"
    assert "(task each) cannot be read: its iterations are not listed; version 2.2" in logged()


@pytest.mark.parametrize("where", WHERE)
def test_an_output_that_is_refused_is_a_gap(
    where: str, context: Any, server: ScriptedServer, logged: Logged
) -> None:
    """The log names the iteration; the others are read."""
    answers = [iterations("SUCCESS", "SUCCESS", "SUCCESS"), good("a"), answer({}, 403), good("c")]
    value, _ = concluded(where, context, server, whole("SUCCESS", each("SUCCESS")), *answers)
    assert value == ["a", None, "c"]
    assert "The output of run 801 (task each[1]) cannot be read" in logged()


@pytest.mark.parametrize("where", WHERE)
def test_a_list_of_iterations_that_is_refused_is_none(
    where: str, context: Any, server: ScriptedServer, logged: Logged
) -> None:
    """As with any output that cannot be read."""
    ended = whole("SUCCESS", each("SUCCESS"), load())
    value, _ = concluded(where, context, server, ended, answer({}, 403), good("9 rows"))
    assert value == {"each": None, "load": "9 rows"}
    assert "The output of run 72 (task each) cannot be read" in logged()


@pytest.mark.parametrize("where", WHERE)
def test_each_output_is_cut(where: str, context: Any, server: ScriptedServer) -> None:
    """max_output_bytes is for each text, and output_truncated says so."""
    answers = [iterations("SUCCESS", "SUCCESS"), good("häuser"), good("x")]
    value, xcoms = concluded(
        where, context, server, whole("SUCCESS", each("SUCCESS")), *answers, max_output_bytes=2
    )
    assert value == ["h", "x"]
    assert xcoms["output_truncated"] is True


@pytest.mark.parametrize("where", WHERE)
def test_the_sensor_of_a_loop(where: str, context: Any, server: ScriptedServer) -> None:
    """A task of a run that is waited for by its key may be a loop."""
    arguments: dict[str, Any] = {"run_id": "7", "task_key": "each", "poke_interval": 0.01}
    answers = [iterations("SUCCESS", "SUCCESS"), good("a"), good("b")]
    ended = whole("SUCCESS", load(), each("SUCCESS"))
    if where == "worker":
        server.will(ended, *answers)
        outcome: Any = DatabricksJobRunSensor(task_id="wait", **arguments).poke(context)
        assert outcome.xcom_value == ["a", "b"]
        return
    server.will(answer({**run("RUNNING"), "tasks": [load(), {**each(""), "state": {}}]}))
    sensor = DatabricksJobRunSensor(
        task_id="wait", deferrable=True, end_from_trigger=where == "triggerer", **arguments
    )
    deferred = deferred_by(sensor, context)
    server.will(ended, *answers)
    event = fired(deferred.trigger)
    if isinstance(event, TaskSuccessEvent):
        assert (event.xcoms or {})["return_value"] == ["a", "b"]
    else:
        assert sensor.execute_complete(context, event.payload) == ["a", "b"]
    assert asked(server)[0] == "2.2 runs/get 72"


def test_the_sensor_of_a_loops_own_run(context: Any, server: ScriptedServer) -> None:
    """Its run can be waited for as such; the iterations are read once."""
    itself = {**each("SUCCESS"), "run_id": 72}
    server.will(answer(itself), REFUSED, iterations("SUCCESS", "SUCCESS"), good("a"), good("b"))
    del itself["for_each_task"]
    server.steps[0] = answer(itself)
    outcome: Any = DatabricksJobRunSensor(task_id="wait", run_id=72).poke(context)
    assert outcome.xcom_value == ["a", "b"]
    assert asked(server) == [
        "2.0 runs/get 72",
        "2.0 runs/get-output 72",
        "2.2 runs/get 72",
        "2.0 runs/get-output 800",
        "2.0 runs/get-output 801",
    ]


def test_a_failed_loop_of_the_sensor_tells_its_iterations(
    context: Any, server: ScriptedServer
) -> None:
    """As the operators do."""
    server.will(whole("FAILED", each("FAILED", "1 of 1 failed")), iterations("FAILED"), bad("no"))
    sensor = DatabricksJobRunSensor(task_id="wait", run_id="7", task_key="each")
    with pytest.raises(DatabricksRunFailedError, match=r"iteration 0 \(run 800\): no"):
        sensor.poke(context)


@pytest.mark.parametrize("where", WHERE)
def test_a_failure_tells_of_tasks_on_every_page(
    where: str, context: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Version 2.2 gives a hundred tasks on a page; the failed ones may be on the last."""
    connect(monkeypatch, server, "2.2")
    tasks = [{**load(), "task_key": f"t{n}", "run_id": 1000 + n} for n in range(150)]
    tasks[5] |= run("TERMINATED", "FAILED") | {"run_id": 1005}
    tasks[140] |= run("TERMINATED", "FAILED") | {"run_id": 1140}
    ended = whole("FAILED", *tasks[:100], next_page_token="more")
    answers = [answer({"run_id": 7, "tasks": tasks[100:]}), bad("first"), bad("last")]
    with pytest.raises(DatabricksRunFailedError) as failure:
        concluded(where, context, server, ended, *answers)
    assert str(failure.value).splitlines()[1:-1] == ["Task 't5': first", "Task 't140': last"]

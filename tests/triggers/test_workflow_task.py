"""The triggers of the tasks of one run: they share its reads, and each cancels its own task."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from airflow.triggers.base import TaskSuccessEvent

from airflow_jobs_provider.airflow_compat.early_events import seconds_until_event
from airflow_jobs_provider.airflow_compat.lines import airflow_line
from airflow_jobs_provider.api.retry import no_waiting
from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
from airflow_jobs_provider.triggers.polling import poller
from airflow_jobs_provider.triggers.workflow import DatabricksWorkflowTaskTrigger
from tests.fakes.scripted_server import ScriptedServer, Step, answer
from tests.helpers.responses import OUTPUT, run

TASKS = 40


def whole(life: str, *tasks: dict[str, Any]) -> Step:
    """Answer the run with its tasks."""
    return answer({**run(life, "SUCCESS" if life == "TERMINATED" else None), "tasks": list(tasks)})


def task(number: int, life: str, result: str | None = None, attempt: int = 0) -> dict[str, Any]:
    """Make a task of the run, or its attempt of that number."""
    ids = {"run_id": 100 * (attempt + 1) + number, "task_key": f"t{number}"}
    return {**run(life, result), **ids, "attempt_number": attempt}


def trigger(number: int, **arguments: Any) -> DatabricksWorkflowTaskTrigger:
    """Make the trigger of a task."""
    arguments = {"polling_period_seconds": 0.2, **arguments}
    return DatabricksWorkflowTaskTrigger(
        100 + number, workflow_run_id=7, task_key=f"t{number}", **arguments
    )


async def payload_of(one: DatabricksWorkflowTaskTrigger) -> Any:
    """Run a trigger, made again from its stored form, to its event."""
    again = type(one)(**one.serialize()[1])
    (payload,) = [event.payload async for event in again.run()]
    return payload


def test_all_tasks_share_the_reads_of_their_run(context: Any, server: ScriptedServer) -> None:
    """Forty triggers, three reads; each gets its own task, as soon as that has ended."""
    numbers = range(TASKS)
    server.will(
        whole("RUNNING", *(task(number, "RUNNING") for number in numbers)),
        whole(
            "RUNNING",
            *(task(n, "TERMINATED" if n % 2 else "RUNNING", "SUCCESS") for n in numbers),
        ),
        whole("TERMINATED", *(task(number, "TERMINATED", "SUCCESS") for number in numbers)),
    )

    async def collect() -> list[Any]:
        return await asyncio.gather(*(payload_of(trigger(number)) for number in numbers))

    payloads = asyncio.run(collect())
    assert [one["run"]["run_id"] for one in payloads] == [100 + number for number in numbers]
    assert [request.path for request in server.requests] == ["/api/2.2/jobs/runs/get"] * 3


def test_one_client_for_all_reads(
    context: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two reads nobody waits for a run, but the connection is looked up once."""
    monkeypatch.setattr(poller, "LINGER_SECONDS", 0.01)
    opened: list[DatabricksJobsHook] = []
    async_client = DatabricksJobsHook.async_client

    def count(hook: DatabricksJobsHook, *args: Any, **kwargs: Any) -> Any:
        opened.append(hook)
        return async_client(hook, *args, **kwargs)

    monkeypatch.setattr(DatabricksJobsHook, "async_client", count)
    active = whole("RUNNING", task(0, "RUNNING"))
    server.will(active, active, whole("TERMINATED", task(0, "TERMINATED", "SUCCESS")))
    asyncio.run(payload_of(trigger(0)))
    assert len(server.requests) == 3
    assert len(opened) == 1


@pytest.mark.parametrize(("retries", "run_id"), [(0, 100), (1, 200), (-1, 200)])
def test_a_failed_attempt_is_not_the_end_where_the_service_retries(
    retries: int, run_id: int, context: Any, server: ScriptedServer
) -> None:
    """The wait goes on with the next attempt, up to the last one."""
    first, second = task(0, "TERMINATED", "FAILED"), task(0, "TERMINATED", "SUCCESS", 1)
    server.will(whole("RUNNING", first), whole("RUNNING", first), whole("RUNNING", first, second))
    payload = asyncio.run(payload_of(trigger(0, task_max_retries=retries)))
    assert payload["run"]["run_id"] == run_id


def test_the_last_attempt_of_the_service_is_the_end(context: Any, server: ScriptedServer) -> None:
    """Attempts before a repair do not count."""
    attempts = [task(0, "TERMINATED", "FAILED", attempt) for attempt in range(3)]
    server.will(whole("RUNNING", *attempts[:2]), whole("RUNNING", *attempts))
    one = trigger(0, task_max_retries=1, attempts_before=1)
    payload = asyncio.run(payload_of(one))
    assert payload["run"]["run_id"] == 300


def test_a_read_before_the_repair_is_not_used(context: Any, server: ScriptedServer) -> None:
    """Another trigger, which reads more seldom, waits while the run ends and is repaired."""
    others = task(1, "RUNNING")
    first, second = task(0, "TERMINATED", "FAILED"), task(0, "TERMINATED", "SUCCESS", 1)
    server.will(
        whole("RUNNING", task(0, "RUNNING"), others),
        whole("TERMINATED", first, others),
        whole("RUNNING", first, second, others),
    )

    async def collect() -> Any:
        other = asyncio.create_task(payload_of(trigger(1, polling_period_seconds=30)))
        assert (await payload_of(trigger(0, polling_period_seconds=0.05)))["run"]["run_id"] == 100
        repaired = trigger(0, polling_period_seconds=30, attempts_before=1)
        async with asyncio.timeout(10):
            payload = await payload_of(repaired)
        other.cancel()
        return payload

    assert asyncio.run(collect())["run"]["run_id"] == 200


def test_a_run_that_cannot_be_read_fails_each_of_its_tasks(
    context: Any, server: ScriptedServer
) -> None:
    """With the service's words, after one request."""
    gone = {"error_code": "INVALID_PARAMETER_VALUE", "message": "Run 7 does not exist."}
    server.will(answer(gone, 400))

    async def collect() -> list[Any]:
        return await asyncio.gather(*(payload_of(trigger(number)) for number in range(3)))

    for number, payload in enumerate(asyncio.run(collect())):
        assert payload["run_id"] == 100 + number
        assert "Run 7 does not exist." in payload["error"]
    assert len(server.requests) == 1


@pytest.mark.parametrize("ends_here", [True, False])
def test_a_task_may_end_in_the_triggerer(
    ends_here: bool, context: Any, server: ScriptedServer
) -> None:
    """Its own output is its XCom; the rest of the run goes on."""
    server.will(whole("RUNNING", task(0, "TERMINATED", "SUCCESS"), task(1, "RUNNING")), OUTPUT)
    one = trigger(0, end_from_trigger=ends_here)
    one.trigger_id = 1  # it is in a triggerer

    async def first() -> Any:
        return [event async for event in one.run()]

    (event,) = asyncio.run(first())
    if ends_here:
        assert isinstance(event, TaskSuccessEvent)
        assert event.xcoms is not None
        assert event.xcoms["return_value"] == "42"
    else:
        assert event.payload["run"]["run_id"] == 100


@pytest.mark.parametrize(
    ("period", "arguments", "seconds"),
    [
        pytest.param(5.0, {}, 5.0, id="no longer than its polling period"),
        pytest.param(60.0, {}, 10.0, id="no longer than Airflow takes"),
        pytest.param(5.0, {"end_from_trigger": True}, None, id="it resumes no task"),
        pytest.param(5.0, {"trigger_id": None}, None, id="in dag.test()"),
    ],
)
def test_a_task_is_not_resumed_right_after_its_deferral(
    period: float,
    arguments: dict[str, Any],
    seconds: float | None,
    context: Any,
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Airflow 3 may take the end of the deferring process for that of the resumed one."""
    monkeypatch.setattr(airflow_line(), "fails_tasks_resumed_early", True)
    arguments = {"trigger_id": 1, **arguments}
    trigger_id = arguments.pop("trigger_id")
    server.will(whole("RUNNING", task(0, "TERMINATED", "SUCCESS")), OUTPUT)
    one = trigger(0, polling_period_seconds=period, **arguments)
    one.trigger_id = trigger_id

    async def first() -> Any:
        return [event async for event in one.run()]

    with no_waiting() as waits:
        (event,) = asyncio.run(first())
    assert event.payload is not None or arguments
    long_waits = [wait for wait in waits if wait > 1]
    assert long_waits == ([] if seconds is None else [pytest.approx(seconds, abs=1.0)])


def test_airflow_2_resumes_a_task_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its executors wait for the end of the deferring process."""
    monkeypatch.setattr(airflow_line(), "fails_tasks_resumed_early", False)
    assert seconds_until_event(time.monotonic(), 5.0) == 0


def test_a_time_limit_cancels_the_task_alone(context: Any, server: ScriptedServer) -> None:
    """The other tasks of the run go on."""
    server.will(
        whole("RUNNING", task(0, "RUNNING"), task(1, "RUNNING")),
        answer({**run("RUNNING"), "run_id": 100}),
        answer({}),
    )
    payload = asyncio.run(payload_of(trigger(0, deadline=1.0, cancel_on_kill=True)))
    assert payload["timed_out"] == "execution_timeout"
    assert server.requests[-1].path.endswith("runs/cancel")
    assert server.requests[-1].body == {"run_id": 100}

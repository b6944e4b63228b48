"""Tests of the two drivers of workflows."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from airflow_jobs_provider.api.calls import Call
from airflow_jobs_provider.api.endpoints import get_run, run_now
from airflow_jobs_provider.api.errors import RateLimitError, ServerError
from airflow_jobs_provider.api.workflows.base import (
    Wait,
    Workflow,
    WorkflowExecution,
    run_workflow,
    run_workflow_async,
)
from airflow_jobs_provider.api.workflows.events import Event, LaunchPrepared, RunIdentified
from tests.helpers.workflow_driver import RUNNING

RATE_LIMITED = RateLimitError(status=429)


def every_kind_of_step() -> Workflow[list[Any]]:
    """Yield calls, waits and events; return what the calls brought."""
    yield LaunchPrepared(run_now({"job_id": 1}))
    brought: list[Any] = [(yield run_now({"job_id": 1}))]
    yield RunIdentified(7)
    yield Wait(1)
    yield Wait(2)
    try:
        yield get_run(7)
    except RateLimitError as error:
        brought.append(error)
    yield RunIdentified(8)
    brought.append((yield get_run(8)))
    return brought


class Recorder:
    """Notes what a driver does, in order."""

    def __init__(self) -> None:
        self.done: list[Any] = []
        self.answers = [7, RATE_LIMITED, RUNNING]

    def send(self, call: Call[Any]) -> Any:
        """Give the next answer."""
        self.done.append(call.path)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def on_event(self, event: Event) -> None:
        """Note an event."""
        self.done.append(type(event).__name__)

    def before_step(self) -> None:
        """Note that a step is next."""
        self.done.append(".")


EXPECTED_STEPS = [
    *(".", "LaunchPrepared", ".", "run-now", "RunIdentified", 1, ".", 2, "."),
    *(".", "runs/get", "RunIdentified", ".", "runs/get"),
]


def test_the_blocking_driver_takes_each_step_once_and_in_order() -> None:
    """Calls are sent, waits waited, events told; errors come back into the workflow."""
    recorder = Recorder()
    result = run_workflow(
        every_kind_of_step(),
        send=recorder.send,
        wait=recorder.done.append,
        on_event=recorder.on_event,
        before_step=recorder.before_step,
    )
    assert result == [7, RATE_LIMITED, RUNNING]
    assert recorder.done == EXPECTED_STEPS


def test_the_asyncio_driver_does_the_same() -> None:
    """Both drivers take the same steps in the same order."""
    recorder = Recorder()

    async def send(call: Call[Any]) -> Any:
        await asyncio.sleep(0)
        return recorder.send(call)

    async def wait(seconds: float) -> None:
        await asyncio.sleep(0)
        recorder.done.append(seconds)

    result = asyncio.run(
        run_workflow_async(
            every_kind_of_step(),
            send=send,
            wait=wait,
            on_event=recorder.on_event,
            before_step=recorder.before_step,
        )
    )
    assert result == [7, RATE_LIMITED, RUNNING]
    assert recorder.done == EXPECTED_STEPS


def test_an_execution_stops_at_a_wait_and_goes_on_later() -> None:
    """So a sensor goes on at its next poke."""
    recorder = Recorder()
    execution = WorkflowExecution(every_kind_of_step())
    assert execution.advance(recorder.send) == Wait(1)
    assert recorder.done == ["run-now"]
    assert execution.advance(recorder.send) == Wait(2)
    assert execution.advance(recorder.send) is None
    assert execution.result == [7, RATE_LIMITED, RUNNING]
    assert recorder.done == ["run-now", "runs/get", "runs/get"]


def test_an_exception_before_a_step_ends_the_workflow() -> None:
    """The step is not taken: a killed task sends nothing more."""
    recorder = Recorder()
    steps_left = 2

    def before_step() -> None:
        nonlocal steps_left
        steps_left -= 1
        if steps_left < 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_workflow(
            every_kind_of_step(),
            send=recorder.send,
            wait=recorder.done.append,
            before_step=before_step,
        )
    assert recorder.done == ["run-now", 1]


def test_an_error_that_the_workflow_does_not_handle_is_raised() -> None:
    """Only the workflow knows which errors it can do with."""
    recorder = Recorder()
    recorder.answers = [ServerError(status=500)]
    with pytest.raises(ServerError):
        run_workflow(every_kind_of_step(), send=recorder.send, wait=recorder.done.append)

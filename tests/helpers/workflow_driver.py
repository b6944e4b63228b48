"""Executes a workflow without a network: the test gives each response. And runs to answer with."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from airflow_jobs_provider.api.calls import Call
from airflow_jobs_provider.api.errors import JobsAPIError, NotFoundError
from airflow_jobs_provider.api.workflows.base import Wait, Workflow, run_workflow
from airflow_jobs_provider.api.workflows.events import Event, RunIdentified


class WorkflowDriver:
    """Answers calls as told; its clock runs only when a workflow waits."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        self.events: list[Event] = []
        self.now = 1_000_000.0

    def execute(self, steps: Workflow[Any]) -> Any:
        """Execute a workflow and return its result."""
        return run_workflow(steps, send=self.send, wait=self.wait, on_event=self.events.append)

    def send(self, call: Call[Any]) -> Any:
        """Give the next answer."""
        subject = call.parameters.get("idempotency_token") or next(iter(call.parameters.values()))
        self.asked.append(f"{call.path} {subject}")
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    @property
    def identified(self) -> list[int]:
        """The runs that the workflow was about."""
        return [event.run_id for event in self.events if isinstance(event, RunIdentified)]


def execute_together(
    send: Callable[[Call[Any]], Any], several: Sequence[Workflow[Any]], seed: int
) -> list[Any]:
    """Execute workflows at once, step by step in a random order; each step takes 0.1 s."""
    order, now = random.Random(seed), 0.0
    count = len(several)
    due, values, results = [0.0] * count, list[Any]([None]) * count, list[Any]([None]) * count
    left = set(range(count))
    while left:
        ready = [index for index in sorted(left) if due[index] <= now]
        now += 0.1
        if not ready:
            continue
        index = order.choice(ready)
        step: Any = None
        try:
            value = values[index]
            is_error = isinstance(value, JobsAPIError)
            step = several[index].throw(value) if is_error else several[index].send(value)
        except StopIteration as end:
            results[index] = end.value
            left.discard(index)
            continue
        values[index] = None
        if isinstance(step, Wait):
            due[index] = now + step.seconds
        else:
            try:
                values[index] = send(step)
            except JobsAPIError as error:
                values[index] = error
    return results


def run(life: str, result: str | None = None, run_id: int = 7, **more: Any) -> Any:
    """Make a run."""
    return {"run_id": run_id, "state": {"life_cycle_state": life, "result_state": result}, **more}


RUNNING, SUCCEEDED = run("RUNNING"), run("TERMINATED", "SUCCESS")
FAILED, CANCELED = run("TERMINATED", "FAILED"), run("TERMINATED", "CANCELED")
TERMINATING = run("TERMINATING")
GONE = NotFoundError(status=400, api_message="Run 7 does not exist.")

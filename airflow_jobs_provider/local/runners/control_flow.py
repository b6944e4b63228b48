"""Runners of the tasks that decide and repeat: condition_task and for_each_task.

They do no work of their own, so they take no place of the runs that are executed at once.
"""

from __future__ import annotations

import asyncio
import json
import operator
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from airflow_jobs_provider.api.states import RunResultState
from airflow_jobs_provider.local.engine.launches import is_retried
from airflow_jobs_provider.local.engine.model import Run
from airflow_jobs_provider.local.engine.parameters import parameters_of
from airflow_jobs_provider.local.engine.runner import Outcome, Workspace

__all__ = ["ConditionRunner", "ForEachRunner"]

MAX_ITERATIONS = 5000
_EQUALITY: Mapping[str, Callable[[str, str], bool]] = {
    "EQUAL_TO": operator.eq,
    "NOT_EQUAL": operator.ne,
}
_ORDER: Mapping[str, Callable[[float, float], bool]] = {
    "GREATER_THAN": operator.gt,
    "GREATER_THAN_OR_EQUAL": operator.ge,
    "LESS_THAN": operator.lt,
    "LESS_THAN_OR_EQUAL": operator.le,
}


class ConditionRunner:
    """Compares two texts or numbers; other tasks depend on the outcome."""

    def __init__(self, run: Run) -> None:
        self._run = run

    async def setup(self) -> None:
        """Nothing to prepare."""

    async def execute(self) -> Outcome:
        """Set the run's outcome. The order of texts that are no numbers is not defined."""
        condition: str = self._run.task["condition_task"]["op"]
        sides = parameters_of(self._run)
        left, right = str(sides["left"]), str(sides["right"])
        if condition in _EQUALITY:
            holds = _EQUALITY[condition](left, right)
        else:
            try:
                holds = _ORDER[condition](float(left), float(right))
            except ValueError:
                return Outcome.failure(f"{condition} compares numbers, not {left!r} and {right!r}")
        self._run.condition_outcome = str(holds).lower()
        return Outcome()

    async def cleanup(self) -> None:
        """Nothing to end."""


class ForEachRunner:
    """Runs a task once for each input, several at once."""

    def __init__(self, run: Run, workspace: Workspace) -> None:
        self._run = run
        self._workspace = workspace
        self._task: dict[str, Any] = run.task["for_each_task"]["task"]
        self._started: list[int] = []
        self._inputs: list[Any] = []
        self._refusal: Outcome | None = None
        self._limit = asyncio.Semaphore(run.task["for_each_task"].get("concurrency") or 1)

    async def setup(self) -> None:
        """Read the inputs; each iteration prepares for itself."""
        text = parameters_of(self._run)["inputs"]
        try:
            inputs = json.loads(text)
        except ValueError:
            inputs = None
        if not isinstance(inputs, list):
            self._refusal = Outcome.failure(f"inputs must be a JSON array, not {str(text)[:200]}")
        elif len(inputs) > MAX_ITERATIONS:
            message = f"inputs has {len(inputs)} elements, over {MAX_ITERATIONS}"
            self._refusal = Outcome.failure(message)
        else:
            self._inputs = inputs
            self._run.total_iterations = len(inputs)  # stored with the state RUNNING

    async def execute(self) -> Outcome:
        """Run all iterations to their ends."""
        if self._refusal is not None:
            return self._refusal
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._iterate(json.dumps(given))) for given in self._inputs]
        ended = [task.result() for task in tasks]
        failed = [run for run in ended if not run.succeeded]
        if not failed:
            return Outcome()
        canceled = all(run.result_state == RunResultState.CANCELED for run in failed)
        message = f"{len(failed)} of {len(ended)} iterations failed: {failed[0].state_message}"
        if canceled:
            return Outcome(RunResultState.CANCELED, message)
        return Outcome.failure(message)

    async def cleanup(self) -> None:
        """End the iterations that still run."""
        for run_id in self._started:
            self._workspace.cancel(run_id)
        for run_id in self._started:
            with suppress(LookupError):  # it was deleted
                await self._workspace.wait(run_id)

    async def _iterate(self, given: str) -> Run:
        async with self._limit:
            run = self._workspace.start_iteration(self._run, given, None)
            self._started.append(run.run_id)
            run, retries = await self._workspace.wait(run.run_id), 0
            while is_retried(run, self._task, retries):
                interval = (self._task.get("min_retry_interval_millis") or 0) / 1000
                await asyncio.sleep(max(0.0, run.start_time / 1000 + interval - time.time()))
                run = self._workspace.start_iteration(self._run, given, run)
                self._started.append(run.run_id)
                run = await self._workspace.wait(run.run_id)
                retries += 1
            return run

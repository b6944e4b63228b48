"""Runners without a process: several tasks, run-job tasks, dry runs, unsupported tasks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from airflow_jobs_provider.api.states import RunResultState
from airflow_jobs_provider.local.engine.launches import is_retried
from airflow_jobs_provider.local.engine.model import Run
from airflow_jobs_provider.local.engine.parameters import parameters_of
from airflow_jobs_provider.local.engine.runner import CannotRunError, Outcome, Workspace

__all__ = ["CannotRun", "DryRunner", "RunJobRunner", "TasksRunner"]

_CANCELED = frozenset({RunResultState.CANCELED, RunResultState.UPSTREAM_CANCELED})


class CannotRun:
    """Fails tasks of a type that cannot run on this machine."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    async def setup(self) -> None:
        """Refuse."""
        if self._kind == "pipeline_task":
            raise CannotRunError(
                "pipeline_task runs a Delta Live Tables pipeline, which exists only on Databricks; "
                "it cannot be run on this machine."
            )
        raise CannotRunError(f"The local workspace cannot run a {self._kind}.")

    async def execute(self) -> Outcome:
        """Do nothing: prepare() has raised."""
        raise NotImplementedError

    async def cleanup(self) -> None:
        """Nothing to end."""


class DryRunner:
    """Succeeds at once without work (dry run)."""

    async def setup(self) -> None:
        """Nothing to prepare."""

    async def execute(self) -> Outcome:
        """Nothing to do."""
        return Outcome()

    async def cleanup(self) -> None:
        """Nothing to end."""


class RunJobRunner:
    """Runs another job and ends as that run ends (reference: "RunJobTask")."""

    def __init__(self, run: Run, workspace: Workspace) -> None:
        self._run = run
        self._workspace = workspace

    async def setup(self) -> None:
        """Nothing to prepare."""

    async def execute(self) -> Outcome:
        """Start the job's run and wait for it."""
        job_id = int(self._run.task["run_job_task"]["job_id"])
        parameters = parameters_of(self._run)
        child = self._workspace.launch_job(job_id, parameters, started_by=self._run)
        if child is None:
            return Outcome.failure(f"Job {job_id} does not exist.")
        self._run.child_run_id = child.run_id
        ended = await self._workspace.wait(child.run_id)
        if ended.succeeded:
            return Outcome()
        states = "/".join(filter(None, (ended.life_cycle_state, ended.result_state)))
        return Outcome.failure(
            f"Run {ended.run_id} of job {job_id} ended {states}: {ended.state_message}"
        )

    async def cleanup(self) -> None:
        """End the job's run, if it still runs."""
        if self._run.child_run_id is not None:
            self._workspace.cancel(self._run.child_run_id)
            await self._workspace.wait(self._run.child_run_id)


class TasksRunner:
    """Runs the tasks of a run given as a ``tasks`` array, each after those it depends on."""

    def __init__(self, run: Run, workspace: Workspace) -> None:
        self._run = run
        self._workspace = workspace

    async def setup(self) -> None:
        """Nothing to prepare; each task's run prepares for itself."""

    async def execute(self) -> Outcome:
        """Run all tasks to their ends."""
        ends: dict[str, asyncio.Task[Run]] = {}
        async with asyncio.TaskGroup() as group:
            # A task may depend on one that is listed after it: make them all, then wait.
            for task in self._run.tasks:
                ends[task["task_key"]] = group.create_task(self._one(task, ends))
        return _outcome(self._run.tasks, {key: end.result() for key, end in ends.items()})

    async def cleanup(self) -> None:
        """End the tasks that still run."""
        for run_id in self._run.task_run_ids.values():
            self._workspace.cancel(run_id)
        for run_id in self._run.task_run_ids.values():
            with suppress(LookupError):  # it was deleted
                await self._workspace.wait(run_id)

    async def _one(self, task: dict[str, Any], ends: dict[str, asyncio.Task[Run]]) -> Run:
        run_id = self._run.task_run_ids[task["task_key"]]
        if self._run.history and run_id not in self._run.history[-1]["task_run_ids"]:
            # Not part of this repair: it stays as it ended.
            return await self._workspace.wait(run_id)
        above = {
            dependency["task_key"]: _as_seen_by(
                dependency, await asyncio.shield(ends[dependency["task_key"]])
            )
            for dependency in task.get("depends_on") or []
        }
        held_back = _held_back(above, task.get("run_if", "ALL_SUCCESS"))
        if held_back is None:
            self._workspace.start_held(run_id)
        else:
            self._workspace.skip_held(run_id, *held_back)
        run, retries = await self._workspace.wait(run_id), 0
        while is_retried(run, task, retries):
            interval = (task.get("min_retry_interval_millis") or 0) / 1000
            await asyncio.sleep(max(0.0, run.start_time / 1000 + interval - time.time()))
            run = self._workspace.retry_task(self._run, task, run)
            self._workspace.start_held(run.run_id)
            run = await self._workspace.wait(run.run_id)
            retries += 1
        return run


def _as_seen_by(dependency: Mapping[str, Any], run: Run) -> Run:
    """Return a run as a task sees it that depends on one outcome of a condition."""
    outcome = dependency.get("outcome")
    if outcome is None or not run.succeeded or run.condition_outcome == outcome:
        return run
    return replace(run, result_state=RunResultState.EXCLUDED)


def _is_fine(run: Run) -> bool:
    # A task that was left out counts as one that succeeded.
    return run.succeeded or run.result_state == RunResultState.EXCLUDED


def _held_back(above: Mapping[str, Run], run_if: str) -> tuple[RunResultState, str] | None:
    """Return the result state of a task that is skipped because of the tasks it depends on."""
    if not above:
        return None
    if all(run.result_state == RunResultState.EXCLUDED for run in above.values()):
        return RunResultState.EXCLUDED, "All tasks that this one depends on were excluded"
    failed = [key for key, run in above.items() if not _is_fine(run)]
    met = {
        "ALL_SUCCESS": not failed,
        "NONE_FAILED": not failed,
        "AT_LEAST_ONE_SUCCESS": len(failed) < len(above),
        "ALL_DONE": True,
        "AT_LEAST_ONE_FAILED": bool(failed),
        "ALL_FAILED": len(failed) == len(above),
    }[run_if]
    if met:
        return None
    if not failed:
        return RunResultState.EXCLUDED, f"Its run_if {run_if} was not met"
    if all(above[key].result_state in _CANCELED for key in failed):
        return RunResultState.UPSTREAM_CANCELED, f"An upstream task was canceled: {failed[0]}"
    return RunResultState.UPSTREAM_FAILED, f"An upstream task failed: {failed[0]}"


def _outcome(tasks: Sequence[Mapping[str, Any]], ended: Mapping[str, Run]) -> Outcome:
    """Return the outcome of a run of tasks: that of the tasks no other depends on."""
    failed = [key for key, run in ended.items() if not _is_fine(run)]
    if not failed:
        return Outcome()
    depended_on = {one["task_key"] for task in tasks for one in task.get("depends_on") or []}
    message = f"Task {failed[0]} failed with message: {ended[failed[0]].state_message}"
    if all(key in depended_on for key in failed):
        return Outcome(RunResultState.SUCCESS_WITH_FAILURES, message)
    if all(ended[key].result_state in _CANCELED for key in failed):
        return Outcome(RunResultState.CANCELED, message)
    return Outcome(RunResultState.FAILED, message)

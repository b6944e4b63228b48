"""Runs that have no process of their own: they wait for other runs, or cannot be done here."""

from __future__ import annotations

import asyncio
from typing import Any

from airflow_jobs_provider.api.states import RunResultState
from airflow_jobs_provider.local.model import Run
from airflow_jobs_provider.local.runners.base import CannotRunError, Outcome, Workspace

__all__ = ["PipelineRunner", "RunJobRunner", "TasksRunner"]


class PipelineRunner:
    """Says that there are no pipelines here (reference: "PipelineTask")."""

    async def setup(self) -> None:
        """Refuse."""
        raise CannotRunError(
            "pipeline_task runs a Delta Live Tables pipeline, which exists only on Databricks; "
            "it cannot be run on this machine."
        )

    async def execute(self) -> Outcome:
        """Never comes to that."""
        raise NotImplementedError

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
        task: dict[str, Any] = self._run.task["run_job_task"]
        parameters = {name: value for name, value in task.items() if name != "job_id"}
        job_id = int(task["job_id"])
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
        failed = [key for key, end in ends.items() if not end.result().succeeded]
        if not failed:
            return Outcome()
        message = f"Task {failed[0]} failed with message: {ends[failed[0]].result().state_message}"
        if all(ends[key].result().result_state == RunResultState.CANCELED for key in failed):
            return Outcome(RunResultState.CANCELED, message)
        return Outcome(RunResultState.FAILED, message)

    async def cleanup(self) -> None:
        """End the tasks that still run."""
        for run_id in self._run.task_run_ids.values():
            self._workspace.cancel(run_id)
        for run_id in self._run.task_run_ids.values():
            await self._workspace.wait(run_id)

    async def _one(self, task: dict[str, Any], ends: dict[str, asyncio.Task[Run]]) -> Run:
        run_id = self._run.task_run_ids[task["task_key"]]
        for dependency in task.get("depends_on") or []:
            upstream = await asyncio.shield(ends[dependency["task_key"]])
            if not upstream.succeeded:
                canceled = upstream.result_state == RunResultState.CANCELED
                self._workspace.skip_held(
                    run_id,
                    RunResultState.UPSTREAM_CANCELED
                    if canceled
                    else RunResultState.UPSTREAM_FAILED,
                    f"An upstream task failed: {dependency['task_key']}",
                )
                break
        else:
            self._workspace.start_held(run_id)
        return await self._workspace.wait(run_id)

"""A FakeService that also keeps jobs of several tasks, and repairs their runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from tests.fakes.fake_service import FakeService, Hook, Plan, Run, Seen

__all__ = ["JobRun", "JobService", "TaskRun"]

_FIRST_JOB_ID = 501


@dataclass
class TaskRun:
    """A run of a task of a job.

    :ivar attempt_number: how many runs of the task were before it.
    :ivar result: its result state, once it has ended.
    :ivar cancels: cancelling requests for it.
    """

    run_id: int
    key: str
    attempt_number: int
    started: float = field(default_factory=time.time)
    result: str | None = None
    cancels: int = 0

    def as_answer(self) -> dict[str, Any]:
        """Return it as the service shows it among the tasks of the job's run."""
        state: dict[str, Any] = {"life_cycle_state": "RUNNING", "state_message": ""}
        if self.result is not None:
            state |= {"life_cycle_state": "TERMINATED", "result_state": self.result}
        return {
            "run_id": self.run_id,
            "task_key": self.key,
            "attempt_number": self.attempt_number,
            "run_page_url": f"http://workspace.invalid/#run/{self.run_id}",
            "start_time": int(self.started * 1000),
            "state": state,
        }


@dataclass
class JobRun(Run):
    """A run of a job: it goes on until each of its tasks was ended, or canceled."""

    job_name: str = ""
    task_runs: list[TaskRun] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The job's name, and the DAG run that the parameters name."""
        dag_run = (self.request.get("notebook_params") or {}).get("dag_run", "")
        return f"{self.job_name} {dag_run}"

    @property
    def latest(self) -> dict[str, TaskRun]:
        """The latest run of each task, by its key."""
        return {task.key: task for task in self.task_runs}

    @property
    def ended(self) -> bool:
        """Whether all tasks have ended."""
        return all(task.result is not None for task in self.latest.values())

    @property
    def result(self) -> str | None:
        """Its result state, once it has ended."""
        if not self.ended:
            return None
        return (
            "SUCCESS" if {task.result for task in self.latest.values()} == {"SUCCESS"} else "FAILED"
        )

    def attempts(self, key: str) -> int:
        """Return how often a task was started."""
        return sum(task.key == key for task in self.task_runs)

    def start_tasks(self, keys: Sequence[str]) -> None:
        """Start tasks, once more if they have run already."""
        for key in keys:
            run_id = self.run_id * 1000 + len(self.task_runs)
            self.task_runs.append(TaskRun(run_id, key, self.attempts(key)))

    def tasks(self) -> list[dict[str, Any]]:
        """Return all runs of its tasks."""
        return [task.as_answer() for task in self.task_runs]

    def as_answer(self) -> dict[str, Any]:
        """Return the run as ``runs/get`` answers it."""
        answer = super().as_answer()
        names = ("notebook_params", "python_params", "jar_params", "spark_submit_params")
        given = {name: self.request[name] for name in names if self.request.get(name)}
        return answer | ({"overriding_parameters": given} if given else {})


class JobService(FakeService):
    """The service. Use it as a context manager.

    A run of a job with ``tasks`` is a :class:`JobRun`: the tasks start at once, whatever they
    depend on, and the test ends them.

    :ivar hooks: each is told of each request; the first that returns True hangs up.
    """

    def __init__(self) -> None:
        super().__init__()
        self._job_ids = count(_FIRST_JOB_ID)
        self.hooks: list[Hook] = []
        self.hook = lambda seen, moment: any(hook(seen, moment) for hook in list(self.hooks))

    def end_task(self, run: JobRun, key: str, result: str = "SUCCESS") -> None:
        """End the latest run of a task."""
        with self._lock:
            run.latest[key].result = result

    def _new_run(self, seen: Seen, run_id: int, job_id: int) -> Run:
        settings = self.jobs.get(job_id, {})
        if seen.endpoint != "run-now" or not settings.get("tasks"):
            return super()._new_run(seen, run_id, job_id)
        run = JobRun(
            run_id=run_id,
            job_id=job_id,
            kind="JOB_RUN",
            token=seen.parameters.get("idempotency_token"),
            plan=Plan(),
            request=seen.parameters,
            job_name=str(settings["name"]),
        )
        run.start_tasks([task["task_key"] for task in settings["tasks"]])
        return run

    def _answer(self, seen: Seen) -> tuple[int, dict[str, Any]]:
        with self._lock:
            found = self._answer_for_job(seen)
        return super()._answer(seen) if found is None else found

    def _answer_for_job(self, seen: Seen) -> tuple[int, dict[str, Any]] | None:
        """Answer what concerns jobs, and the runs of their tasks; None for anything else."""
        parameters = seen.parameters
        if seen.endpoint == "create":
            job_id = next(self._job_ids)
            self.jobs[job_id] = dict(parameters)
            return 200, {"job_id": job_id}
        if seen.endpoint == "delete":
            # Of two DAG runs that create the job at the same moment, one deletes its own.
            del self.jobs[int(parameters["job_id"])]
            return 200, {}
        if seen.endpoint == "reset":
            self.jobs[int(parameters["job_id"])] = dict(parameters["new_settings"])
            return 200, {}
        run_id = int(parameters.get("run_id") or 0)
        if seen.endpoint == "runs/repair" and isinstance(run := self.runs.get(run_id), JobRun):
            return self._repair_tasks(run, parameters)
        found = self._task_run(run_id)
        if found is None:
            return None
        run, task = found
        if seen.endpoint == "runs/get":
            return 200, task.as_answer() | {"job_id": run.job_id}
        if seen.endpoint == "runs/cancel":
            task.cancels += 1
            task.result = task.result or "CANCELED"
            return 200, {}
        return None

    def _repair_tasks(self, run: JobRun, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Run tasks again as the service does: in no active run, and after the latest repair."""
        latest = run.repairs[-1] if run.repairs else None
        keys = request["rerun_tasks"]
        if run.is_active or request.get("latest_repair_id") != latest or len({*keys}) < len(keys):
            message = f"Run {run.run_id} cannot be repaired."
            return 400, {"error_code": "INVALID_STATE", "message": message}
        run.start_tasks(keys)
        return 200, {"repair_id": run.repair(Plan())}

    def _task_run(self, run_id: int) -> tuple[JobRun, TaskRun] | None:
        for run in self.runs.values():
            if isinstance(run, JobRun):
                for task in run.task_runs:
                    if task.run_id == run_id:
                        return run, task
        return None

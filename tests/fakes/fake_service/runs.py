"""The runs that the fake service keeps."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["UNTIL_ENDED", "JobRun", "Plan", "Run", "TaskRun"]


@dataclass(frozen=True)
class Plan:
    """How a run will go.

    :ivar result: its result state.
    :ivar seconds: how long it takes at least.
    :ivar looks: how often it is shown running at least.
    :ivar terminating_seconds: how long it is TERMINATING after a cancel.
    :ivar message: its state message at the end.
    """

    result: str = "SUCCESS"
    seconds: float = 0.0
    looks: int = 1
    terminating_seconds: float = 0.0
    message: str = ""


# A run that goes on until the test ends it, or a client cancels it.
UNTIL_ENDED = Plan(seconds=math.inf, terminating_seconds=1.0)


@dataclass
class Run:
    """A run on the service, and what was asked of it.

    :ivar request: what it was launched with.
    :ivar started: when it started, in seconds since the epoch; ``launched_at`` on the monotonic
        clock.
    :ivar life_cycle_state: its state until it ends.
    :ivar launches: launching requests that were answered with it.
    :ivar looks: how often it was shown; ``cancels``: canceling requests for it.
    :ivar canceled_at: when it was first canceled while it went on, on the monotonic clock.
    :ivar beside: runs of the same task that were active when it was launched.
    :ivar has_output: whether its notebook gives an exit value.
    :ivar exit_value: the exit value; None for one that names the run.
    :ivar end_was_told: whether a client was told of its end.
    :ivar repairs: ids of its repairs, oldest first.
    :ivar more: further fields of its answer.
    """

    run_id: int
    job_id: int
    kind: str
    token: str | None
    plan: Plan
    request: dict[str, Any] = field(default_factory=dict)
    started: float = field(default_factory=time.time)
    launched_at: float = field(default_factory=time.monotonic)
    life_cycle_state: str = "RUNNING"
    launches: int = 1
    looks: int = 0
    cancels: int = 0
    canceled_at: float | None = None
    beside: int = 0
    has_output: bool = True
    exit_value: str | None = None
    end_was_told: bool = False
    repairs: list[int] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)
    _ended_as: str | None = None
    _ended_at: float | None = None

    @property
    def name(self) -> str:
        """The name that the operator gave it: DAG, task, DAG run and try."""
        return str(self.request.get("run_name", ""))

    @property
    def task(self) -> str:
        """What all tries of a task have in common in the names of their runs."""
        return self.name.rpartition(" try ")[0]

    @property
    def is_of_function(self) -> bool:
        """Whether it executes a function of ``@task.databricks_python``."""
        parameters = (self.request.get("notebook_task") or {}).get("base_parameters") or {}
        return "airflow_arguments" in parameters

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        if self._ended_as is not None:
            return True
        if self.canceled_at is not None:
            return time.monotonic() - self.canceled_at >= self.plan.terminating_seconds
        return self.looks >= self.plan.looks and time.time() >= self.started + self.plan.seconds

    @property
    def is_active(self) -> bool:
        """Whether it goes on."""
        return not self.ended

    @property
    def result(self) -> str | None:
        """Its result state, once it has ended."""
        if not self.ended:
            return None
        return self._ended_as or ("CANCELED" if self.canceled_at else self.plan.result)

    def end(self, result: str, at: float) -> None:
        """End it, at a time in seconds since the epoch."""
        self._ended_as, self._ended_at = result, at

    def repair(self, plan: Plan) -> int:
        """Let it go on by another plan; return the repair's id."""
        self.plan, self.looks = plan, 0
        self._ended_as = self._ended_at = self.canceled_at = None
        self.repairs.append(self.run_id * 10 + len(self.repairs))
        return self.repairs[-1]

    def state(self) -> dict[str, Any]:
        """Return its state as ``runs/get`` answers it."""
        result = self.result
        if result is None:
            if self.canceled_at is not None:
                return {"life_cycle_state": "TERMINATING", "state_message": "Canceling"}
            return {"life_cycle_state": self.life_cycle_state, "state_message": "In run"}
        message = self.plan.message
        state = {"life_cycle_state": "TERMINATED", "result_state": result, "state_message": message}
        if result == "CANCELED":
            return state | {"state_message": "Run cancelled.", "user_cancelled_or_timedout": True}
        return state

    def tasks(self) -> list[dict[str, Any]]:
        """Return its tasks: those it was given, or those it was submitted with, in its state."""
        if "tasks" in self.more:
            return list(self.more["tasks"])
        return [
            {"run_id": self.run_id * 100 + n, "task_key": task["task_key"], "state": self.state()}
            for n, task in enumerate(self.request.get("tasks") or ())
        ]

    def as_answer(self) -> dict[str, Any]:
        """Return the run as ``runs/get`` answers it."""
        answer: dict[str, Any] = {
            "run_id": self.run_id,
            "job_id": self.job_id,
            "run_type": self.kind,
            "run_page_url": f"http://workspace.invalid/#job/{self.job_id}/run/{self.run_id}",
            "start_time": int(self.started * 1000),
            "state": self.state(),
        }
        if self.name:
            answer["run_name"] = self.name
        if tasks := self.tasks():
            answer["tasks"] = tasks
        if self.repairs:
            repairs = [{"type": "REPAIR", "id": one, "state": self.state()} for one in self.repairs]
            answer["repair_history"] = [{"type": "ORIGINAL"}, *repairs]
        if self.ended:
            end = self._ended_at
            if end is None:
                end = time.time() if self.canceled_at else self.started + self.plan.seconds
            answer["end_time"] = int(end * 1000)
        return answer | self.more


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
    """A run of a job: it goes on until each of its tasks was ended, or canceled.

    :ivar definition: the job's settings when the run was launched.
    """

    job_name: str = ""
    definition: dict[str, Any] = field(default_factory=dict)
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

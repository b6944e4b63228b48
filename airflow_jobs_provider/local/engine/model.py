"""Data model of the local workspace: jobs, runs and outputs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any

from airflow_jobs_provider.api.states import RunLifeCycleState, RunResultState

__all__ = [
    "CLUSTER_FIELDS",
    "ENDED",
    "RUN_IF",
    "Job",
    "Output",
    "Run",
    "RunType",
    "Trigger",
    "key_of_name",
    "now_millis",
    "shown_settings",
    "task_key_of",
    "task_of",
]

CLUSTER_FIELDS = ("existing_cluster_id", "new_cluster", "libraries")
_SINGLE_TASK_KEY_CHARS = 100
# Fields of a task, and of a run's settings, that its run is answered with as they were given.
_SHOWN_OF_TASK = (
    "description",
    "run_if",
    "job_cluster_key",
    "environment_key",
    "timeout_seconds",
    "email_notifications",
    "webhook_notifications",
    "notification_settings",
)
_SHOWN_OF_RUN = ("description", "job_clusters", "git_source")

# When a task runs, given how those ended that it depends on (``run_if`` of later versions)
RUN_IF = (
    "ALL_SUCCESS",
    "AT_LEAST_ONE_SUCCESS",
    "NONE_FAILED",
    "ALL_DONE",
    "AT_LEAST_ONE_FAILED",
    "ALL_FAILED",
)
ENDED = frozenset(
    {RunLifeCycleState.TERMINATED, RunLifeCycleState.SKIPPED, RunLifeCycleState.INTERNAL_ERROR}
)


_GOOD_RESULTS = frozenset({RunResultState.SUCCESS, RunResultState.SUCCESS_WITH_FAILURES})


class RunType(StrEnum):
    """Type of a run (reference: "Run", run_type)."""

    JOB_RUN = "JOB_RUN"
    WORKFLOW_RUN = "WORKFLOW_RUN"
    SUBMIT_RUN = "SUBMIT_RUN"


class Trigger(StrEnum):
    """Trigger of a run (reference: "TriggerType")."""

    ONE_TIME = "ONE_TIME"
    RETRY = "RETRY"


def now_millis() -> int:
    """Return the time in epoch milliseconds, as the API gives all its times."""
    return int(time.time() * 1000)


def task_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the task of a job's or a run's settings ("JobTask")."""
    # Also a kind of a later version, which is told apart from others only when it is to be run.
    return {
        name: value
        for name, value in settings.items()
        if name.endswith("_task") and value is not None
    }


def shown_settings(settings: Mapping[str, Any], *, of_task: bool) -> dict[str, Any]:
    """Return the settings that later versions show in a run's answer beside its task and cluster.

    :param settings: those of a job, a one-time run or a task.
    :param of_task: whether they are a task's.
    """
    names = _SHOWN_OF_TASK if of_task else _SHOWN_OF_RUN
    shown = {name: settings[name] for name in names if settings.get(name) is not None}
    if of_task:
        shown.setdefault("run_if", RUN_IF[0])
    return shown


@dataclass(frozen=True, slots=True)
class Output:
    """Output of a run (reference: "NotebookOutput", and "Runs get output").

    :param result: the text given to ``dbutils.notebook.exit``; None if that was never called.
    :param truncated: whether the result, or the error of a notebook, is only the first part of it.
    :param error: the run's own error in one line.
    :param error_trace: where it came from.
    :param logs: what a process that is no notebook wrote, the last part of it.
    :param logs_truncated: whether there was more.
    :param info: what else is to be said of the run.
    :param sql: ``query_text`` of a SQL task, and ``results`` of its statements, each with
        ``columns``, ``rows`` and ``truncated``.
    """

    result: str | None = None
    truncated: bool = False
    error: str | None = None
    error_trace: str | None = None
    logs: str | None = None
    logs_truncated: bool = False
    info: str | None = None
    sql: dict[str, Any] | None = None


@dataclass(slots=True)
class Job:
    """A job (reference: "Job").

    :param access_control_list: permissions beside the creator's, as the Permissions API takes them.
    """

    job_id: int
    settings: dict[str, Any]
    created_time: int
    creator_user_name: str
    access_control_list: list[dict[str, str]] = field(default_factory=list)


@dataclass(slots=True)
class Run:
    """A run, all but its output (reference: "Run").

    A run of the ``tasks`` form has one more run for each of its tasks; those have ``parent_run_id``
    and ``task_key``. A run started by ``dbutils.notebook.run`` or a ``run_job_task`` has
    ``started_by_run_id``, so that it ends with the run that wants it.
    """

    run_id: int
    job_id: int
    number_in_job: int
    run_name: str
    run_type: str
    creator_user_name: str
    task: dict[str, Any]
    cluster_spec: dict[str, Any]
    original_attempt_run_id: int
    start_time: int
    trigger: str = Trigger.ONE_TIME
    attempt_number: int = 0
    overriding_parameters: dict[str, Any] = field(default_factory=dict)
    # With name, default and value each, as the API answers them
    job_parameters: list[dict[str, str]] = field(default_factory=list)
    timeout_seconds: int = 0
    # Other settings that later versions show in its answer
    shown_settings: dict[str, Any] = field(default_factory=dict)
    # Those of the job run, from which its tasks choose one by its key
    environments: list[dict[str, Any]] = field(default_factory=list)
    # The keys of the job's tasks that the launch named, if it named any
    only: list[str] = field(default_factory=list)
    # Whether it is queued at the job's concurrency limit
    queues: bool = False
    idempotency_token: str | None = None
    # The ``tasks`` form
    tasks: list[dict[str, Any]] = field(default_factory=list)
    task_run_ids: dict[str, int] = field(default_factory=dict)
    parent_run_id: int | None = None
    task_key: str | None = None
    started_by_run_id: int | None = None
    # Progress
    life_cycle_state: str = RunLifeCycleState.PENDING
    result_state: str | None = None
    state_message: str = ""
    user_cancelled_or_timedout: bool = False
    # In place of the code that follows from the result
    termination_code: str | None = None
    spark_context_id: str | None = None
    setup_duration: int = 0
    execution_duration: int = 0
    cleanup_duration: int = 0
    end_time: int = 0
    # The run that its run_job_task started
    child_run_id: int | None = None
    # Parameters with their references replaced, once it has started
    parameters: Any = None
    # What its notebook set with dbutils.jobs.taskValues
    task_values: dict[str, Any] = field(default_factory=dict)
    # Of a condition_task: "true" or "false"
    condition_outcome: str | None = None
    # Of a for_each_task; and of an iteration of one: its input as JSON
    total_iterations: int | None = None
    input: str | None = None
    # The run of the job, for the run of a task or of an iteration
    job_run_id: int | None = None
    # Empty until the run is repaired; then the original run and each repair, the last one open.
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def active_since(self) -> int:
        """When the run began, or its latest repair."""
        return int(self.history[-1]["start_time"]) if self.history else self.start_time

    @property
    def has_ended(self) -> bool:
        """Whether the run is in a terminal state."""
        return self.life_cycle_state in ENDED

    @property
    def succeeded(self) -> bool:
        """Whether the run succeeded."""
        return (
            self.life_cycle_state == RunLifeCycleState.TERMINATED
            and self.result_state in _GOOD_RESULTS
        )

    @property
    def is_of_tasks(self) -> bool:
        """Whether the run was given as a ``tasks`` array."""
        return bool(self.tasks)

    def as_record(self) -> dict[str, Any]:
        """Return the run as plain data for the store."""
        return asdict(self)


def task_key_of(run: Run) -> str:
    """Return the task key that later versions show for a run of a single task."""
    return run.task_key or key_of_name(run.run_name)


def key_of_name(name: str) -> str:
    """Return the task key that the service derives from a name."""
    stem = PurePosixPath(name).name or "task"
    kept = "".join(char if char.isalnum() or char in "-_" else "_" for char in stem)
    return kept[:_SINGLE_TASK_KEY_CHARS]

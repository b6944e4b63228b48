"""Finding and following what a sensor waits for: a run, a run of a job, or a task of either.

* :func:`find_job_id` finds a job by its name, :func:`find_pipeline_id` a pipeline.
* :func:`find_run` finds the run of a job that a sensor waits for; :func:`wait_for_run` waits until
  there is one.
* :func:`find_task` waits until a run lists its tasks, :func:`follow_task` for the end of one.
* :func:`wait_for_target` does all of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from airflow_jobs_provider.api.endpoints import (
    RUNS_PER_PAGE_IN_EVERY_VERSION,
    list_jobs,
    list_pipelines,
    list_runs,
)
from airflow_jobs_provider.api.errors import DuplicateNameError, InvalidRequestError
from airflow_jobs_provider.api.ids import require_exactly_one, require_id
from airflow_jobs_provider.api.pagination import Paginator, read_all_items
from airflow_jobs_provider.api.problems import Problem, describe_value
from airflow_jobs_provider.api.run_summary import latest_attempts
from airflow_jobs_provider.api.states import (
    RunLifeCycleState,
    RunResultState,
    RunState,
    RunStatus,
)
from airflow_jobs_provider.api.versions import LATEST_API_VERSION
from airflow_jobs_provider.api.workflows.base import Wait, Workflow
from airflow_jobs_provider.api.workflows.events import RunIdentified
from airflow_jobs_provider.api.workflows.follow import follow_run, whole_run
from airflow_jobs_provider.api.workflows.progress import Log, RunProgress

if TYPE_CHECKING:
    from airflow_jobs_provider.api.schema.types import Job, PipelineStateInfo, Run

__all__ = [
    "Target",
    "find_job_id",
    "find_pipeline_id",
    "find_run",
    "find_task",
    "follow_task",
    "has_name",
    "task_run",
    "wait_for_run",
    "wait_for_target",
]


@dataclass(frozen=True, slots=True)
class Target:
    """What a sensor waits for.

    :ivar run_id: the run; None for a run of a job.
    :ivar job_id: the job; None if the job is given by its name.
    :ivar job_name: the exact name of the job; None if the job is given by its id.
    :ivar started_since: earliest start of the job's run, in seconds since the epoch.
    :ivar began: when the sensor began to wait, in seconds since the epoch; see :func:`find_run`.
    :ivar task_key: a task of the run; None for the whole run.
    """

    run_id: int | None
    job_id: int | None
    job_name: str | None
    started_since: float
    began: float
    task_key: str | None

    @classmethod
    def from_arguments(
        cls,
        *,
        run_id: Any = None,
        job_id: Any = None,
        job_name: str | None = None,
        started_since: datetime | str | None = None,
        began: float | None = None,
        task_key: str | None = None,
    ) -> Target:
        """Make a target from a sensor's rendered arguments. Numbers and times may be text.

        :raises InvalidRequestError: not exactly one of run, job and name is given, or one is
            invalid.
        """
        require_exactly_one(run_id=run_id, job_id=job_id, job_name=job_name)
        for name, text in (("job_name", job_name or None), ("task_key", task_key)):
            if text is not None and not (isinstance(text, str) and text):
                raise _invalid(name, "must be text that is not empty", describe_value(text))
        since = 0.0 if run_id not in (None, "") else _seconds(started_since)
        return cls(
            run_id=require_id("run_id", run_id) if run_id not in (None, "") else None,
            job_id=require_id("job_id", job_id) if job_id not in (None, "") else None,
            job_name=job_name or None,
            started_since=since,
            began=time.time() if began is None else began,
            task_key=task_key or None,
        )

    def __str__(self) -> str:
        """Return the target as text for the log."""
        if self.run_id is not None:
            return f"run {self.run_id}"
        job = f"job {self.job_id}" if self.job_id is not None else f"job {self.job_name!r}"
        since = datetime.fromtimestamp(self.started_since, UTC).isoformat(" ", "seconds")
        return f"a run of {job} that started at {since} or later"


def _invalid(field: str, rule: str, found: str) -> InvalidRequestError:
    return InvalidRequestError("", [Problem(field, rule, found)])


def _seconds(moment: datetime | str | None) -> float:
    if isinstance(moment, str) and moment:
        with suppress(ValueError):
            moment = datetime.fromisoformat(moment)
    if not isinstance(moment, datetime):
        found = f"it is {moment[:50]!r}" if isinstance(moment, str) else describe_value(moment)
        raise _invalid("started_since", "must be a time in ISO 8601", found)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp()


def has_name(job: Job, name: str) -> bool:
    """Return whether a job has exactly this name. Not every version filters by name."""
    return (job.get("settings") or {}).get("name") == name


def find_job_id(job_name: str) -> Workflow[int | None]:
    """Find the id of the job of exactly this name; None if there is none.

    One request where the service filters by name, all pages of the list where it does not.

    :raises DuplicateNameError: several jobs have the name.
    """
    jobs: list[Job] = yield from read_all_items(list_jobs(name=job_name))
    ids: list[int] = [job["job_id"] for job in jobs if has_name(job, job_name)]
    if len(ids) > 1:
        raise DuplicateNameError("job", job_name, ids)
    return ids[0] if ids else None


def find_pipeline_id(pipeline_name: str) -> Workflow[str | None]:
    """Find the id of the pipeline of exactly this name; None if there is none.

    :raises DuplicateNameError: several pipelines have the name.
    """
    if not pipeline_name:
        return None
    # The service reads "_" and "%" in a name as wildcards, and so returns more pipelines.
    pipelines: list[PipelineStateInfo] = yield from read_all_items(
        list_pipelines(name=pipeline_name)
    )
    ids = [one["pipeline_id"] for one in pipelines if one.get("name") == pipeline_name]
    if len(ids) > 1:
        raise DuplicateNameError("pipeline", pipeline_name, ids)
    return ids[0] if ids else None


def find_run(job_id: int, *, started_since: float, began: float) -> Workflow[Run | None]:
    """Find the run of a job that a sensor waits for; None if there is none yet.

    It is the newest run that had started when the sensor began to wait, or else the first one after
    that. So it is the same run at every poll, also of a sensor that is rescheduled and keeps no
    state. With the newest run of all, the wait might never end. A run that the service skipped has
    not started and does not count.

    :param job_id: the job.
    :param started_since: earliest start of the run, in seconds since the epoch.
    :param began: when the sensor began to wait, in seconds since the epoch.
    """
    found: Run | None = None
    pages = Paginator(list_runs(job_id=job_id, limit=RUNS_PER_PAGE_IN_EVERY_VERSION))
    while not pages.is_exhausted:
        for run in (yield from pages.next_page()):
            started = float(run.get("start_time") or 0) / 1000
            if started and started < started_since:
                return found  # latest start first: the rest is older
            skipped = RunState.from_run(run).life_cycle_state == RunLifeCycleState.SKIPPED
            if started and not skipped:
                found = run
                if started <= began:
                    return found
    return found


def wait_for_run(target: Target, *, polling_period: Callable[[], float], log: Log) -> Workflow[Run]:
    """Wait until a job has a run as :func:`find_run` finds it; return it as it is listed.

    :param target: the job, and the earliest start of its run.
    :param polling_period: returns the seconds to the next poll.
    :param log: the task's logger.
    :raises ValueError: no job has the name.
    :raises DuplicateNameError: several jobs have the name.
    """
    job_id = target.job_id
    if job_id is None:
        job_id = yield from find_job_id(str(target.job_name))
        if job_id is None:
            raise ValueError(f"no job has the name {target.job_name!r}")
    is_told = False
    while True:
        run = yield from find_run(job_id, started_since=target.started_since, began=target.began)
        if run is not None:
            log.info("Found run %s: %s", run["run_id"], run.get("run_page_url") or "no page")
            return run
        if not is_told:
            log.info("Waiting for %s", target)
            is_told = True
        yield Wait(polling_period())


def find_task(
    run_id: int, task_key: str, *, polling_period: Callable[[], float]
) -> Workflow[Run | None]:
    """Wait until a run lists its tasks; return it, or None if it has no such task.

    :param run_id: the run.
    :param task_key: the task.
    :param polling_period: returns the seconds to the next poll.
    """
    while True:
        run = yield from whole_run(run_id, api_version=LATEST_API_VERSION)
        tasks = latest_attempts(run)
        if task_key in tasks:
            return run
        if tasks or RunState.from_run(run).is_terminal:
            return None
        yield Wait(polling_period())


def follow_task(
    run_id: int,
    task_key: str,
    *,
    polling_period: Callable[[], float],
    log: Log,
    max_retries: int = 0,
    attempts_before: int = 0,
    tell_attempts: bool = False,
    first_look: Run | None = None,
) -> Workflow[Run]:
    """Wait until a task of a run has ended, at its latest attempt; return the task's own run.

    :param run_id: the run.
    :param task_key: the task.
    :param polling_period: returns the seconds to the next poll.
    :param log: the task's logger.
    :param max_retries: the service's own retries of the task, -1 for no limit: a failed attempt is
        not the end while another one may follow; default 0.
    :param attempts_before: attempts of the task that do not count as such, since a repair ran the
        task again; default 0.
    :param tell_attempts: whether each attempt is an event, :class:`~.events.RunIdentified`; default
        False.
    :param first_look: the run with all its tasks, where it has been read just now; default None.
    :raises ValueError: the run has no such task.
    """
    progress: RunProgress | None = None
    seen: int | None = None
    while True:
        run, first_look = first_look, None
        if run is None:
            run = yield from whole_run(run_id, api_version=LATEST_API_VERSION)
        tasks = latest_attempts(run)
        run_has_ended = RunState.from_run(run).is_terminal
        task = tasks.get(task_key)
        if task is not None:
            task_run_id = int(task.get("run_id") or run_id)
            if progress is None:
                see = task.get("run_page_url") or run.get("run_page_url") or "the workspace"
                log.info("Task %r of run %s is run %s, see %s", task_key, run_id, task_run_id, see)
                progress = RunProgress(task_run_id, log)
            elif task_run_id != seen:
                progress.next_attempt(task_run_id)
            if tell_attempts and task_run_id != seen:
                yield RunIdentified(task_run_id)
            seen = task_run_id
            state = progress.observe(task)
            # A task has ended at the latest with its run.
            attempt = int(task.get("attempt_number") or 0) - attempts_before
            is_last = run_has_ended or not _may_be_retried(state, attempt, max_retries)
            ended = state.is_terminal
            if (ended and is_last) or run_has_ended:
                return task_run(run, task, state=None if ended else run.get("state"))
        elif tasks or run_has_ended:
            keys = ", ".join(map(repr, tasks)) or "none"
            raise ValueError(f"run {run_id} has no task {task_key!r}; its tasks: {keys}")
        yield Wait(polling_period())


def _may_be_retried(state: RunState, attempt: int, max_retries: int) -> bool:
    is_failure = state.status in (RunStatus.FAILED, RunStatus.TIMED_OUT)
    if not is_failure or state.result_state == RunResultState.UPSTREAM_FAILED:
        return False
    return max_retries < 0 or attempt < max_retries


def task_run(run: Run, task: Mapping[str, Any], *, state: Any = None) -> Run:
    """Return the run of a task, as a run of its own.

    :param run: the run that lists the task.
    :param task: the task as it is listed.
    :param state: its state; default the one that is listed.
    """
    known = {
        "run_id": int(task.get("run_id") or run["run_id"]),
        "state": state or task.get("state"),
        "run_page_url": task.get("run_page_url") or run.get("run_page_url"),
        "job_id": run.get("job_id"),
    }
    return cast("Run", {**task, **known})


def wait_for_target(
    target: Target,
    *,
    polling_period: Callable[[], float],
    log: Log,
    keeps_state: bool = True,
) -> Workflow[Run]:
    """Wait until a target has ended; return its run.

    The run of a job is an event, :class:`~.events.RunIdentified`, once it is found.

    :param target: what to wait for.
    :param polling_period: returns the seconds to the next poll.
    :param log: the task's logger.
    :param keeps_state: whether one execution of the workflow goes on from poll to poll; False where
        a new one starts at each poll. Default True.
    """
    first_look: Run | None = None
    run_id = target.run_id
    if run_id is None:
        first_look = yield from wait_for_run(target, polling_period=polling_period, log=log)
        run_id = int(first_look["run_id"])
        yield RunIdentified(run_id)
    if target.task_key is not None:
        return (
            yield from follow_task(run_id, target.task_key, polling_period=polling_period, log=log)
        )
    ended = yield from follow_run(
        run_id,
        polling_period=polling_period,
        progress=RunProgress(run_id, log),
        follow_attempts=target.run_id is None,
        attempts_from_end=not keeps_state,
    )
    return ended.run

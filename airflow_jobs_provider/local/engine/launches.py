"""Launching runs: run-now, submit, retries. An idempotency token launches one run."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from airflow_jobs_provider.api.states import RunLifeCycleState, RunResultState
from airflow_jobs_provider.local.engine.model import (
    CLUSTER_FIELDS,
    Job,
    Run,
    RunType,
    Trigger,
    key_of_name,
    now_millis,
    shown_settings,
    task_of,
)
from airflow_jobs_provider.local.engine.parameters import job_parameters_of
from airflow_jobs_provider.local.engine.quotas import QuotaKeeper
from airflow_jobs_provider.local.engine.references import References
from airflow_jobs_provider.local.engine.scheduler import Scheduler
from airflow_jobs_provider.local.engine.store import Store
from airflow_jobs_provider.local.errors import invalid

__all__ = ["Launcher", "is_retried", "task_run"]

# Canceled, or never started.
_NEVER_RETRIED = frozenset(
    {
        RunResultState.CANCELED,
        RunResultState.UPSTREAM_CANCELED,
        RunResultState.UPSTREAM_FAILED,
        RunResultState.EXCLUDED,
    }
)


class Launcher:
    """Creates runs and passes them to the scheduler.

    :param quotas: refuses what there is no room for.
    :param user: the name that runs and jobs are created under.
    :param references: returns what replaces the references in a run's parameters.
    """

    def __init__(
        self,
        store: Store,
        scheduler: Scheduler,
        quotas: QuotaKeeper,
        user: str,
        references: Callable[[Run], References],
    ) -> None:
        self._references = references
        self._store = store
        self._quotas = quotas
        self._scheduler = scheduler
        self._user = user

    def create_job(
        self, settings: dict[str, Any], access_control_list: list[dict[str, str]]
    ) -> Job:
        """Store a new job and its permissions."""
        self._quotas.check_saving()
        self._quotas.check_creation()
        job = Job(self._store.new_id(), settings, now_millis(), self._user, access_control_list)
        self._store.add_job(job)
        return job

    def submit(
        self,
        settings: Mapping[str, Any],
        *,
        token: str | None = None,
        run_type: RunType = RunType.SUBMIT_RUN,
        started_by: Run | None = None,
    ) -> Run:
        """Start a one-time run (reference: "Runs submit")."""
        known = self._known_launch(token)
        if known is not None:
            return known
        if started_by is None:
            queues = (settings.get("queue") or {}).get("enabled") is True
            self._check_room(settings, queues=queues)
            self._quotas.check_creation()
        # A one-time run has a job of its own, which no endpoint shows.
        job = Job(self._store.new_id(), {}, now_millis(), self._user)
        run = self._new_run(job, settings, run_type=run_type, token=token)
        run.run_name = settings.get("run_name") or "Untitled"
        run.started_by_run_id = started_by.run_id if started_by else None
        return self._launch(run, job)

    def run_now(
        self,
        job: Job,
        overriding: Mapping[str, Any],
        *,
        queues: bool | None = None,
        token: str | None = None,
        started_by: Run | None = None,
        only: Sequence[str] | None = None,
    ) -> Run:
        """Start a run of a job (reference: "Run now").

        :param only: keys of the tasks to run; all if not given. What they depend on beside them
            counts as done.
        :param queues: whether the run waits where there is no room for it; as the job says if not
            given.
        """
        known = self._known_launch(token)
        if known is not None:
            return known
        if queues is None:
            queues = (job.settings.get("queue") or {}).get("enabled") is True
        settings = _only_tasks(job.settings, only or ())
        if started_by is None:
            self._check_room(settings, queues=queues)
        run = self._new_run(job, settings, run_type=RunType.JOB_RUN, token=token)
        run.overriding_parameters = dict(overriding)
        run.queues = queues
        run.only = list(only or ())
        run.job_parameters = self.job_parameters(run, job)
        run.started_by_run_id = started_by.run_id if started_by else None
        limit = job.settings.get("max_concurrent_runs", 1)
        if not queues and self._store.active_count(job.job_id) >= limit:
            run.life_cycle_state = RunLifeCycleState.SKIPPED
            run.state_message = (
                f"Skipping this run because the limit of {limit} maximum concurrent runs has been "
                "reached."
            )
            run.end_time = run.start_time
        return self._launch(run)

    def job_parameters(self, run: Run, job: Job) -> list[dict[str, str]]:
        """Return the parameters of a job's run, their references replaced."""
        parameters = job_parameters_of(job.settings, run.overriding_parameters)
        fill = self._references(run).fill
        return [{**one, "value": fill(one["value"])} for one in parameters]

    def start_iteration(self, loop: Run, given: str, failed: Run | None) -> Run:
        """Start an iteration of a for_each_task.

        :param loop: the run of the for_each_task.
        :param given: the input as JSON.
        :param failed: the attempt before, if there was one.
        """
        task: dict[str, Any] = loop.task["for_each_task"]["task"]
        run = task_run(loop, task, RunLifeCycleState.PENDING, self._store.new_id())
        run.start_time = now_millis()
        run.input = given
        if failed is not None:
            run.attempt_number = failed.attempt_number + 1
            run.original_attempt_run_id = failed.original_attempt_run_id
        self._store.add_runs([run])
        self._scheduler.admit(run)
        return run

    def retry(self, failed: Run, job: Job) -> Run:
        """Start the next attempt of a job's run that did not succeed ("Create", max_retries)."""
        # The job may have lost a task meanwhile.
        only = [key for key in failed.only if key in _task_keys(job.settings)]
        settings = _only_tasks(job.settings, only)
        run = self._new_run(job, settings, run_type=RunType.JOB_RUN, token=None)
        run.only = only
        run.overriding_parameters = failed.overriding_parameters
        run.job_parameters = failed.job_parameters
        run.queues = failed.queues
        run.original_attempt_run_id = failed.original_attempt_run_id
        run.attempt_number = failed.attempt_number + 1
        run.trigger = Trigger.RETRY
        interval = job.settings.get("min_retry_interval_millis") or 0
        due = failed.start_time + interval
        return self._launch(run, delay=max(0.0, (due - now_millis()) / 1000))

    def retry_task(self, parent: Run, task: Mapping[str, Any], failed: Run) -> Run:
        """Create the next attempt of a failed task, held back until it may start."""
        child = self.next_attempt(parent, task, failed)
        if parent.history:
            parent.history[-1]["task_run_ids"].append(child.run_id)
        with self._store.transaction():
            self._store.add_runs([child])
            self._store.save_run(parent)
        self._scheduler.admit(child)
        return child

    def next_attempt(self, parent: Run, task: Mapping[str, Any], before: Run) -> Run:
        """Return a new run of a task that has run before; it is not stored yet."""
        run_id = parent.task_run_ids[task["task_key"]] = self._store.new_id()
        child = task_run(parent, task, RunLifeCycleState.BLOCKED, run_id)
        child.attempt_number = before.attempt_number + 1
        child.original_attempt_run_id = before.original_attempt_run_id
        child.start_time = now_millis()
        return child

    def _new_run(
        self, job: Job, settings: Mapping[str, Any], *, run_type: RunType, token: str | None
    ) -> Run:
        run_id = self._store.new_id()
        tasks: list[dict[str, Any]] = settings.get("tasks") or []
        return Run(
            run_id=run_id,
            job_id=job.job_id,
            number_in_job=0,
            run_name=settings.get("name") or "Untitled",
            run_type=run_type,
            creator_user_name=self._user,
            task=task_of(settings),
            cluster_spec={name: settings[name] for name in CLUSTER_FIELDS if settings.get(name)},
            original_attempt_run_id=run_id,
            start_time=now_millis(),
            timeout_seconds=settings.get("timeout_seconds") or 0,
            shown_settings=shown_settings(settings, of_task=False),
            environments=settings.get("environments") or [],
            idempotency_token=token,
            tasks=tasks,
            task_run_ids={task["task_key"]: self._store.new_id() for task in tasks},
        )

    def _launch(self, run: Run, hidden_job: Job | None = None, *, delay: float = 0.0) -> Run:
        state = RunLifeCycleState.SKIPPED if run.has_ended else RunLifeCycleState.BLOCKED
        children = [
            task_run(run, task, state, run.task_run_ids[task["task_key"]]) for task in run.tasks
        ]
        try:
            with self._store.transaction():
                if hidden_job is not None:
                    self._store.add_job(hidden_job, hidden=True)
                run.number_in_job = self._store.next_number_in_job(run.job_id)
                self._store.add_runs([run, *children])
        except sqlite3.IntegrityError:
            # Another workspace process on the same state was faster with this token.
            known = self._known_launch(run.idempotency_token)
            if known is None:
                raise
            return known
        if not run.has_ended:
            for child in children:
                self._scheduler.admit(child)
            self._scheduler.admit(run, delay=delay)
        return run

    def _check_room(self, settings: Mapping[str, Any], *, queues: bool) -> None:
        if not queues:
            self._quotas.check_launch(len(settings.get("tasks") or [None]))

    def _known_launch(self, token: str | None) -> Run | None:
        found = self._store.run_of_token(token) if token else None
        if found is None:
            return None
        run, is_deleted = found
        if is_deleted:
            raise invalid(f"Run {run.run_id} with the given idempotency_token has been deleted.")
        return run


def _only_tasks(settings: Mapping[str, Any], only: Sequence[str]) -> dict[str, Any]:
    """Return a job's settings with the named tasks only; with all if none is named.

    :raises ApiError: the job has no task of a name.
    """
    if not only:
        return dict(settings)
    tasks: list[dict[str, Any]] = settings.get("tasks") or []
    for key in only:
        if key not in _task_keys(settings):
            raise invalid(f"only has a task that the job does not have: {key[:100]!r}")
    chosen = [
        {
            **task,
            "depends_on": [one for one in task.get("depends_on") or [] if one["task_key"] in only],
        }
        for task in tasks
        if task["task_key"] in only
    ]
    return {**settings, "tasks": chosen} if tasks else dict(settings)


def _task_keys(settings: Mapping[str, Any]) -> set[str]:
    tasks: list[dict[str, Any]] = settings.get("tasks") or []
    return {task["task_key"] for task in tasks} or {key_of_name(settings.get("name") or "Untitled")}


def task_run(parent: Run, task: Mapping[str, Any], state: RunLifeCycleState, run_id: int) -> Run:
    """Create the run of one task of a run, or of one iteration of a task."""
    return Run(
        run_id=run_id,
        job_id=parent.job_id,
        number_in_job=run_id,
        run_name=task["task_key"],
        run_type=parent.run_type,
        creator_user_name=parent.creator_user_name,
        task=task_of(task),
        cluster_spec={name: task[name] for name in CLUSTER_FIELDS if task.get(name)},
        original_attempt_run_id=run_id,
        start_time=parent.start_time,
        overriding_parameters=parent.overriding_parameters,
        job_parameters=parent.job_parameters,
        timeout_seconds=task.get("timeout_seconds") or 0,
        shown_settings=shown_settings(task, of_task=True),
        parent_run_id=parent.run_id,
        job_run_id=parent.job_run_id or parent.run_id,
        task_key=task["task_key"],
        life_cycle_state=state,
    )


def is_retried(run: Run, settings: Mapping[str, Any], retries: int) -> bool:
    """Return whether the settings ask for a retry of a run that ended with this result.

    :param retries: how often it was tried again before.
    """
    if run.succeeded or run.result_state in _NEVER_RETRIED:
        return False
    if run.life_cycle_state == RunLifeCycleState.SKIPPED:
        return False
    if run.result_state == RunResultState.TIMEDOUT and not settings.get("retry_on_timeout"):
        return False
    limit = settings.get("max_retries") or 0
    return bool(limit == -1 or retries < limit)

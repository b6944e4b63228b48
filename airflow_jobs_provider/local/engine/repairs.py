"""Repairing a run: its failed tasks are run again as part of it ("Repair" of the Jobs API 2.1).

The run becomes active again under its own run_id. A task that is run again gets a new run of its
own with the next attempt_number; its earlier runs stay readable. A run of the single form is its
task's run, so that one is executed again itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from airflow_jobs_provider.api.states import RunLifeCycleState, RunResultState
from airflow_jobs_provider.local import checks
from airflow_jobs_provider.local.engine.launches import Launcher
from airflow_jobs_provider.local.engine.model import (
    CLUSTER_FIELDS,
    Job,
    Output,
    Run,
    RunType,
    now_millis,
    shown_settings,
    task_key_of,
    task_of,
)
from airflow_jobs_provider.local.engine.responses import state_answer
from airflow_jobs_provider.local.engine.scheduler import Scheduler
from airflow_jobs_provider.local.engine.store import Store
from airflow_jobs_provider.local.errors import ApiError, invalid
from airflow_jobs_provider.local.versions import Version

__all__ = ["Repairer", "tasks_to_rerun"]

_NEVER_BEGAN = frozenset(
    {RunResultState.UPSTREAM_FAILED, RunResultState.UPSTREAM_CANCELED, RunResultState.EXCLUDED}
)


class Repairer:
    """Repairs runs."""

    def __init__(self, store: Store, scheduler: Scheduler, launcher: Launcher) -> None:
        self._store = store
        self._launcher = launcher
        self._scheduler = scheduler

    def repair(self, run: Run, request: Mapping[str, Any], version: Version) -> int:
        """Start a repair of a run that has ended; return the repair's id.

        :param request: the fields of ``runs/repair``.
        """
        overriding = checks.check_overriding(request, version)
        _check_repairable(run, checks.read_integer(request, "latest_repair_id"))
        latest = {
            key: self._store.run(run_id) or run
            for key, run_id in (run.task_run_ids or {task_key_of(run): run.run_id}).items()
        }
        chosen = tasks_to_rerun(run.tasks, latest, request)
        repair_id = self._store.new_id()
        self._open_history(run, repair_id)
        # What a repair is given holds for it alone; the next one begins from the run's own again.
        run.overriding_parameters = _laid_over(run.history[0]["overriding_parameters"], overriding)
        job = self._store.job(run.job_id)
        if job is not None:
            run.job_parameters = self._launcher.job_parameters(run, job)
        children: list[Run] = []
        if run.is_of_tasks:
            self._take_current_settings(run, job, chosen)
            children = [
                self._launcher.next_attempt(run, task, latest[task["task_key"]])
                for task in run.tasks
                if task["task_key"] in chosen
            ]
            run.history[-1]["task_run_ids"] = [child.run_id for child in children]
        else:
            run.history[-1]["task_run_ids"] = [run.run_id]
            self._take_current_task(run, job)
        _make_active(run)
        with self._store.transaction():
            self._store.add_runs(children)
            self._store.save_output(run.run_id, Output())
            self._store.save_run(run)
        for child in children:
            self._scheduler.admit(child)
        self._scheduler.admit(run)
        return repair_id

    def _open_history(self, run: Run, repair_id: int) -> None:
        """End the history entry of the last attempt and start that of the repair."""
        if not run.history:
            run.history = [
                {
                    "type": "ORIGINAL",
                    "start_time": run.start_time,
                    "task_run_ids": self._original_task_run_ids(run),
                    "overriding_parameters": run.overriding_parameters,
                }
            ]
        run.history[-1] |= {"end_time": run.end_time, "state": state_answer(run)}
        run.history.append({"type": "REPAIR", "id": repair_id, "start_time": now_millis()})

    def history(self, run: Run) -> list[dict[str, Any]]:
        """Return a run's ``repair_history``: the original run, and each repair of it."""
        original = {
            "type": "ORIGINAL",
            "start_time": run.start_time,
            "task_run_ids": [] if run.history else self._original_task_run_ids(run),
        }
        items = [
            {name: value for name, value in item.items() if name != "overriding_parameters"}
            for item in run.history or [original]
        ]
        items[-1] |= {"end_time": run.end_time, "state": state_answer(run)}
        return items

    def _original_task_run_ids(self, run: Run) -> list[int]:
        if not run.is_of_tasks:
            return [run.run_id]
        return [child.run_id for child in self._store.task_runs([run.run_id])]

    def _take_current_settings(self, run: Run, job: Job | None, chosen: set[str]) -> None:
        """Use the job's present settings for the tasks that it still has.

        They wait only for tasks that the run has: one that the job got since then is no part of it.
        """
        current = {
            task["task_key"]: {
                **task,
                "depends_on": [
                    one
                    for one in task.get("depends_on") or []
                    if one["task_key"] in run.task_run_ids
                ],
            }
            for task in (job.settings.get("tasks") or [] if job else [])
        }
        if job is not None and run.run_type == RunType.JOB_RUN:
            run.shown_settings = _with_commit(
                shown_settings(job.settings, of_task=False), run.shown_settings
            )
            run.environments = job.settings.get("environments") or []
        run.tasks = [
            current.get(task["task_key"], task) if task["task_key"] in chosen else task
            for task in run.tasks
        ]

    def _take_current_task(self, run: Run, job: Job | None) -> None:
        if job is not None and task_of(job.settings):
            run.task = task_of(job.settings)
            run.cluster_spec = {
                name: job.settings[name] for name in CLUSTER_FIELDS if job.settings.get(name)
            }


def _with_commit(settings: dict[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """Return a job's settings with the commit that the run used before, if it still applies."""
    used: Mapping[str, Any] = before.get("git_source") or {}
    given = {name: value for name, value in used.items() if name != "git_snapshot"}
    return {**settings, "git_source": used} if given == settings.get("git_source") else settings


def tasks_to_rerun(
    tasks: list[dict[str, Any]], latest: Mapping[str, Run], request: Mapping[str, Any]
) -> set[str]:
    """Return the keys of the tasks that a repair reruns.

    Those the request asks for; those below them that never began since something above had failed;
    and, with ``rerun_dependent_tasks``, all below them.

    :param latest: the latest run of each task.
    """
    named = checks.read_task_keys(request, "rerun_tasks")
    all_failed = checks.read_flag(request, "rerun_all_failed_tasks")
    all_below = checks.read_flag(request, "rerun_dependent_tasks")
    if named and all_failed:
        raise invalid("Only one of rerun_tasks and rerun_all_failed_tasks can be used")
    if not named and not all_failed:
        raise invalid("One of rerun_tasks and rerun_all_failed_tasks is required")
    for key in named or ():
        if key not in latest:
            raise invalid(f"rerun_tasks has a task that the run does not have: {key[:100]!r}")
    chosen = set(named or ())
    if len(set(named or ())) < len(named or ()):
        raise invalid("rerun_tasks cannot contain duplicate task keys")
    if all_failed:
        chosen = {key for key, run in latest.items() if _has_failed(run)}
        if not chosen:
            raise invalid("rerun_all_failed_tasks: the run has no failed task")
    below = _dependents(tasks)
    waiting = list(chosen)
    while waiting:
        for key in below.get(waiting.pop(), ()):
            if key not in chosen and (all_below or latest[key].result_state in _NEVER_BEGAN):
                chosen.add(key)
                waiting.append(key)
    return chosen


def _check_repairable(run: Run, latest_repair_id: int | None) -> None:
    if run.parent_run_id is not None:
        raise invalid(
            f"run_id {run.run_id} is the run of a task; repair the job run {run.parent_run_id}"
        )
    if not run.has_ended:
        raise ApiError(
            HTTPStatus.BAD_REQUEST,
            "INVALID_STATE",
            f"Run {run.run_id} is active ({run.life_cycle_state}) and cannot be repaired.",
        )
    known = run.history[-1]["id"] if run.history else None
    if latest_repair_id is None and known is not None:
        raise invalid(
            "The latest repair ID needs to be provided in order to create a new repair: "
            "latest_repair_id is missing"
        )
    if latest_repair_id != known:
        raise invalid(
            f"latest_repair_id {latest_repair_id} is not the latest repair of run {run.run_id}"
        )


def _has_failed(run: Run) -> bool:
    return not run.succeeded and run.result_state != RunResultState.EXCLUDED


def _dependents(tasks: list[dict[str, Any]]) -> dict[str, list[str]]:
    below: dict[str, list[str]] = {}
    for task in tasks:
        for needed in task.get("depends_on") or []:
            below.setdefault(needed["task_key"], []).append(task["task_key"])
    return below


def _laid_over(original: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters overridden by others: maps are merged, lists replaced."""
    merged = dict(original)
    for name, value in given.items():
        known = merged.get(name)
        if isinstance(value, dict) and isinstance(known, dict):
            merged[name] = {**known, **value}
        else:
            merged[name] = value
    return merged


def _make_active(run: Run) -> None:
    run.life_cycle_state = RunLifeCycleState.PENDING
    run.result_state = None
    run.state_message = "Waiting for the tasks to be run again"
    run.user_cancelled_or_timedout = False
    run.termination_code = None
    run.setup_duration = run.execution_duration = run.cleanup_duration = 0
    run.end_time = 0
    run.child_run_id = None

"""The endpoints of the Jobs API, each a function from a request's data to the response's.

They know nothing of HTTP: ``server.py`` reads requests, writes answers and checks who asks.
Reference: the section that each function names.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from airflow_jobs_provider.api.states import RunLifeCycleState
from airflow_jobs_provider.local import checks
from airflow_jobs_provider.local.engine.model import Job, RunType, task_of
from airflow_jobs_provider.local.engine.responses import job_answer, output_answer
from airflow_jobs_provider.local.errors import (
    ApiError,
    invalid,
    job_does_not_exist,
)
from airflow_jobs_provider.local.http.call import Call, Endpoint
from airflow_jobs_provider.local.http.permissions import read_access_control_list
from airflow_jobs_provider.local.runners.notebook_export import ExportError
from airflow_jobs_provider.local.versions import LATEST, Version, page_token, position_of

__all__ = ["ENDPOINTS", "endpoints_of"]

_DEFAULT_PAGE = 20
_MAX_OFFSET = 10_000
# Settings that are arrays, whose entries an update changes one by one
_KEYS_OF_ENTRIES = {
    "tasks": "task_key",
    "job_clusters": "job_cluster_key",
    "environments": "environment_key",
}
_NOT_SETTINGS = {"idempotency_token", "access_control_list"}


async def create(call: Call) -> dict[str, Any]:
    """Create: store a new job."""
    settings = _queueing(checks.check_settings(_settings(call.data), call.version), call.version)
    permissions = read_access_control_list(call.data.get("access_control_list"))
    return {"job_id": call.service.launcher.create_job(settings, permissions).job_id}


async def list_jobs(call: Call) -> dict[str, Any]:
    """List: all jobs in 2.0; from 2.1 on a page of them."""
    store = call.service.store
    if call.version.max_jobs is None:
        return _without_empty({"jobs": [job_answer(job, call.version) for job in store.jobs()]})
    limit, offset = _page(call, call.version.max_jobs, "jobs")
    name = call.data.get("name")
    jobs = store.jobs(limit=limit + 1, offset=offset, name=name)
    expand = checks.read_flag(call.data, "expand_tasks")
    answer: dict[str, Any] = {
        "jobs": [job_answer(job, call.version, with_tasks=expand) for job in jobs[:limit]]
    }
    return _without_empty(_with_pages(call, answer, "jobs", offset, limit, len(jobs) > limit))


async def get(call: Call) -> dict[str, Any]:
    """Get: one job."""
    return job_answer(call.job(), call.version)


async def reset(call: Call) -> dict[str, Any]:
    """Reset: replace a job's settings."""
    new = checks.check_settings(_new_settings(call, required=True), call.version)
    _change(call, call.job(), _queueing(new, call.version))
    return {}


async def update(call: Call) -> dict[str, Any]:
    """Update: change, add and remove some of a job's settings."""
    new = checks.check_settings(_new_settings(call, required=False), call.version, partial=True)
    removed = checks.check_fields_to_remove(call.data.get("fields_to_remove"))
    job = call.job()
    settings = dict(job.settings)
    for name, value in new.items():
        key = _KEYS_OF_ENTRIES.get(name)
        settings[name] = _merged(settings.get(name) or [], value, key) if key else value
    # Another kind of task or cluster replaces the present one.
    for group in ({*task_of(settings), "tasks"}, {"existing_cluster_id", "new_cluster"}):
        if group & new.keys():
            for name in group - new.keys():
                settings.pop(name, None)
    for field in removed:
        name, _, entry = field.partition("/")
        if entry and isinstance(settings.get(name), list):
            key = _KEYS_OF_ENTRIES.get(name)
            settings[name] = [one for one in settings[name] if one.get(key) != entry]
        else:
            settings.pop(name, None)
    # The job may have been made through a later version.
    _change(call, job, checks.check_settings(settings, LATEST))
    return {}


async def delete(call: Call) -> dict[str, Any]:
    """Delete: remove a job and its history; its active runs are ended shortly after."""
    service = call.service
    job_id = checks.required_integer(call.data, "job_id")
    if service.store.job(job_id) is None:
        if service.store.was_job(job_id):
            return {}
        raise job_does_not_exist(job_id)
    active = service.store.runs(limit=-1, job_id=job_id, ended=False)
    service.store.delete_job(job_id)
    for run in active:
        service.cancel(run.run_id)
    return {}


async def run_now(call: Call) -> dict[str, Any]:
    """Run now: start a run of a job."""
    token = checks.check_token(call.data)
    overriding = checks.check_overriding(call.data, call.version)
    queue = checks.read_queue(call.data)
    only = checks.read_task_keys(call.data, "only")
    run = call.service.launcher.run_now(
        call.job(), overriding, queues=queue, token=token, only=only
    )
    return {"run_id": run.run_id, "number_in_job": run.number_in_job}


async def submit(call: Call) -> dict[str, Any]:
    """Runs submit: start a one-time run."""
    token = checks.check_token(call.data)
    settings = checks.check_settings(_settings(call.data), call.version)
    return {"run_id": call.service.launcher.submit(settings, token=token).run_id}


async def list_runs(call: Call) -> dict[str, Any]:
    """Runs list: a page of runs, the most recently started first."""
    active = checks.read_flag(call.data, "active_only")
    completed = checks.read_flag(call.data, "completed_only")
    if active and completed:
        raise invalid("active_only and completed_only cannot both be true")
    run_type = call.data.get("run_type")
    if run_type is not None and run_type not in set(RunType):
        raise invalid(f"run_type must be one of {', '.join(RunType)}, not {run_type[:100]!r}")
    limit, offset = _page(call, call.version.max_runs, "runs")
    runs = call.service.store.runs(
        limit=limit + 1,
        offset=offset,
        job_id=checks.read_integer(call.data, "job_id"),
        ended=False if active else True if completed else None,
        run_type=run_type,
        started_from=checks.read_integer(call.data, "start_time_from"),
        started_to=checks.read_integer(call.data, "start_time_to"),
    )
    expand = checks.read_flag(call.data, "expand_tasks")
    shown = [call.answer(run, with_tasks=expand) for run in runs[:limit]]
    for run_shown in shown:
        # The pages of a run's tasks are had from runs/get only.
        if run_shown.pop("next_page_token", None) is not None:
            run_shown["has_more"] = True
    answer: dict[str, Any] = {"runs": shown}
    return _without_empty(_with_pages(call, answer, "runs", offset, limit, len(runs) > limit))


async def get_run(call: Call) -> dict[str, Any]:
    """Runs get: a run without its output."""
    run = call.run()
    first = 0
    if call.version.max_tasks is not None and call.data.get("page_token"):
        first = position_of(str(call.data["page_token"]), "tasks")
    answer = call.answer(run, first_task=first)
    if call.version.has_repair and checks.read_flag(call.data, "include_history"):
        answer["repair_history"] = call.service.repairer.history(run)
    return answer


async def export_run(call: Call) -> dict[str, Any]:
    """Runs export: a notebook's run as HTML."""
    views = call.data.get("views_to_export", "CODE")
    if views not in {"CODE", "DASHBOARDS", "ALL"}:
        raise invalid(f"views_to_export must be CODE, DASHBOARDS or ALL, not {str(views)[:100]!r}")
    run = call.run()
    if "notebook_task" not in run.task:
        raise invalid(f"Run {run.run_id} is not a notebook run; only those can be exported")
    if views == "DASHBOARDS":
        return {"views": []}
    path: str = run.task["notebook_task"]["notebook_path"]
    try:
        file = await call.service.notebook_page(run.run_id)
    except ExportError as error:
        raise ApiError(
            HTTPStatus.INTERNAL_SERVER_ERROR,
            "INTERNAL_ERROR",
            f"Run {run.run_id} cannot be exported: {error}",
        ) from None
    if file is None:
        raise invalid(f"Run {run.run_id} has no executed notebook yet")
    content = await asyncio.to_thread(file.read_text, encoding="utf-8")
    name = path.rstrip("/").rpartition("/")[2]
    return {"views": [{"content": content, "name": name, "type": "NOTEBOOK"}]}


async def cancel_run(call: Call) -> dict[str, Any]:
    """Runs cancel: cancel a run; it ends shortly after."""
    call.service.cancel(call.run().run_id)
    return {}


async def cancel_all_runs(call: Call) -> dict[str, Any]:
    """Runs cancel all: cancel all active runs of a job, or all queued runs ("all_queued_runs")."""
    queued = call.version.has_tasks and checks.read_flag(call.data, "all_queued_runs")
    # With both, the queued runs of the job.
    job_id = None if queued and call.data.get("job_id") is None else call.job().job_id
    for run in call.service.store.runs(limit=-1, job_id=job_id, ended=False):
        if not queued or run.life_cycle_state == RunLifeCycleState.QUEUED:
            call.service.cancel(run.run_id)
    return {}


async def get_run_output(call: Call) -> dict[str, Any]:
    """Runs get output: a run's output."""
    run = call.run()
    if run.is_of_tasks:
        raise invalid(
            "Retrieving the output of runs with multiple tasks is not supported. "
            "Please retrieve the output of each individual task run instead."
        )
    if "for_each_task" in run.task:
        raise invalid(
            "Retrieving the output of for each task runs is not supported. "
            "Please retrieve the output of each iteration instead."
        )
    output = call.service.store.output(run.run_id)
    metadata = call.answer(run, with_tasks=False)
    answer: dict[str, Any] = output_answer(run, output, metadata, call.version)
    return answer


async def delete_run(call: Call) -> dict[str, Any]:
    """Runs delete: remove a run that is not active."""
    run = call.run()
    if not run.has_ended:
        raise ApiError(
            HTTPStatus.BAD_REQUEST,
            "INVALID_STATE",
            f"Run {run.run_id} is active ({run.life_cycle_state}) and cannot be deleted.",
        )
    call.service.store.delete_run(run.run_id)
    return {}


async def repair_run(call: Call) -> dict[str, Any]:
    """Repair: run tasks of a run again, as part of it; from 2.1 on."""
    return {"repair_id": call.service.repairer.repair(call.run(), call.data, call.version)}


ENDPOINTS: dict[tuple[str, str], Endpoint] = {
    ("POST", "create"): create,
    ("GET", "list"): list_jobs,
    ("POST", "delete"): delete,
    ("GET", "get"): get,
    ("POST", "reset"): reset,
    ("POST", "update"): update,
    ("POST", "run-now"): run_now,
    ("POST", "runs/submit"): submit,
    ("GET", "runs/list"): list_runs,
    ("GET", "runs/get"): get_run,
    ("GET", "runs/export"): export_run,
    ("POST", "runs/cancel"): cancel_run,
    ("POST", "runs/cancel-all"): cancel_all_runs,
    ("GET", "runs/get-output"): get_run_output,
    ("POST", "runs/delete"): delete_run,
}
_REPAIR: dict[tuple[str, str], Endpoint] = {("POST", "runs/repair"): repair_run}


def endpoints_of(version: Version) -> dict[tuple[str, str], Endpoint]:
    """Return the endpoints that a version of the API has, by verb and path."""
    return {**ENDPOINTS, **_REPAIR} if version.has_repair else ENDPOINTS


def _settings(data: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in data.items()
        if name not in _NOT_SETTINGS and value is not None
    }


def _queueing(settings: dict[str, Any], version: Version) -> dict[str, Any]:
    """Return a job's settings with the version's default of queueing."""
    return {"queue": {"enabled": True}, **settings} if version.queues else settings


def _new_settings(call: Call, *, required: bool) -> dict[str, Any]:
    new = call.data.get("new_settings")
    if new is None and not required:
        return {}
    if not isinstance(new, dict):
        raise invalid("new_settings is required, and must be an object")
    return _settings(new)


def _merged(old: list[Any], new: list[Any], key: str) -> list[Any]:
    replaced = {entry.get(key): entry for entry in new}
    kept = [replaced.pop(entry.get(key), entry) for entry in old]
    return [*kept, *replaced.values()]


def _change(call: Call, job: Job, settings: dict[str, Any]) -> None:
    was, job.settings = job.settings, settings
    call.service.store.save_job(job)
    timeout = settings.get("timeout_seconds") or 0
    if timeout != (was.get("timeout_seconds") or 0):
        # The only change that affects active runs.
        for run in call.service.store.runs(limit=-1, job_id=job.job_id, ended=False):
            call.service.scheduler.set_timeout(run, timeout)


def _page(call: Call, maximum: int, kind: str) -> tuple[int, int]:
    given = checks.read_integer(call.data, "limit")
    limit = _DEFAULT_PAGE if given is None else given
    offset = checks.read_integer(call.data, "offset") or 0
    if limit == 0:
        limit = maximum
    if not 0 < limit <= maximum:
        raise invalid(f"limit must be from 0 to {maximum}, not {limit}")
    if not 0 <= offset <= _MAX_OFFSET:
        raise invalid(f"offset must be from 0 to {_MAX_OFFSET}, not {offset}")
    if call.version.has_tasks and call.data.get("page_token"):
        offset = position_of(str(call.data["page_token"]), kind)
    return limit, offset


def _with_pages(
    call: Call, answer: dict[str, Any], kind: str, offset: int, limit: int, has_more: bool
) -> dict[str, Any]:
    if call.version.says_has_more:
        answer["has_more"] = has_more
    if call.version.has_tasks:
        if has_more:
            answer["next_page_token"] = page_token(kind, offset + limit)
        if offset:
            answer["prev_page_token"] = page_token(kind, max(0, offset - limit))
    return answer


def _without_empty(answer: dict[str, Any]) -> dict[str, Any]:
    # The service leaves an empty list out of its answer.
    return {name: value for name, value in answer.items() if value != []}

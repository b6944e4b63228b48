"""The endpoints of the Jobs API, each as a function that returns a :class:`~.calls.Call`."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from airflow_jobs_provider.api.calls import (
    PERMISSIONS_SERVICE,
    PIPELINES_SERVICE,
    Call,
    JSONObject,
    Page,
)
from airflow_jobs_provider.api.errors import InvalidRequestError
from airflow_jobs_provider.api.ids import parse_id, require_id
from airflow_jobs_provider.api.problems import Problem
from airflow_jobs_provider.api.responses import (
    parse_items,
    parse_items_with_id,
    parse_job,
    parse_output,
    parse_page_token,
    parse_pipeline,
    parse_required_id,
    parse_run,
    parse_views,
)
from airflow_jobs_provider.api.schema.parameters import stringify_parameters

if TYPE_CHECKING:
    from airflow_jobs_provider.api.export_stream import ViewEvent
    from airflow_jobs_provider.api.schema.types import (
        Job,
        PipelineStateInfo,
        Run,
        RunsGetOutputResponse,
        ViewItem,
    )

__all__ = [
    "MAX_EXPORT_BYTES",
    "RUNS_PER_PAGE_IN_EVERY_VERSION",
    "cancel_all_runs",
    "cancel_run",
    "create_job",
    "delete_job",
    "delete_run",
    "export_run",
    "export_run_as_stream",
    "get_job",
    "get_job_id_of_run",
    "get_run",
    "get_run_output",
    "list_jobs",
    "list_pipelines",
    "list_runs",
    "repair_run",
    "reset_job",
    "run_now",
    "submit_run",
    "update_job",
    "update_job_permission",
]

T = TypeVar("T")
# The limit of versions 2.1 and 2.2; that of 2.0 is larger.
RUNS_PER_PAGE_IN_EVERY_VERSION = 25
MAX_EXPORT_BYTES = 256 * 1024 * 1024


def _parse_nothing(_response: JSONObject) -> None:
    return None


def _parse_id(name: str) -> Callable[[JSONObject], int]:
    return partial(parse_required_id, name=name)


def _without_none(**parameters: Any) -> dict[str, Any]:
    """Return the arguments that are not None."""
    return {name: value for name, value in parameters.items() if value is not None}


def create_job(settings: Mapping[str, Any]) -> Call[int]:
    """Create a job; the result is its job_id (reference: "Create").

    Not idempotent: the endpoint has no idempotency token, so a second attempt could create a second
    job.

    :param settings: the job's settings.
    """
    return Call("POST", "create", _stringified(settings), False, _parse_id("job_id"))


def list_jobs(
    *,
    limit: int | None = None,
    offset: int | None = None,
    name: str | None = None,
    expand_tasks: bool = False,
    include_user_names: bool = False,
    page_token: str | None = None,
) -> Call[Page[Job]]:
    """List all jobs (reference: "List").

    The reference's version returns all jobs at once, later versions return pages. It has none of
    the parameters, so a request with one of them needs API 2.1 or later.

    :param limit: jobs on a page; default that of the service.
    :param offset: jobs to skip; default 0.
    :param name: only jobs with this name; default all.
    :param expand_tasks: whether the tasks and clusters of each job are included; default False.
    :param include_user_names: whether names of users are included; default False.
    :param page_token: ``next_page_token`` of an earlier response; default the first page.
    """
    parameters = _without_none(
        limit=limit,
        offset=offset,
        name=name,
        expand_tasks=expand_tasks or None,
        include_user_names=include_user_names or None,
        page_token=page_token or None,
    )
    items = partial(parse_items, name="jobs", parse=parse_job)
    return _list_call("list", parameters, items, "job_id")


def delete_job(job_id: int) -> Call[None]:
    """Delete a job; its active runs are terminated asynchronously (reference: "Delete").

    :param job_id: the job.
    """
    return Call("POST", "delete", {"job_id": job_id}, True, _parse_nothing, missing_ok=True)


def get_job(job_id: int, *, page_token: str | None = None) -> Call[Job]:
    """Read a job with its settings (reference: "Get").

    :param job_id: the job.
    :param page_token: ``next_page_token`` of the previous response, for the next hundred tasks of a
        job (API 2.2); default the first ones.
    """
    parameters = _without_none(job_id=job_id, page_token=page_token)
    return Call("GET", "get", parameters, True, partial(parse_job, job_id=parse_id(job_id)))


def reset_job(job_id: int, new_settings: Mapping[str, Any]) -> Call[None]:
    """Overwrite all settings of a job (reference: "Reset").

    :param job_id: the job.
    :param new_settings: the settings.
    """
    parameters = {"job_id": job_id, "new_settings": _stringified(new_settings)}
    return Call("POST", "reset", parameters, True, _parse_nothing)


def update_job(
    job_id: int,
    new_settings: Mapping[str, Any] | None = None,
    fields_to_remove: Iterable[str] | None = None,
) -> Call[None]:
    """Change or remove some settings of a job (reference: "Update").

    :param job_id: the job.
    :param new_settings: top-level settings to replace; default none.
    :param fields_to_remove: names of the top-level settings to remove; default none.
    """
    parameters = _without_none(
        job_id=job_id,
        new_settings=None if new_settings is None else _stringified(new_settings),
        fields_to_remove=None if fields_to_remove is None else list(fields_to_remove),
    )
    return Call("POST", "update", parameters, True, _parse_nothing)


def update_job_permission(job_id: int, request: Mapping[str, Any]) -> Call[JSONObject]:
    """Add permissions of a job; the result has all of them (Permissions API).

    Permissions of users, groups and service principals that the request does not name stay.

    :param job_id: the job.
    :param request: ``access_control_list``, with a ``permission_level`` for each user, group or
        service principal.
    :raises InvalidRequestError: ``job_id`` is not an id.
    """
    path = f"jobs/{require_id('job_id', job_id)}"
    return Call("PATCH", path, dict(request), True, dict, service=PERMISSIONS_SERVICE)


def run_now(request: Mapping[str, Any]) -> Call[int]:
    """Run a job now; the result is the run_id (reference: "Run now").

    :param request: ``job_id``, at most one kind of parameters, and ``idempotency_token``; default
        a random token, so that retries of the call start one run only.
    """
    return Call("POST", "run-now", _with_token(request), True, _parse_id("run_id"))


def submit_run(request: Mapping[str, Any]) -> Call[int]:
    """Submit a one-time run; the result is the run_id (reference: "Runs submit").

    :param request: the run, and ``idempotency_token``; default a random token, so that retries of
        the call start one run only.
    """
    return Call("POST", "runs/submit", _with_token(request), True, _parse_id("run_id"))


def list_runs(
    *,
    active_only: bool | None = None,
    completed_only: bool | None = None,
    job_id: int | None = None,
    offset: int | None = None,
    limit: int | None = None,
    run_type: str | None = None,
    check_items: bool = True,
    item_hook: Callable[[Any], Any] | None = None,
) -> Call[Page[Run]]:
    """List runs, latest start first (reference: "Runs list").

    :param active_only: only runs that have not ended; excludes ``completed_only``; default False.
    :param completed_only: only runs that have ended; default False.
    :param job_id: only runs of this job; default all.
    :param offset: runs to skip; default 0.
    :param limit: runs on a page; default 20; 0 for the service's maximum.
    :param run_type: ``JOB_RUN``, ``WORKFLOW_RUN`` or ``SUBMIT_RUN``; default all.
    :param check_items: whether each run is checked; default True. With False the page holds the
        runs that have an id, and the caller checks those that it uses.
    :param item_hook: takes each listed run and returns what the page holds of it, with the run's
        id; see :class:`~.calls.Call`. Default None: the whole run.
    """
    parameters = _without_none(
        active_only=active_only,
        completed_only=completed_only,
        job_id=job_id,
        offset=offset,
        limit=limit,
        run_type=run_type,
    )
    items: Callable[[JSONObject], list[Run]]
    if check_items:
        items = partial(parse_items, name="runs", parse=parse_run)
    else:
        items = cast("Any", partial(parse_items_with_id, name="runs", id_name="run_id"))
    return _list_call("runs/list", parameters, items, "run_id")._replace(item_hook=item_hook)


def get_run(
    run_id: int, *, include_history: bool | None = None, page_token: str | None = None
) -> Call[Run]:
    """Read a run: its state, task, cluster, times and page (reference: "Runs get").

    :param run_id: the run.
    :param include_history: whether ``repair_history`` is included (API 2.1 and later); default
        False.
    :param page_token: ``next_page_token`` of the previous response, for the next hundred tasks of a
        run (API 2.2); default the first ones.
    """
    parameters = _without_none(
        run_id=run_id, include_history=include_history, page_token=page_token
    )
    return Call("GET", "runs/get", parameters, True, partial(parse_run, run_id=parse_id(run_id)))


def get_job_id_of_run(run_id: int) -> Call[int]:
    """Read the job of a run; the result is its job_id (reference: "Runs get").

    :param run_id: the run.
    """
    return cast("Call[int]", get_run(run_id))._replace(parse=_parse_id("job_id"))


def export_run(run_id: int, views_to_export: str | None = None) -> Call[list[ViewItem]]:
    """Export a notebook run as HTML; the result is the list of views (reference: "Runs export").

    :param run_id: the run of the notebook task.
    :param views_to_export: ``CODE`` (the service's default), ``DASHBOARDS`` or ``ALL``.
    """
    parameters = _without_none(run_id=run_id, views_to_export=views_to_export)
    return Call(
        "GET", "runs/export", parameters, True, parse_views, max_response_bytes=MAX_EXPORT_BYTES
    )


def export_run_as_stream(
    run_id: int, views_to_export: str | None, receive: Callable[[Iterator[ViewEvent]], T]
) -> Call[T]:
    """Export a notebook run without holding its views in memory (reference: "Runs export").

    :param run_id: the run of the notebook task.
    :param views_to_export: as for :func:`export_run`.
    :param receive: gets the views as :func:`~.export_stream.iter_views` yields them, and returns
        the call's result. Each attempt calls it anew, so it must undo what it did if the iterator
        raises.
    """
    from airflow_jobs_provider.api.export_stream import iter_views

    call = cast("Call[T]", export_run(run_id, views_to_export))
    return call._replace(parse_stream=lambda parts: receive(iter_views(parts)))


def cancel_run(run_id: int) -> Call[None]:
    """Cancel a run asynchronously; no effect on one that has ended (reference: "Runs cancel").

    :param run_id: the run.
    """
    return Call("POST", "runs/cancel", {"run_id": run_id}, True, _parse_nothing)


def cancel_all_runs(job_id: int) -> Call[None]:
    """Cancel all active runs of a job asynchronously (reference: "Runs cancel all").

    It does not stop new runs from starting.

    :param job_id: the job.
    """
    return Call("POST", "runs/cancel-all", {"job_id": job_id}, True, _parse_nothing)


def get_run_output(run_id: int) -> Call[RunsGetOutputResponse]:
    """Read the output, the error and the metadata of a task run (reference: "Runs get output").

    :param run_id: the run of the task.
    """
    return Call("GET", "runs/get-output", {"run_id": run_id}, True, parse_output)


def repair_run(request: Mapping[str, Any]) -> Call[int]:
    """Repair a run that has ended: rerun some of its tasks; the result is the repair's id.

    API 2.1 and later ("Repair a job run"). Idempotent: the service repairs no active run, and after
    the first repair it requires the id of the latest one.

    :param request: ``run_id``, ``rerun_all_failed_tasks`` or ``rerun_tasks``, the parameters, and
        ``latest_repair_id`` if the run was repaired before.
    """
    return Call(
        "POST",
        "runs/repair",
        _stringified(request),
        True,
        _parse_id("repair_id"),
        min_api_version="2.1",
    )


def delete_run(run_id: int) -> Call[None]:
    """Delete a run that is not active (reference: "Runs delete").

    :param run_id: the run.
    """
    return Call("POST", "runs/delete", {"run_id": run_id}, True, _parse_nothing, missing_ok=True)


def list_pipelines(
    *,
    max_results: int | None = None,
    name: str | None = None,
    notebook_path: str | None = None,
) -> Call[Page[PipelineStateInfo]]:
    """List pipelines (Pipelines API, "List pipelines").

    :param max_results: pipelines on a page; default that of the service.
    :param name: only pipelines with a name like this; ``%`` stands for any text; default all.
    :param notebook_path: only pipelines with this notebook; excludes ``name``; default all.
    :raises InvalidRequestError: both ``name`` and ``notebook_path`` are given.
    """
    if name and notebook_path:
        rule = "must not be combined with notebook_path"
        problem = Problem("name", rule, "both are given")
        raise InvalidRequestError(PIPELINES_SERVICE, [problem])
    condition = None
    if notebook_path:
        condition = f"notebook={_quoted(notebook_path)}"
    elif name:
        condition = f"name LIKE {_quoted(name)}"
    parameters = _without_none(max_results=max_results, filter=condition)
    items = partial(parse_items, name="statuses", parse=parse_pipeline)
    return _list_call("", parameters, items, "pipeline_id")._replace(service=PIPELINES_SERVICE)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _stringified(request: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return stringify_parameters(request)
    except RecursionError:
        return dict(request)  # the client refuses it, since JSON cannot express it


def _with_token(request: Mapping[str, Any]) -> dict[str, Any]:
    parameters = _stringified(request)
    if not parameters.get("idempotency_token"):
        parameters["idempotency_token"] = uuid.uuid4().hex
    return parameters


def _list_call(
    path: str,
    parameters: dict[str, Any],
    items: Callable[[JSONObject], list[T]],
    id_name: str,
) -> Call[Page[T]]:
    def parse(response: JSONObject) -> Page[T]:
        return Page(items(response), *parse_page_token(response), id_name)

    return Call("GET", path, parameters, True, parse)

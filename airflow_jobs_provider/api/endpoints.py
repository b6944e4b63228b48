"""Every endpoint of the Jobs API, once, as a value.

A function here returns a :class:`Call`: the verb, the path, the parameters, whether the call may
be sent again when its answer got lost, and how a good answer is read. It touches no network, so a
call can be looked at, logged and tested as it is; a client of :mod:`.client` sends it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Generic, Literal, TypeVar, cast

from airflow_jobs_provider.api.errors import InvalidRequestError
from airflow_jobs_provider.api.export_stream import ViewEvent, iter_views
from airflow_jobs_provider.api.ids import parse_id, require_id
from airflow_jobs_provider.api.responses import (
    parse_items,
    parse_items_with_id,
    parse_job,
    parse_output,
    parse_page_token,
    parse_required_id,
    parse_run,
    parse_views,
)
from airflow_jobs_provider.api.schema.parameters import stringify_parameters
from airflow_jobs_provider.api.schema.version_selection import (
    choose_api_version,
    find_version_problems,
)
from airflow_jobs_provider.api.versions import LATEST_API_VERSION, OLDEST_API_VERSION

__all__ = [
    "RUNS_PER_PAGE_IN_EVERY_VERSION",
    "Call",
    "Page",
    "cancel_all_runs",
    "cancel_run",
    "create_job",
    "delete_job",
    "delete_run",
    "export_run",
    "export_run_as_stream",
    "get_job",
    "get_run",
    "get_run_output",
    "list_jobs",
    "list_runs",
    "repair_run",
    "reset_job",
    "run_now",
    "submit_run",
    "update_job",
    "update_job_permission",
]

T = TypeVar("T")
Answer = dict[str, Any]
Verb = Literal["GET", "POST", "PUT", "PATCH"]
JOBS_SERVICE = "jobs"
PERMISSIONS_SERVICE = "permissions"
# Later versions of the API give no more runs on one page.
RUNS_PER_PAGE_IN_EVERY_VERSION = 25
MAX_EXPORT_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request to the Jobs API, or to a service beside it, and how its answer is read.

    :ivar verb: HTTP verb.
    :ivar path: path below ``/api/<version>/<service>/``.
    :ivar parameters: what is sent, in the query of a GET and as the JSON body of any other verb.
    :ivar idempotent: whether sending it again does no harm when the first answer got lost.
    :ivar read: makes the result from the answer's JSON object, checked; raises
        :class:`~.responses.InvalidResponseError` where it does not fit.
    :ivar missing_ok: whether "does not exist", met when repeating, means that the first try did
        its work (deleting).
    :ivar forbidden_is_final: whether "not allowed" (403) is an answer that the caller can do with,
        so that it is not waited out.
    :ivar min_api_version: lowest version of the API that the call needs, beside what its
        parameters ask for (see :mod:`.versions`); default 2.0.
    :ivar default_api_version: version that the call is sent to where the connection pins none,
        whatever its parameters; by default they decide.
    :ivar service: first part of the path below the version; default ``jobs``. The connection's
        ``api_version`` pins the version of this service only.
    :ivar max_response_bytes: size that a good answer may have, where that is more than the client
        allows; default None.
    :ivar read_stream: makes the result from the parts of the answer's body as they arrive, in place
        of ``read``; raises :class:`~.responses.InvalidResponseError` or
        :class:`~.responses.NotJSONError`. It is called anew for each try. Default None: the answer
            is read whole.
    """

    verb: Verb
    path: str
    parameters: Mapping[str, Any]
    idempotent: bool
    parse: Callable[[Answer], T] = field(repr=False)
    missing_ok: bool = False
    forbidden_is_final: bool = False
    min_api_version: str = OLDEST_API_VERSION
    default_api_version: str | None = None
    service: str = JOBS_SERVICE
    max_response_bytes: int | None = None
    parse_stream: Callable[[Iterable[bytes]], T] | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The call's name in logs and errors: ``runs/get``, ``permissions/jobs/7``."""
        return self.path if self.service == JOBS_SERVICE else f"{self.service}/{self.path}"

    def api_version(self, pinned: str | None = None) -> str:
        """Return the version of the API that the call is sent to.

        :param pinned: version that the connection asks for; None if it asks for none.
        :raises InvalidRequestError: the pinned version does not know a field, or the endpoint.
        """
        if self.service != JOBS_SERVICE:
            return self.default_api_version or self.min_api_version
        if pinned is not None:
            parameters = {} if self.default_api_version is not None else self.parameters
            problems = find_version_problems(self.path, parameters, pinned, self.min_api_version)
            if problems:
                raise InvalidRequestError(self.path, problems)
            return pinned
        if self.default_api_version is not None:
            return self.default_api_version
        if self.min_api_version != OLDEST_API_VERSION:
            return LATEST_API_VERSION
        return choose_api_version(self.path, self.parameters)

    def with_parameters(self, **parameters: Any) -> Call[T]:
        """Return the same call with some parameters added or replaced."""
        return replace(self, parameters={**self.parameters, **parameters})


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list; :mod:`.pagination` reads lists of several.

    :ivar items: what is on it.
    :ivar token: ``next_page_token``; None where there is none.
    :ivar has_more: whether the service says that more follow.
    :ivar id_name: the field that tells the items apart.
    """

    items: list[T]
    token: str | None = None
    has_more: bool = False
    id_name: str = "run_id"

    @property
    def ids(self) -> list[int]:
        """The ids of the items."""
        items: list[Any] = self.items
        return [item[self.id_name] for item in items]


def _nothing(_answer: Answer) -> None:
    return None


def _id(name: str) -> Callable[[Answer], int]:
    return partial(parse_required_id, name=name)


def _given(**parameters: Any) -> dict[str, Any]:
    """Leave out what was not given; a False or 0 is given."""
    return {name: value for name, value in parameters.items() if value is not None}


def create_job(settings: Mapping[str, Any]) -> Call[int]:
    """Create a job; the result is its job_id (reference: "Create").

    Not idempotent: the endpoint knows no idempotency token, so a second try could make a second
    job.
    """
    return Call("POST", "create", _as_text(settings), False, _id("job_id"))


def list_jobs(
    *, limit: int | None = None, offset: int | None = None, name: str | None = None
) -> Call[Page[Answer]]:
    """List all jobs (reference: "List").

    The reference answers all jobs at once; where a service answers by pages (``has_more``,
    ``next_page_token``), the pages are followed.

    :param limit: jobs on a page; the service's default if None.
    :param offset: jobs to skip.
    :param name: exact name to filter by, where the service can.
    """
    parameters = _given(limit=limit, offset=offset, name=name)
    items = partial(parse_items, name="jobs", parse=parse_job)
    return _paged("list", parameters, items, "job_id")


def delete_job(job_id: int) -> Call[None]:
    """Delete a job; its active runs are terminated a little later (reference: "Delete")."""
    return Call("POST", "delete", {"job_id": job_id}, True, _nothing, missing_ok=True)


def get_job(job_id: int) -> Call[Answer]:
    """Read one job with its settings (reference: "Get")."""
    return Call("GET", "get", {"job_id": job_id}, True, partial(parse_job, job_id=parse_id(job_id)))


def reset_job(job_id: int, new_settings: Mapping[str, Any]) -> Call[None]:
    """Overwrite all settings of a job (reference: "Reset")."""
    parameters = {"job_id": job_id, "new_settings": _as_text(new_settings)}
    return Call("POST", "reset", parameters, True, _nothing)


def update_job(
    job_id: int,
    new_settings: Mapping[str, Any] | None = None,
    fields_to_remove: Iterable[str] | None = None,
) -> Call[None]:
    """Change or remove some settings of a job (reference: "Update").

    :param new_settings: top-level settings to replace.
    :param fields_to_remove: top-level settings to remove.
    """
    parameters = _given(
        job_id=job_id,
        new_settings=None if new_settings is None else _as_text(new_settings),
        fields_to_remove=None if fields_to_remove is None else list(fields_to_remove),
    )
    return Call("POST", "update", parameters, True, _nothing)


def update_job_permission(job_id: int, request: Mapping[str, Any]) -> Call[Answer]:
    """Add to a job's permissions; the result is all of them (the Permissions API).

    Those that the request does not name stay as they are.

    :param job_id: the job.
    :param request: ``access_control_list``: for each user, group or service principal a
        ``permission_level``.
    :raises InvalidRequestError: the job_id, which is part of the path, is none.
    """
    path = f"jobs/{require_id('job_id', job_id)}"
    return Call("PATCH", path, dict(request), True, dict, service=PERMISSIONS_SERVICE)


def run_now(request: Mapping[str, Any]) -> Call[int]:
    """Run a job now; the result is the run_id (reference: "Run now").

    :param request: ``job_id``, at most one kind of parameters, and ``idempotency_token``. Without
        a token a random one is minted here, so that the call's own repetitions start one run only.
    """
    return Call("POST", "run-now", _with_token(request), True, _id("run_id"))


def submit_run(request: Mapping[str, Any]) -> Call[int]:
    """Submit a one-time run; the result is the run_id (reference: "Runs submit").

    :param request: the run, with ``idempotency_token``. Without a token a random one is minted
        here, so that the call's own repetitions start one run only.
    """
    return Call("POST", "runs/submit", _with_token(request), True, _id("run_id"))


def list_runs(
    *,
    active_only: bool | None = None,
    completed_only: bool | None = None,
    job_id: int | None = None,
    offset: int | None = None,
    limit: int | None = None,
    run_type: str | None = None,
    check_items: bool = True,
) -> Call[Page[Answer]]:
    """List runs, latest start first (reference: "Runs list").

    :param active_only: only runs that have not ended; not together with ``completed_only``.
    :param completed_only: only runs that have ended.
    :param job_id: only runs of this job.
    :param offset: runs to skip.
    :param limit: runs on a page; 20 if None, the service's maximum if 0.
    :param run_type: ``JOB_RUN``, ``WORKFLOW_RUN`` or ``SUBMIT_RUN``.
    :param check_items: check each run; default True. With False the page holds the runs that have
        an id, and the caller checks those that it uses.
    """
    parameters = _given(
        active_only=active_only,
        completed_only=completed_only,
        job_id=job_id,
        offset=offset,
        limit=limit,
        run_type=run_type,
    )
    items = (
        partial(parse_items, name="runs", parse=parse_run)
        if check_items
        else partial(parse_items_with_id, name="runs", id_name="run_id")
    )
    return _paged("runs/list", parameters, items, "run_id")


def get_run(
    run_id: int, *, include_history: bool | None = None, page_token: str | None = None
) -> Call[Answer]:
    """Read a run: its state, task, cluster, times and page (reference: "Runs get").

    :param include_history: tell of the run's repairs, too (API 2.1 and later).
    :param page_token: ``next_page_token`` of the answer before, for the next hundred tasks of a run
        that has more (API 2.2).
    """
    parameters = _given(run_id=run_id, include_history=include_history, page_token=page_token)
    return Call("GET", "runs/get", parameters, True, partial(parse_run, run_id=parse_id(run_id)))


def export_run(run_id: int, views_to_export: str | None = None) -> Call[list[Answer]]:
    """Export a notebook run as HTML; the result is the list of views (reference: "Runs export").

    :param views_to_export: ``CODE`` (the service's default), ``DASHBOARDS`` or ``ALL``.
    """
    parameters = _given(run_id=run_id, views_to_export=views_to_export)
    return Call(
        "GET", "runs/export", parameters, True, parse_views, max_response_bytes=MAX_EXPORT_BYTES
    )


def export_run_as_stream(
    run_id: int, views_to_export: str | None, receive: Callable[[Iterator[ViewEvent]], T]
) -> Call[T]:
    """Export a notebook run without holding its views in memory (reference: "Runs export").

    :param views_to_export: as for :func:`export_run`.
    :param receive: takes the views as :func:`~.export_stream.iter_views` yields them, and returns
        the call's result. Called anew for each try, so it has to undo what it did where the views
        end with an exception.
    """
    return replace(
        cast("Call[T]", export_run(run_id, views_to_export)),
        parse_stream=lambda parts: receive(iter_views(parts)),
    )


def cancel_run(run_id: int) -> Call[None]:
    """Cancel a run; it ends a little later. No-op on one that has ended ("Runs cancel")."""
    return Call("POST", "runs/cancel", {"run_id": run_id}, True, _nothing)


def cancel_all_runs(job_id: int) -> Call[None]:
    """Cancel all active runs of a job; new ones may still start ("Runs cancel all")."""
    return Call("POST", "runs/cancel-all", {"job_id": job_id}, True, _nothing)


def get_run_output(run_id: int) -> Call[Answer]:
    """Read the output of a task run, its error, and its metadata ("Runs get output")."""
    return Call("GET", "runs/get-output", {"run_id": run_id}, True, parse_output)


def repair_run(request: Mapping[str, Any]) -> Call[int]:
    """Run some tasks of a run that has ended again; the result is the repair's id.

    API 2.1 and later (there: "Repair a job run"). Repeatable: the service repairs no run that is
    active, and after the first repair asks for the id of the latest one.

    :param request: ``run_id``, ``rerun_all_failed_tasks`` or ``rerun_tasks``, the parameters, and
        ``latest_repair_id`` where the run was repaired before.
    """
    return Call("POST", "runs/repair", _as_text(request), True, _id("repair_id"))


def delete_run(run_id: int) -> Call[None]:
    """Delete a run that is not active (reference: "Runs delete")."""
    return Call("POST", "runs/delete", {"run_id": run_id}, True, _nothing, missing_ok=True)


def _as_text(request: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return stringify_parameters(request)
    except RecursionError:
        return dict(request)  # the client refuses it: no JSON can express it


def _with_token(request: Mapping[str, Any]) -> dict[str, Any]:
    parameters = _as_text(request)
    if not parameters.get("idempotency_token"):
        parameters["idempotency_token"] = uuid.uuid4().hex
    return parameters


def _paged(
    path: str,
    parameters: dict[str, Any],
    items: Callable[[Answer], list[Answer]],
    id_name: str,
) -> Call[Page[Answer]]:
    def parse(answer: Answer) -> Page[Answer]:
        return Page(items(answer), *parse_page_token(answer), id_name)

    return Call("GET", path, parameters, True, parse)

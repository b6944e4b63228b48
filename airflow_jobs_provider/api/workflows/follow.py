"""Reading a run, and following it to its end.

* :func:`read_run` reads a run, also one that the service does not show yet.
* :func:`follow_run` waits for a run's end, through the service's own retries.
* :func:`whole_run` reads a run with all its tasks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from airflow_jobs_provider.api.endpoints import (
    RUNS_PER_PAGE_IN_EVERY_VERSION,
    get_job,
    get_run,
    list_runs,
)
from airflow_jobs_provider.api.errors import (
    APIStatusError,
    AuthenticationError,
    JobsAPIError,
    UnexpectedResponseError,
)
from airflow_jobs_provider.api.states import RunLifeCycleState, RunState, RunStatus
from airflow_jobs_provider.api.versions import LATEST_API_VERSION
from airflow_jobs_provider.api.workflows.base import Wait, Workflow, without_retries
from airflow_jobs_provider.api.workflows.events import RunIdentified
from airflow_jobs_provider.api.workflows.launched_run import is_not_shown_yet, says_not_found

if TYPE_CHECKING:
    from airflow_jobs_provider.api.schema.types import Job, Run
    from airflow_jobs_provider.api.workflows.progress import RunProgress

__all__ = ["FollowResult", "follow_run", "read_run", "whole_run"]


# How long the next attempt of a job with max_retries may take to show up after its
# min_retry_interval_millis is over.
_NEXT_ATTEMPT_GRACE_SECONDS = 60.0
# Between two reads of a run that the service does not show yet.
LONGEST_PAUSE_SECONDS = 5.0
# The fields of a run of which not all tasks are shown.
_PAGING = frozenset({"has_more", "next_page_token"})
_NOT_YET_RUNNING = frozenset(
    {RunLifeCycleState.QUEUED, RunLifeCycleState.PENDING, RunLifeCycleState.BLOCKED}
)


def read_run(
    run_id: int,
    *,
    launched_at: float | None = None,
    period: float = LONGEST_PAUSE_SECONDS,
    include_history: bool | None = None,
    clock: Callable[[], float] = time.time,
) -> Workflow[Run]:
    """Read a run. A run that was just launched and is not found is read again.

    The service may not show a run for a moment after it has answered the launch.

    :param run_id: the run.
    :param launched_at: when the launch was answered, in seconds since the epoch; default None: long
        ago.
    :param period: seconds between two reads, 5 at the most; default 5.
    :param include_history: read the run's repairs, too; default not.
    :param clock: returns the seconds since the epoch.
    :raises NotFoundError: the run does not exist, and was not just launched.
    """
    waited, seconds = 0.0, min(period, LONGEST_PAUSE_SECONDS)
    while True:
        try:
            run: Run = yield get_run(run_id, include_history=include_history)
        except APIStatusError as error:
            if not is_not_shown_yet(error, launched_at, now=clock(), waited=waited):
                raise
        else:
            return run
        yield Wait(seconds)
        waited += seconds


class FollowResult(NamedTuple):
    """How the wait for a run ended.

    :ivar run: the run as last read; the last attempt where the service retried it.
    :ivar queued_too_long: whether ``queued_timeout_seconds`` passed before the run started. The run
        is still active then.
    """

    run: Run
    queued_too_long: bool = False


def follow_run(
    run_id: int,
    *,
    polling_period: Callable[[], float],
    progress: RunProgress,
    first_look: Run | None = None,
    queued_timeout_seconds: float | None = None,
    queued_since: float | None = None,
    follow_attempts: bool = True,
    attempts_from_end: bool = False,
    launched_at: float | None = None,
    clock: Callable[[], float] = time.time,
) -> Workflow[FollowResult]:
    """Wait until a run has ended.

    A job with ``max_retries`` starts each retry as a run of its own. The wait goes on with that
    run, to the last attempt (reference: "Run", ``attempt_number``). Each further attempt is an
    event, :class:`~.events.RunIdentified`.

    :param run_id: the run.
    :param polling_period: returns the seconds to the next read.
    :param progress: logs the run's states.
    :param first_look: the run, where it has been read already; default None.
    :param queued_timeout_seconds: stop waiting if the run has not started so many seconds after its
        start_time; default None: no limit.
    :param queued_since: count from this time, in seconds since the epoch, instead of start_time.
    :param follow_attempts: go on with the service's own retries; default True.
    :param attempts_from_end: wait for the next attempt from the run's own end_time. For a workflow
        that starts anew at each poll. Default False: from when the end was read, which does not
        depend on the service's clock.
    :param launched_at: when the run was launched, in seconds since the epoch; see :func:`read_run`.
    :param clock: returns the seconds since the epoch.
    """
    run = first_look
    if run is None:
        run = yield from read_run(
            run_id, launched_at=launched_at, period=polling_period(), clock=clock
        )
    waiting_since = clock()
    while True:
        state = progress.observe(run)
        if state.is_terminal:
            attempt: Run | None = None
            if follow_attempts:
                seen = clock()
                if attempts_from_end:
                    seen = float(run.get("end_time") or seen * 1000) / 1000
                attempt = yield from _next_attempt(run, polling_period, clock, ended=seen)
            if attempt is None:
                return FollowResult((yield from _with_all_tasks(run)))
            progress.next_attempt(int(attempt["run_id"]))
            run, waiting_since, queued_since = attempt, clock(), None
            launched_at = waiting_since
            yield RunIdentified(int(run["run_id"]), launched_at)
            continue
        if queued_timeout_seconds is not None and state.life_cycle_state in _NOT_YET_RUNNING:
            since = queued_since or float(run.get("start_time") or waiting_since * 1000) / 1000
            if clock() - since >= queued_timeout_seconds:
                return FollowResult(run, queued_too_long=True)
        run_id = int(run["run_id"])
        if progress.tasks_are_due(run):
            yield from _log_tasks(run_id, progress)
        # Ten thousand of these generators wait in one triggerer: each keeps as little as it can.
        del run, state
        yield Wait(polling_period())
        run = yield from read_run(
            run_id, launched_at=launched_at, period=polling_period(), clock=clock
        )


def _log_tasks(run_id: int, progress: RunProgress) -> Workflow[None]:
    """Read the tasks of a run for the log. The wait goes on if they cannot be read."""
    try:
        run = yield from without_retries(whole_run(run_id, api_version=LATEST_API_VERSION))
    except JobsAPIError:
        return
    progress.observe_tasks(run)


def whole_run(
    run_id: int,
    *,
    api_version: str | None = None,
    include_history: bool | None = None,
    first_look: Run | None = None,
) -> Workflow[Run]:
    """Read a run with all its tasks and iterations. API 2.2 lists at most 100 on a page.

    Version 2.0 may leave the tasks out. They are then read from 2.2, unless the connection pins
    2.0.

    :param run_id: the run.
    :param api_version: version to read it from where the connection pins none; default the lowest
        one. Only 2.2 lists the iterations of a ``for_each_task``.
    :param include_history: read the run's repairs, too; default not.
    :param first_look: the run, where it has been read already. Only what it lacks of its tasks is
        read. Default None.
    """
    if first_look is not None and first_look.get("tasks"):
        return (yield from _with_all_tasks(first_look))
    call = get_run(run_id, include_history=include_history)
    run: Run = yield call._replace(default_api_version=api_version)
    if api_version is None and run.get("format") == "MULTI_TASK" and not run.get("tasks"):
        run = yield get_run(run_id)._replace(default_api_version=LATEST_API_VERSION)
    return (yield from _with_all_tasks(run))


def _with_all_tasks(run: Run) -> Workflow[Run]:
    if run.keys().isdisjoint(_PAGING):
        return run
    if run.get("has_more") and not run.get("next_page_token"):
        # runs/list shows the first hundred tasks, and has no page token for the others.
        run = yield get_run(int(run["run_id"]))._replace(default_api_version=LATEST_API_VERSION)
    token, tokens = run.get("next_page_token"), set[str]()
    # On each page, the run of a for_each_task lists itself as its only task.
    arrays: dict[str, Any] = {name: run.get(name) for name in ("iterations", "tasks")}
    while token:
        if token in tokens:
            raise UnexpectedResponseError(status=200, excerpt=f"with the page {token!r} once more")
        tokens.add(token)
        call = get_run(int(run["run_id"]), page_token=token)
        page: dict[str, Any] = yield call._replace(default_api_version=LATEST_API_VERSION)
        for name, items in arrays.items():
            if page.get(name) and not (name == "tasks" and arrays["iterations"]):
                arrays[name] = [*(items or ()), *page[name]]
        token = page.get("next_page_token")
    whole = {name: value for name, value in run.items() if name not in _PAGING}
    whole |= {name: items for name, items in arrays.items() if items is not None}
    return cast("Run", whole)


def _next_attempt(
    run: Run, polling_period: Callable[[], float], clock: Callable[[], float], *, ended: float
) -> Workflow[Run | None]:
    """Find the run with which the service retries this one; None where it does not retry.

    None, too, where the job may not be read or does not exist. Any other error is raised.
    """
    # The service does not retry SUCCESS_WITH_FAILURES: it retries the result FAILED and the state
    # INTERNAL_ERROR (reference: "Create", max_retries).
    status = RunState.from_run(run).status
    job_id = run.get("job_id")
    if (
        status not in (RunStatus.FAILED, RunStatus.TIMED_OUT)
        or not job_id
        or run.get("run_type") not in (None, "JOB_RUN")
    ):
        return None
    attempt = int(run.get("attempt_number") or 0)
    try:
        # Somebody who may read a run is not always allowed to read its job.
        job: Job = yield get_job(int(job_id))._replace(forbidden_is_final=True)
        settings = job.get("settings") or {}
        retries = int(settings.get("max_retries") or 0)
        if retries == 0 or 0 < retries <= attempt:
            return None
        if status is RunStatus.TIMED_OUT and not settings.get("retry_on_timeout"):
            return None
        interval = float(settings.get("min_retry_interval_millis") or 0) / 1000
        give_up = ended + interval + _NEXT_ATTEMPT_GRACE_SECONDS
        while True:
            try:
                found = yield from _find_attempt(run, int(job_id), after=attempt)
            except UnexpectedResponseError:
                # Such as a list that does not advance. The next response may be correct.
                if clock() >= give_up:
                    raise
            else:
                if found is not None or clock() >= give_up:
                    return found
            yield Wait(polling_period())
    except APIStatusError as error:
        if says_not_found(error) or _says_forbidden(error):
            return None
        raise


def _says_forbidden(error: APIStatusError) -> bool:
    """Whether the caller may not read the object; a 401 is about the credentials."""
    is_refusal = isinstance(error, AuthenticationError) and error.status == 403
    return is_refusal or error.error_code == "PERMISSION_DENIED"


def _find_attempt(run: Run, job_id: int, *, after: int) -> Workflow[Run | None]:
    original = run.get("original_attempt_run_id") or run["run_id"]
    started = run.get("start_time") or 0
    from airflow_jobs_provider.api.pagination import Paginator

    pages = Paginator(list_runs(job_id=job_id, limit=RUNS_PER_PAGE_IN_EVERY_VERSION))
    while not pages.is_exhausted:
        for other in (yield from pages.next_page()):
            if (
                other.get("original_attempt_run_id") == original
                and int(other.get("attempt_number") or 0) > after
            ):
                return cast("Run", dict(other))
            # The list has the latest start first. An older run is no retry of this one.
            if (other.get("start_time") or started) < started:
                return None
    return None

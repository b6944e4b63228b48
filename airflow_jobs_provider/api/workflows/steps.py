"""Exchanges of several calls, written once for both faces.

An exchange is a generator: it yields a :class:`~.endpoints.Call` or a :class:`Wait`, is sent the
answer (or thrown the error) and returns a result. ``JobsClient.run`` drives it blocking,
``AsyncJobsClient.run`` from asyncio.

* :func:`launch_once` launches a run, or finds the one that an earlier try launched.
* :func:`read_run` reads a run, also one that the service does not show yet.
* :func:`follow_run` waits for a run's end, through the service's own retries.
* :func:`whole_run` reads a run with all its tasks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeAlias, TypeVar, cast

from airflow_jobs_provider.api.endpoints import (
    RUNS_PER_PAGE_IN_EVERY_VERSION,
    Call,
    get_job,
    get_run,
    list_runs,
)
from airflow_jobs_provider.api.errors import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    UnexpectedResponseError,
)
from airflow_jobs_provider.api.pagination import Paginator
from airflow_jobs_provider.api.states import RunLifeCycleState, RunState, RunStatus
from airflow_jobs_provider.api.versions import LATEST_API_VERSION
from airflow_jobs_provider.api.workflows.launched_run import JUST_LAUNCHED_SECONDS, is_just_launched
from airflow_jobs_provider.api.workflows.progress import RunProgress

__all__ = [
    "Ended",
    "Exchange",
    "Launched",
    "Wait",
    "follow_run",
    "launch_once",
    "read_run",
    "whole_run",
]

Run = dict[str, Any]
T = TypeVar("T")

# How long the next attempt of a job with max_retries may take to show up after its
# min_retry_interval_millis is over.
_NEXT_ATTEMPT_GRACE_SECONDS = 60.0
# Between two looks for a run that the service does not show yet.
LONGEST_PAUSE_SECONDS = 5.0
_NOT_YET_RUNNING = frozenset(
    {RunLifeCycleState.QUEUED, RunLifeCycleState.PENDING, RunLifeCycleState.BLOCKED}
)


@dataclass(frozen=True, slots=True)
class Wait:
    """Let so many seconds pass."""

    seconds: float


Step: TypeAlias = "Call[Any] | Wait"


class Exchange(Generic[T]):
    """An exchange under way, for whoever carries it out: take the step, bring what came of it.

    ::

        exchange = Exchange(steps)
        while (step := exchange.step) is not None:
            ...  # wait, or send the call
            exchange.answer(result)  # or exchange.fail(error)
        return exchange.result

    :ivar step: what to do next; None when the exchange is over.
    :ivar result: what it came to, from then on.
    """

    def __init__(self, steps: Generator[Step, Any, T]) -> None:
        self._steps = steps
        self.step: Step | None = None
        self.result = cast("T", None)
        self.answer(None)

    def answer(self, answer: Any) -> None:
        """Go on with the answer of a call, or None after a wait."""
        self._advance(lambda: self._steps.send(answer))

    def fail(self, error: Exception) -> None:
        """Go on with the error of a call; raises it where the exchange cannot do without."""
        self._advance(lambda: self._steps.throw(error))

    def _advance(self, resume: Callable[[], Step]) -> None:
        try:
            self.step = resume()
        except StopIteration as end:
            self.step, self.result = None, end.value


@dataclass(frozen=True, slots=True)
class Launched:
    """A run that is this try's, newly launched or found.

    :ivar run_id: the run.
    :ivar run: the run as the first look at it showed it.
    :ivar attempt_index: place of its token among those given.
    :ivar queued_since: when it began to wait for its turn, in seconds since the epoch, where that
        is not its start_time: the run was repaired since.
    :ivar launched_at: when the launch was answered, likewise; see :func:`read_run`.
    """

    run_id: int
    run: Run
    attempt_index: int
    queued_since: float | None = None
    launched_at: float | None = None


def launch_once(
    launch: Callable[[str], Call[int]],
    tokens: Sequence[str],
    *,
    first_attempt_index: int = 0,
    polling_period_seconds: float,
    on_launched: Callable[[int], None],
    fail_on_partial_success: bool = True,
    before_launch: Callable[[], Generator[Step, Any, Any]] | None = None,
    clock: Callable[[], float] = time.time,
) -> Generator[Step, Any, Launched]:
    """Launch a run with the first token whose run has not come to a bad end.

    A launch with a token that was used before starts nothing and answers with that run, so each
    token before the last either finds the run of an earlier try or launches what that try did not
    get to. A run so found is taken if it is active or has succeeded. If it ended badly, or was
    deleted, the next token has its turn. What the last token yields is taken as it is.

    :param launch: makes the launching call from a token.
    :param tokens: the tokens of this try, one for each try so far; the last one is its own.
    :param first_attempt_index: place of the first token to try.
    :param polling_period_seconds: between two looks at a run that is just being terminated.
    :param on_launched: told each run's id as soon as it is known.
    :param fail_on_partial_success: count the result SUCCESS_WITH_FAILURES as a bad end.
    :param before_launch: an exchange to be carried out before this try launches with its own token.
    :param clock: seconds since the epoch.
    """
    last = len(tokens) - 1
    for attempt_index in range(first_attempt_index, last + 1):
        is_last = attempt_index == last
        if is_last and before_launch is not None:
            yield from before_launch()
        # Only where no run of this token is live may the next one have its turn.
        try:
            run_id: int = yield launch(tokens[attempt_index])
        except BadRequestError as error:
            # A request that can never succeed is refused with each token; the last one's error
            # tells.
            if is_last or error.outcome_unknown or not error.may_mean_deleted_run:
                raise
            continue
        on_launched(run_id)
        launched_at = clock()
        try:
            run = yield from read_run(
                run_id, launched_at=launched_at, period=polling_period_seconds, clock=clock
            )
            # Its result is not known yet: it may be the run of a try that is being killed.
            while not is_last and _is_terminating(run):
                yield Wait(polling_period_seconds)
                run = yield from read_run(
                    run_id, launched_at=launched_at, period=polling_period_seconds, clock=clock
                )
        except NotFoundError:
            if is_last:
                raise
            continue
        state = RunState.from_run(run)
        succeeded = state.succeeded(fail_on_partial_success=fail_on_partial_success)
        if is_last or succeeded or not state.is_terminal:
            return Launched(run_id, run, attempt_index, launched_at=launched_at)
    raise AssertionError("there is no token to launch with")


def read_run(
    run_id: int,
    *,
    launched_at: float | None = None,
    period: float = LONGEST_PAUSE_SECONDS,
    include_history: bool | None = None,
    clock: Callable[[], float] = time.time,
) -> Generator[Step, Any, Run]:
    """Read a run; one that was just launched and is not found is read again.

    The service may not show a run for a moment after it has answered the launch.

    :param run_id: the run.
    :param launched_at: when the launch was answered, in seconds since the epoch; None where that
        was long ago.
    :param period: seconds between two looks, 5 at the most.
    :param include_history: tell of the run's repairs, too.
    :param clock: seconds since the epoch.
    :raises NotFoundError: the run does not exist, and was not just launched.
    """
    waited, seconds = 0.0, min(period, LONGEST_PAUSE_SECONDS)
    while True:
        try:
            run: Run = yield get_run(run_id, include_history=include_history)
        except APIStatusError as error:
            # The waits count, too: another machine's clock may have told when it was launched.
            may_be_new = is_just_launched(launched_at, clock()) and waited < JUST_LAUNCHED_SECONDS
            if not (may_be_new and _says_not_found(error)):
                raise
        else:
            return run
        yield Wait(seconds)
        waited += seconds


def _says_not_found(error: APIStatusError) -> bool:
    return isinstance(error, NotFoundError) or error.status == 404


@dataclass(frozen=True, slots=True)
class Ended:
    """How the wait for a run ended.

    :ivar run: the run as last seen; the last attempt where the service retried it.
    :ivar queued_too_long: whether the run was given up, still active, since it did not start.
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
    on_attempt: Callable[[int], None] = lambda _run_id: None,
    launched_at: float | None = None,
    clock: Callable[[], float] = time.time,
) -> Generator[Step, Any, Ended]:
    """Wait until a run has ended.

    A job with ``max_retries`` starts each retry as a run of its own; the wait goes on with it, to
    the last attempt (reference: "Run", ``attempt_number``).

    :param run_id: the run.
    :param polling_period: gives the seconds to the next look.
    :param progress: what logs the run's way.
    :param first_look: the run, where it has been read already.
    :param queued_timeout_seconds: give up a run that has not begun to run for so long since its
        start_time; None to wait.
    :param queued_since: count from then, in seconds since the epoch, instead of its start_time.
    :param follow_attempts: go on with the service's own retries; default True.
    :param attempts_from_end: give up the next attempt by the run's own end_time, for who begins
        anew at each look; default False, by when its end was seen, which no clock can falsify.
    :param on_attempt: told the id of each run with which the service retries.
    :param launched_at: when the run was launched, in seconds since the epoch; see :func:`read_run`.
    :param clock: seconds since the epoch.
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
                return Ended((yield from _with_all_tasks(run)))
            progress.next_attempt(int(attempt["run_id"]))
            on_attempt(int(attempt["run_id"]))
            run, waiting_since, queued_since = attempt, clock(), None
            launched_at = waiting_since
            continue
        if queued_timeout_seconds is not None and state.life_cycle_state in _NOT_YET_RUNNING:
            since = queued_since or float(run.get("start_time") or waiting_since * 1000) / 1000
            if clock() - since >= queued_timeout_seconds:
                return Ended(run, queued_too_long=True)
        yield Wait(polling_period())
        run = yield from read_run(
            int(run["run_id"]), launched_at=launched_at, period=polling_period(), clock=clock
        )


def whole_run(run_id: int, *, api_version: str | None = None) -> Generator[Step, Any, Run]:
    """Read a run with all its tasks and iterations, which come by the hundred in API 2.2.

    Version 2.0 may leave them out: then they are read from 2.2, unless the connection pins 2.0.

    :param run_id: the run.
    :param api_version: version to read it from where the connection asks for none; default the
        lowest one. Iterations of a ``for_each_task`` are told by 2.2.
    """
    run: Run = yield replace(get_run(run_id), default_api_version=api_version)
    if api_version is None and run.get("format") == "MULTI_TASK" and not run.get("tasks"):
        run = yield replace(get_run(run_id), default_api_version=LATEST_API_VERSION)
    return (yield from _with_all_tasks(run))


def _with_all_tasks(run: Run) -> Generator[Step, Any, Run]:
    if run.get("has_more") and not run.get("next_page_token"):
        # A list shows the first hundred tasks, and leads to no more.
        run = yield replace(get_run(int(run["run_id"])), default_api_version=LATEST_API_VERSION)
    token, tokens = run.get("next_page_token"), set[str]()
    # The run of a for_each_task lists itself as its one task, on each page.
    arrays = {name: run.get(name) for name in ("iterations", "tasks")}
    while token:
        if token in tokens:
            raise UnexpectedResponseError(status=200, excerpt=f"with the page {token!r} once more")
        tokens.add(token)
        call = get_run(int(run["run_id"]), page_token=token)
        page: Run = yield replace(call, default_api_version=LATEST_API_VERSION)
        for name, items in arrays.items():
            if page.get(name) and not (name == "tasks" and arrays["iterations"]):
                arrays[name] = [*(items or ()), *page[name]]
        token = page.get("next_page_token")
    whole = {name: value for name, value in run.items() if name != "next_page_token"}
    return whole | {name: items for name, items in arrays.items() if items is not None}


def _is_terminating(run: Mapping[str, Any]) -> bool:
    state = RunState.from_run(run)
    return (
        state.life_cycle_state == RunLifeCycleState.TERMINATING and state.result_state != "SUCCESS"
    )


def _next_attempt(
    run: Run, polling_period: Callable[[], float], clock: Callable[[], float], *, ended: float
) -> Generator[Step, Any, Run | None]:
    """Find the run with which the service retries this one; None where it does not.

    A job that may not be read, or does not exist, tells of no further attempt: then the run that
    was asked for is what there is. Any other error says nothing about attempts, and is raised.
    """
    # The service does not retry SUCCESS_WITH_FAILURES ("Create", max_retries: a run is unsuccessful
    # with the result FAILED or in the state INTERNAL_ERROR), so neither is it waited for here.
    verdict = RunState.from_run(run).status
    job_id = run.get("job_id")
    if (
        verdict not in (RunStatus.FAILED, RunStatus.TIMED_OUT)
        or not job_id
        or run.get("run_type") not in (None, "JOB_RUN")
    ):
        return None
    attempt = int(run.get("attempt_number") or 0)
    try:
        # Who may see a run need not be allowed to see its job, however long it is waited for.
        job: dict[str, Any] = yield replace(get_job(int(job_id)), forbidden_is_final=True)
        settings = job.get("settings") or {}
        retries = int(settings.get("max_retries") or 0)
        if retries == 0 or 0 < retries <= attempt:
            return None
        if verdict is RunStatus.TIMED_OUT and not settings.get("retry_on_timeout"):
            return None
        patience = float(settings.get("min_retry_interval_millis") or 0) / 1000
        give_up = ended + patience + _NEXT_ATTEMPT_GRACE_SECONDS
        while True:
            try:
                found = yield from _find_attempt(run, int(job_id), after=attempt)
            except UnexpectedResponseError:
                # Such as a list that does not advance: another look may bring a better one.
                if clock() >= give_up:
                    raise
            else:
                if found is not None or clock() >= give_up:
                    return found
            yield Wait(polling_period())
    except APIStatusError as error:
        if _says_not_found(error) or _says_forbidden(error):
            return None
        raise


def _says_forbidden(error: APIStatusError) -> bool:
    """Whether the caller may not see what was asked for; a 401 is about the credentials."""
    is_refusal = isinstance(error, AuthenticationError) and error.status == 403
    return is_refusal or error.error_code == "PERMISSION_DENIED"


def _find_attempt(run: Run, job_id: int, *, after: int) -> Generator[Step, Any, Run | None]:
    original = run.get("original_attempt_run_id") or run["run_id"]
    started = run.get("start_time") or 0
    pages = Paginator(list_runs(job_id=job_id, limit=RUNS_PER_PAGE_IN_EVERY_VERSION))
    while not pages.is_exhausted:
        for other in (yield from pages.next_page()):
            if (
                other.get("original_attempt_run_id") == original
                and int(other.get("attempt_number") or 0) > after
            ):
                return dict(other)
            # Latest start first: what started before this run is none of its retries.
            if (other.get("start_time") or started) < started:
                return None
    return None

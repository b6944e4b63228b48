"""Launching a run exactly once: :func:`launch_once` launches it, or finds an earlier try's."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_jobs_provider.api.calls import Call
from airflow_jobs_provider.api.errors import BadRequestError, NotFoundError
from airflow_jobs_provider.api.ids import parse_id
from airflow_jobs_provider.api.states import RunLifeCycleState, RunState, RunStatus
from airflow_jobs_provider.api.versions import OLDEST_API_VERSION
from airflow_jobs_provider.api.workflows.base import Wait, Workflow
from airflow_jobs_provider.api.workflows.events import LaunchPrepared, RunIdentified
from airflow_jobs_provider.api.workflows.follow import read_run
from airflow_jobs_provider.api.workflows.progress import run_log

if TYPE_CHECKING:
    from airflow_jobs_provider.api.schema.types import Run
    from airflow_jobs_provider.api.workflows.progress import Log

__all__ = ["LaunchResult", "launch_once", "log_launch"]


_FAILED = (RunStatus.FAILED, RunStatus.TIMED_OUT, RunStatus.SUCCEEDED_WITH_FAILURES)
# The clock of the service may be so much behind that of this machine.
_CLOCK_SKEW_SECONDS = 5.0


class LaunchResult(NamedTuple):
    """The run of this try, newly launched or found.

    :ivar run_id: the run.
    :ivar run: the run as first read.
    :ivar attempt_index: index of its token among the tokens of the try.
    :ivar queued_since: when it was queued, in seconds since the epoch, where that is not its
        start_time: the run was repaired since. Default None.
    :ivar launched_at: when the launch was answered, in seconds since the epoch; None if unknown.
    :ivar is_own: whether its token is this try's own; False for the token of an earlier try.
    :ivar is_new: whether this try launched it. With a token that may have been sent before, only
        the run's start_time tells.
    """

    run_id: int
    run: Run
    attempt_index: int
    queued_since: float | None = None
    launched_at: float | None = None
    is_own: bool = True
    is_new: bool = True

    @property
    def queue_start(self) -> float | None:
        """When the run was queued, by this machine's clock; None where only the service knows.

        Its clock may differ from this one by minutes.
        """
        if self.queued_since is None and self.is_new:
            return self.launched_at
        return self.queued_since


def launch_once(
    call: Call[int],
    tokens: Sequence[str],
    *,
    first_attempt_index: int = 0,
    polling_period_seconds: float,
    fail_on_partial_success: bool = True,
    adopt_failed: bool = False,
    is_unique: bool = True,
    before_own_launch: Workflow[Any] | None = None,
    clock: Callable[[], float] = time.time,
) -> Workflow[LaunchResult]:
    """Launch a run with the first token whose run did not end badly.

    A launch with a token that was used before starts nothing and answers with that run. So each
    token before the last one finds the run of an earlier try, or launches what that try did not get
    to. A run that is found is taken if it is active or has succeeded. If it ended badly or was
    deleted, the next token is used. The run of the last token is taken in any state.

    Before each launch the workflow yields :class:`~.events.LaunchPrepared`, after its response
    :class:`~.events.RunIdentified`.

    :param call: the launch, without a token.
    :param tokens: the tokens of this try, one for each try so far; the last one is its own.
    :param first_attempt_index: index of the first token to use; default 0.
    :param polling_period_seconds: seconds between two reads of a run that is being terminated.
    :param fail_on_partial_success: count the result SUCCESS_WITH_FAILURES as a bad end; default
        True.
    :param adopt_failed: take a found run that failed or timed out, too; default False. Then only a
        run that was canceled, skipped or deleted is launched anew.
    :param is_unique: whether nobody else sends the last token; default True. False for a token of
        the user's, whose run may be that of any earlier launch.
    :param before_own_launch: a workflow to execute before this try launches with its own token;
        default none.
    :param clock: returns the seconds since the epoch.
    """
    last = len(tokens) - 1
    for attempt_index in range(first_attempt_index, last + 1):
        is_last = attempt_index == last
        if is_last and before_own_launch is not None:
            yield from before_own_launch
        launch = call.with_parameters(idempotency_token=tokens[attempt_index])
        prepared_at = clock()
        yield LaunchPrepared(launch)
        # The next token may be used only where no run of this one is active.
        try:
            run_id: int = yield launch
        except BadRequestError as error:
            # A request that can never succeed is refused with each token. The last error is raised.
            if is_last or error.outcome_unknown or not error.may_mean_deleted_run:
                raise
            continue
        launched_at = clock()
        yield RunIdentified(run_id, launched_at)
        try:
            run = yield from read_run(
                run_id, launched_at=launched_at, period=polling_period_seconds, clock=clock
            )
            # It may be the run of a try that is being killed. Its result is not known yet.
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
        is_good = (
            not state.is_terminal
            or state.succeeded(fail_on_partial_success=fail_on_partial_success)
            or (adopt_failed and state.status in _FAILED)
        )
        if is_last or is_good:
            return LaunchResult(
                run_id,
                run,
                attempt_index,
                launched_at=launched_at,
                is_own=is_last,
                is_new=(is_last and is_unique) or _has_started_since(run, prepared_at),
            )
    raise AssertionError("no token was given")


def log_launch(launched: LaunchResult, log: Log, *, api_version: str) -> None:
    """Log which run the task launched or follows, and where its page is.

    :param launched: the run.
    :param log: the task's logger.
    :param api_version: the version of the API that the launch was sent to.
    """
    through = (
        "" if api_version == OLDEST_API_VERSION else f" through version {api_version} of the API"
    )
    run = launched.run
    run_log(log, launched.run_id, run.get("job_id")).info(
        "%s run %s%s, see %s",
        "Launched" if launched.is_new else "Following",
        launched.run_id,
        through,
        run.get("run_page_url") or "the workspace",
    )


def _has_started_since(run: Mapping[str, Any], seconds: float) -> bool:
    start = parse_id(run.get("start_time"))
    return start is not None and start / 1000 >= seconds - _CLOCK_SKEW_SECONDS


def _is_terminating(run: Mapping[str, Any]) -> bool:
    state = RunState.from_run(run)
    return (
        state.life_cycle_state == RunLifeCycleState.TERMINATING and state.result_state != "SUCCESS"
    )

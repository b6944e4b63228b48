"""What is known of a run that is being launched: whether it may be active, and its id."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

from airflow_jobs_provider.api.errors import APIStatusError, NotFoundError
from airflow_jobs_provider.api.workflows.events import Event, LaunchPrepared

if TYPE_CHECKING:
    from airflow_jobs_provider.api.calls import Call
    from airflow_jobs_provider.api.errors import JobsAPIError

__all__ = [
    "JUST_LAUNCHED_SECONDS",
    "LaunchState",
    "LaunchedRun",
    "is_just_launched",
    "is_not_shown_yet",
    "latest_launch_of_recorded_run",
    "says_not_found",
]

# The service may not show a run yet for so long after it has answered the launch.
JUST_LAUNCHED_SECONDS = 60.0
# Of a run whose task has died the id may be recorded, but not the time of its launch. It counts as
# just launched for so long only: Airflow's DAG processor waits for the cancel.
_RECORDED_SECONDS = 10.0


def is_just_launched(launched_at: float | None, now: float) -> bool:
    """Whether a run was launched so recently that the service may not show it yet.

    :param launched_at: when the launch was answered, in seconds since the epoch; None if unknown.
    :param now: the time, in seconds since the epoch.
    """
    return launched_at is not None and now - launched_at < JUST_LAUNCHED_SECONDS


def says_not_found(error: APIStatusError) -> bool:
    """Whether an answer says that something does not exist, in the API's words or without."""
    return isinstance(error, NotFoundError) or error.status == 404


def is_not_shown_yet(
    error: APIStatusError, launched_at: float | None, *, now: float, waited: float
) -> bool:
    """Whether a run that is not found may be one that the service does not show yet.

    :param error: the answer.
    :param launched_at: see :func:`is_just_launched`.
    :param now: likewise.
    :param waited: seconds of all waits since the first such answer. They count, too, since
        ``launched_at`` may be from another machine's clock.
    """
    may_be_new = is_just_launched(launched_at, now) and waited < JUST_LAUNCHED_SECONDS
    return may_be_new and says_not_found(error)


def latest_launch_of_recorded_run(now: float) -> float:
    """Return when a run was launched of which only the id is recorded, to cancel it.

    :param now: the time, in seconds since the epoch.
    """
    return now - JUST_LAUNCHED_SECONDS + _RECORDED_SECONDS


class LaunchState(StrEnum):
    """How far the launch of a run has come."""

    NOT_SENT = "not sent"
    UNANSWERED = "unanswered"
    REFUSED = "refused"
    ANSWERED = "answered"
    ENDED = "ended"


class LaunchedRun:
    """What is known of the run that a task launches and waits for.

    A kill may come at any moment. So the state is updated before and after each attempt to send the
    launch.

    * NOT_SENT: the launch has not reached the service. No run.
    * UNANSWERED: it was sent, and its response has not arrived or may be lost. There may be a run.
      Sending the launch again brings its id.
    * REFUSED: the service has refused to launch the run. No run.
    * ANSWERED: the run's id is known. The run may be active.
    * ENDED: the run has ended, or is not waited for.

    :ivar state: how far the launch has come.
    :ivar call: the launch with its token. Sending it again starts no second run.
    :ivar run_id: the run, in the states ANSWERED and ENDED.
    :ivar launched_at: when the launch was answered, in seconds since the epoch.
    :ivar is_canceled: whether the service has accepted a cancel of the run.
    """

    def __init__(self) -> None:
        self.state = LaunchState.NOT_SENT
        self.call: Call[int] | None = None
        self.run_id: int | None = None
        self.launched_at: float | None = None
        self.is_canceled = False
        self._outcome_unknown = False

    @property
    def may_be_active(self) -> bool:
        """Whether there may be an active run."""
        return self.state in (LaunchState.UNANSWERED, LaunchState.ANSWERED)

    def record(self, event: Event) -> None:
        """Record an event of a workflow."""
        if isinstance(event, LaunchPrepared):
            self.prepare(event.call)
        else:
            self.answered(event.run_id, event.launched_at)

    def prepare(self, call: Call[int]) -> None:
        """Begin anew with a launch that is about to be sent."""
        self.state, self.call = LaunchState.NOT_SENT, call
        self.run_id = self.launched_at = None
        self.is_canceled = self._outcome_unknown = False

    def on_attempt(self, call: Call[Any], error: JobsAPIError | None) -> None:
        """Record an attempt to send a call.

        :param call: the call; all but the launch are ignored.
        :param error: None before the attempt, else why it failed.
        """
        if call is not self.call or self.run_id is not None:
            return
        if error is not None:
            self._outcome_unknown = self._outcome_unknown or error.outcome_unknown
        if error is None or self._outcome_unknown:
            self.state = LaunchState.UNANSWERED
        elif isinstance(error, APIStatusError):
            self.state = LaunchState.REFUSED
        else:
            self.state = LaunchState.NOT_SENT

    def answered(self, run_id: int, launched_at: float | None = None) -> None:
        """Record the run's id, or that of a further attempt of the run."""
        self.state, self.run_id = LaunchState.ANSWERED, run_id
        self.launched_at = launched_at
        self.is_canceled = False

    def canceled(self) -> None:
        """Record that the service has accepted a cancel; the run ends later."""
        self.is_canceled = True

    def ended(self) -> None:
        """Record that the run has ended, or is not waited for."""
        self.state = LaunchState.ENDED

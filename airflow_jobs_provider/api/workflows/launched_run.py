"""What is known of a run that is being launched: whether it may be live, and its id."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

from airflow_jobs_provider.api.errors import APIStatusError
from airflow_jobs_provider.api.workflows.events import Event, LaunchPrepared

if TYPE_CHECKING:
    from airflow_jobs_provider.api.endpoints import Call
    from airflow_jobs_provider.api.errors import JobsAPIError

__all__ = ["JUST_LAUNCHED_SECONDS", "LaunchState", "LaunchedRun", "is_just_launched"]

# For so long after the answer to a launch the service may not show the run yet.
JUST_LAUNCHED_SECONDS = 60.0


def is_just_launched(launched_at: float | None, now: float) -> bool:
    """Whether a run was launched so lately that "does not exist" is no verdict.

    :param launched_at: when the launch was answered, in seconds since the epoch; None if unknown.
    :param now: likewise.
    """
    return launched_at is not None and now - launched_at < JUST_LAUNCHED_SECONDS


class LaunchState(StrEnum):
    """How far the launch of a run has come."""

    NOT_SENT = "not sent"
    UNANSWERED = "unanswered"
    REFUSED = "refused"
    ANSWERED = "answered"
    ENDED = "ended"


class LaunchedRun:
    """What is known of the run that a task launches and waits for.

    A kill may come at any moment. So this is kept up to date before and after each try to send the
    launch.

    * NOT_SENT: the launch has not reached the service. No run.
    * UNANSWERED: it was sent, and its answer is not there yet or may be lost. There may be a run;
      the launch sent once more brings its id.
    * REFUSED: the service has answered that it does not launch the run. No run.
    * ANSWERED: the run's id is known. The run may be live.
    * ENDED: the run is known to have ended, or is not waited for.

    :ivar state: how far the launch has come.
    :ivar call: the launch with its token. Sent once more it starts no second run.
    :ivar run_id: the run, in the states ANSWERED and ENDED.
    :ivar launched_at: when the launch was answered, in seconds since the epoch.
    :ivar is_canceled: whether a cancel of the run was answered.
    """

    def __init__(self) -> None:
        self.state = LaunchState.NOT_SENT
        self.call: Call[int] | None = None
        self.run_id: int | None = None
        self.launched_at: float | None = None
        self.is_canceled = False
        self._outcome_unknown = False

    @property
    def may_be_live(self) -> bool:
        """Whether there may be a run that goes on."""
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
        """Take note of a try to send a call.

        :param call: what is sent; only the launch counts.
        :param error: None before the try, else why it did not work.
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
        """Take note of the run's id; also of a further attempt of the run."""
        self.state, self.run_id = LaunchState.ANSWERED, run_id
        self.launched_at = launched_at
        self.is_canceled = False

    def canceled(self) -> None:
        """Take note that a cancel of the run was answered; it works a little later."""
        self.is_canceled = True

    def ended(self) -> None:
        """Take note that the run has ended, or is not waited for."""
        self.state = LaunchState.ENDED

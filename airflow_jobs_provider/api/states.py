"""The states of a run, and the one table that says what they mean.

The API reports a life cycle state (where the run is) and, once there is one, a result state
(how it ended). The service grows new values from time to time. A life cycle state that is not
listed here counts as still active, so that a new one never kills a task that is doing well; a run
that has ended with a result that is not listed here has not verifiably succeeded, so it does not.

Reference: "RunLifeCycleState", "RunResultState", "RunState".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from airflow_jobs_provider.api.text import printable

__all__ = ["RunLifeCycleState", "RunResultState", "RunState", "RunStatus"]


class RunLifeCycleState(StrEnum):
    """Where a run is in its life."""

    QUEUED = "QUEUED"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    TERMINATING = "TERMINATING"
    TERMINATED = "TERMINATED"
    SKIPPED = "SKIPPED"
    INTERNAL_ERROR = "INTERNAL_ERROR"
    # Answered by the service, though its 2.0 reference does not list them.
    BLOCKED = "BLOCKED"
    WAITING_FOR_RETRY = "WAITING_FOR_RETRY"


class RunResultState(StrEnum):
    """How a run ended."""

    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    TIMEDOUT = "TIMEDOUT"
    CANCELED = "CANCELED"
    # Answered by the service, though its 2.0 reference does not list them.
    MAXIMUM_CONCURRENT_RUNS_REACHED = "MAXIMUM_CONCURRENT_RUNS_REACHED"
    EXCLUDED = "EXCLUDED"
    SUCCESS_WITH_FAILURES = "SUCCESS_WITH_FAILURES"
    UPSTREAM_FAILED = "UPSTREAM_FAILED"
    UPSTREAM_CANCELED = "UPSTREAM_CANCELED"
    DISABLED = "DISABLED"


class RunStatus(StrEnum):
    """What a state means for whoever waits for the run."""

    ACTIVE = "active"
    SUCCEEDED = "succeeded"
    SUCCEEDED_WITH_FAILURES = "succeeded_with_failures"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELED = "canceled"
    SKIPPED = "skipped"


_TERMINAL = frozenset(
    {RunLifeCycleState.TERMINATED, RunLifeCycleState.SKIPPED, RunLifeCycleState.INTERNAL_ERROR}
)
_KNOWN_LIFE_CYCLE_STATES = frozenset(RunLifeCycleState)
_KNOWN_RESULT_STATES = frozenset(RunResultState)

# How a run that reached TERMINATED ended. SUCCESS_WITH_FAILURES is the service's word for a run
# whose last tasks succeeded although an earlier one did not.
_STATUS_OF_TERMINATED: Mapping[str, RunStatus] = {
    RunResultState.SUCCESS: RunStatus.SUCCEEDED,
    RunResultState.SUCCESS_WITH_FAILURES: RunStatus.SUCCEEDED_WITH_FAILURES,
    RunResultState.FAILED: RunStatus.FAILED,
    RunResultState.TIMEDOUT: RunStatus.TIMED_OUT,
    RunResultState.CANCELED: RunStatus.CANCELED,
    RunResultState.MAXIMUM_CONCURRENT_RUNS_REACHED: RunStatus.SKIPPED,
    RunResultState.EXCLUDED: RunStatus.SKIPPED,
    RunResultState.DISABLED: RunStatus.SKIPPED,
    RunResultState.UPSTREAM_FAILED: RunStatus.FAILED,
    RunResultState.UPSTREAM_CANCELED: RunStatus.CANCELED,
}
# INTERNAL_ERROR is unsuccessful whatever its result ("Create", max_retries); the result only
# tells a time-out and a cancellation apart from the rest.
_STATUS_OF_INTERNAL_ERROR: Mapping[str, RunStatus] = {
    RunResultState.TIMEDOUT: RunStatus.TIMED_OUT,
    RunResultState.CANCELED: RunStatus.CANCELED,
    RunResultState.UPSTREAM_CANCELED: RunStatus.CANCELED,
}


@dataclass(frozen=True, slots=True)
class RunState:
    """The state of a run as the API answered it (reference: "RunState").

    :param life_cycle_state: where the run is; kept as text, so that a new one survives.
    :param result_state: how it ended; None until the service says so.
    :param state_message: the service's words on it, unstructured.
    :param user_cancelled_or_timedout: True where a user or a time-out stopped the run.
    """

    life_cycle_state: str
    result_state: str | None = None
    state_message: str = ""
    user_cancelled_or_timedout: bool = False

    @classmethod
    def from_run(cls, run: Mapping[str, Any]) -> RunState:
        """Read the state of a run as ``runs/get`` or ``runs/list`` answered it.

        A missing or empty field is no error: without a life cycle state the run counts as active.
        """
        state = run.get("state") or {}
        return cls(
            life_cycle_state=state.get("life_cycle_state") or "",
            result_state=state.get("result_state") or None,
            state_message=state.get("state_message") or "",
            user_cancelled_or_timedout=bool(state.get("user_cancelled_or_timedout")),
        )

    @property
    def is_known(self) -> bool:
        """Whether this version knows both states."""
        return self.life_cycle_state in _KNOWN_LIFE_CYCLE_STATES and (
            self.result_state is None or self.result_state in _KNOWN_RESULT_STATES
        )

    @property
    def status(self) -> RunStatus:
        """What the pair of states means: the one rule that all waiting in this package follows."""
        if self.life_cycle_state not in _TERMINAL:
            return RunStatus.ACTIVE
        if self.life_cycle_state == RunLifeCycleState.SKIPPED:
            return RunStatus.SKIPPED
        if self.life_cycle_state == RunLifeCycleState.INTERNAL_ERROR:
            return _STATUS_OF_INTERNAL_ERROR.get(self.result_state or "", RunStatus.FAILED)
        return _STATUS_OF_TERMINATED.get(self.result_state or "", RunStatus.FAILED)

    @property
    def is_terminal(self) -> bool:
        """Whether the run has ended, well or badly."""
        return self.status is not RunStatus.ACTIVE

    @property
    def is_successful(self) -> bool:
        """Whether the run has ended well, with no failed task."""
        return self.succeeded()

    def succeeded(self, *, fail_on_partial_success: bool = True) -> bool:
        """Whether the run has ended well.

        :param fail_on_partial_success: count a run with the result SUCCESS_WITH_FAILURES as failed;
            default True.
        """
        verdict = self.status
        is_partial = verdict is RunStatus.SUCCEEDED_WITH_FAILURES
        return verdict is RunStatus.SUCCEEDED or (is_partial and not fail_on_partial_success)

    def __str__(self) -> str:
        states = "/".join(filter(None, (self.life_cycle_state or "no state", self.result_state)))
        return printable(f"{states}: {self.state_message}" if self.state_message else states)

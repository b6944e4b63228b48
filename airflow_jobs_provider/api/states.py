"""The states of a run and their meaning.

A run has a life cycle state and, once it has ended, a result state. The service adds values from
time to time:

* An unknown life cycle state counts as active, so that it never fails a task whose run goes on.
* An unknown result state counts as failed, since success is not proved.

To add a life cycle state, add it to :class:`RunLifeCycleState`, and to ``_TERMINAL`` if a run in it
has ended.

Reference: "RunLifeCycleState", "RunResultState", "RunState".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar

from airflow_jobs_provider.api.text import printable
from airflow_jobs_provider.api.values import Value

__all__ = ["RunLifeCycleState", "RunResultState", "RunState", "RunStatus"]


class RunLifeCycleState(StrEnum):
    """The life cycle states (reference: "RunLifeCycleState")."""

    QUEUED = "QUEUED"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    TERMINATING = "TERMINATING"
    TERMINATED = "TERMINATED"
    SKIPPED = "SKIPPED"
    INTERNAL_ERROR = "INTERNAL_ERROR"
    # The service returns these, although its 2.0 reference does not list them.
    BLOCKED = "BLOCKED"
    WAITING_FOR_RETRY = "WAITING_FOR_RETRY"


class RunResultState(StrEnum):
    """The result states of a run that has ended (reference: "RunResultState")."""

    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    TIMEDOUT = "TIMEDOUT"
    CANCELED = "CANCELED"
    # The service returns these, although its 2.0 reference does not list them.
    MAXIMUM_CONCURRENT_RUNS_REACHED = "MAXIMUM_CONCURRENT_RUNS_REACHED"
    EXCLUDED = "EXCLUDED"
    SUCCESS_WITH_FAILURES = "SUCCESS_WITH_FAILURES"
    UPSTREAM_FAILED = "UPSTREAM_FAILED"
    UPSTREAM_CANCELED = "UPSTREAM_CANCELED"
    DISABLED = "DISABLED"


class RunStatus(StrEnum):
    """The meaning of both states for a task that waits for the run."""

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

# The status of a run in TERMINATED. The result is SUCCESS_WITH_FAILURES if the last tasks succeeded
# although an earlier one did not.
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
# INTERNAL_ERROR is unsuccessful whatever the result (reference: "Create", max_retries). The result
# only shows a time-out or a cancellation.
_STATUS_OF_INTERNAL_ERROR: Mapping[str, RunStatus] = {
    RunResultState.TIMEDOUT: RunStatus.TIMED_OUT,
    RunResultState.CANCELED: RunStatus.CANCELED,
    RunResultState.UPSTREAM_CANCELED: RunStatus.CANCELED,
}


class RunState(Value):
    """The state of a run (reference: "RunState").

    ``RunState(**run["state"])`` works, whatever fields the service adds.

    :param life_cycle_state: the life cycle state; text, since it may be unknown. Empty if missing.
    :param result_state: the result state, likewise; empty (default) if there is none.
    :param state_message: the service's description; default empty.
    :param user_cancelled_or_timedout: whether a user or a time-out stopped the run; default False.
    :param others: other fields of the service's state; ignored.
    """

    RUN_LIFE_CYCLE_STATES: ClassVar[list[str]] = [state.value for state in RunLifeCycleState]
    """The known life cycle states."""

    __slots__ = __match_args__ = (
        "life_cycle_state",
        "result_state",
        "state_message",
        "user_cancelled_or_timedout",
    )
    life_cycle_state: str
    result_state: str
    state_message: str
    user_cancelled_or_timedout: bool

    def __init__(
        self,
        life_cycle_state: str,
        result_state: str | None = "",
        state_message: str | None = "",
        user_cancelled_or_timedout: bool | None = False,
        **others: Any,  # noqa: ARG002
    ) -> None:
        # Not by _set(), which takes twice as long: a poller makes thousands of states in a period.
        put = object.__setattr__
        put(self, "life_cycle_state", life_cycle_state or "")
        put(self, "result_state", result_state or "")
        put(self, "state_message", state_message or "")
        put(self, "user_cancelled_or_timedout", bool(user_cancelled_or_timedout))

    @classmethod
    def from_run(cls, run: Mapping[str, Any]) -> RunState:
        """Return the state of a run of ``runs/get`` or ``runs/list``.

        A missing field is no error. Without a life cycle state the run counts as active.

        :param run: the run.
        """
        state = run.get("state") or {}
        return cls(
            state.get("life_cycle_state") or "",
            state.get("result_state"),
            state.get("state_message"),
            state.get("user_cancelled_or_timedout"),
        )

    @classmethod
    def from_json(cls, data: str) -> RunState:
        """Return the state that :meth:`to_json` has written, here or in the official provider.

        :param data: the JSON.
        """
        return cls(**json.loads(data))

    def to_json(self) -> str:
        """Return the state as a JSON object, which the official provider's RunState reads, too."""
        fields: dict[str, Any] = {
            "life_cycle_state": self.life_cycle_state,
            "result_state": self.result_state,
            "state_message": self.state_message,
        }
        if self.user_cancelled_or_timedout:
            fields["user_cancelled_or_timedout"] = True
        return json.dumps(fields)

    @property
    def is_known(self) -> bool:
        """Whether both states are known."""
        return self.life_cycle_state in _KNOWN_LIFE_CYCLE_STATES and (
            not self.result_state or self.result_state in _KNOWN_RESULT_STATES
        )

    @property
    def status(self) -> RunStatus:
        """The meaning of the two states; everything in this package that waits uses it."""
        if self.life_cycle_state not in _TERMINAL:
            return RunStatus.ACTIVE
        if self.life_cycle_state == RunLifeCycleState.SKIPPED:
            return RunStatus.SKIPPED
        if self.life_cycle_state == RunLifeCycleState.INTERNAL_ERROR:
            return _STATUS_OF_INTERNAL_ERROR.get(self.result_state, RunStatus.FAILED)
        return _STATUS_OF_TERMINATED.get(self.result_state, RunStatus.FAILED)

    @property
    def is_terminal(self) -> bool:
        """Whether the run has ended, with success or without."""
        return self.status is not RunStatus.ACTIVE

    @property
    def is_successful(self) -> bool:
        """Whether the run has succeeded, with no failed task."""
        return self.succeeded()

    def succeeded(self, *, fail_on_partial_success: bool = True) -> bool:
        """Return whether the run has succeeded.

        :param fail_on_partial_success: whether the result SUCCESS_WITH_FAILURES counts as failed;
            default True.
        """
        status = self.status
        is_partial = status is RunStatus.SUCCEEDED_WITH_FAILURES
        return status is RunStatus.SUCCEEDED or (is_partial and not fail_on_partial_success)

    @property
    def both_states(self) -> str:
        """The two states as text, such as ``TERMINATED/FAILED``, without the message."""
        return "/".join(filter(None, (self.life_cycle_state or "no state", self.result_state)))

    def __str__(self) -> str:
        states = self.both_states
        return printable(f"{states}: {self.state_message}" if self.state_message else states)

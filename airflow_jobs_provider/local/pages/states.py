"""States and attempts of runs as the pages show them.

The states are fewer, in words, each with a sign and a colour.
"""

from __future__ import annotations

from enum import Enum

from airflow_jobs_provider.api.states import RunLifeCycleState, RunResultState
from airflow_jobs_provider.local.engine.model import ENDED, Run

__all__ = ["ACTIVE", "StateKind", "attempt_of", "kind_of", "kind_of_states"]

_GOOD = {RunResultState.SUCCESS, RunResultState.SUCCESS_WITH_FAILURES}
_NOT_RUN = {
    RunResultState.EXCLUDED,
    RunResultState.UPSTREAM_FAILED,
    RunResultState.UPSTREAM_CANCELED,
}


class StateKind(Enum):
    """The state of a run on a page: its word, and a sign for those who do not see the colour."""

    QUEUED = ("Queued", "…")
    WAITING = ("Waiting", "…")
    RUNNING = ("Running", "▶")
    SUCCEEDED = ("Succeeded", "✓")
    FAILED = ("Failed", "✕")
    CANCELED = ("Canceled", "■")
    TIMED_OUT = ("Timed out", "✕")
    SKIPPED = ("Skipped", "–")  # noqa: RUF001  (a dash is what it shows)

    @property
    def label(self) -> str:
        """The word."""
        return self.value[0]

    @property
    def sign(self) -> str:
        """One character."""
        return self.value[1]

    @property
    def css(self) -> str:
        """The class in the style sheet."""
        return self.name.lower().replace("_", "-")


ACTIVE = frozenset({StateKind.QUEUED, StateKind.WAITING, StateKind.RUNNING})


def attempt_of(run: Run) -> int:
    """Return the number of an attempt, 1 for the first one, as the logs of Airflow's tasks have it.

    The API's ``attempt_number`` is 0 for the first one.
    """
    return run.attempt_number + 1


def kind_of(run: Run) -> StateKind:
    """Return the state of a run as the pages show it."""
    return kind_of_states(run.life_cycle_state, run.result_state)


def kind_of_states(life_cycle_state: str, result_state: str | None) -> StateKind:
    """Return the state that the pages show for a life-cycle state and a result state."""
    if life_cycle_state not in ENDED:
        if life_cycle_state == RunLifeCycleState.QUEUED:
            return StateKind.QUEUED
        is_working = life_cycle_state in {RunLifeCycleState.RUNNING, RunLifeCycleState.TERMINATING}
        return StateKind.RUNNING if is_working else StateKind.WAITING
    if life_cycle_state == RunLifeCycleState.SKIPPED or result_state in _NOT_RUN:
        return StateKind.SKIPPED
    if result_state in _GOOD:
        return StateKind.SUCCEEDED
    if result_state == RunResultState.CANCELED:
        return StateKind.CANCELED
    if result_state == RunResultState.TIMEDOUT:
        return StateKind.TIMED_OUT
    return StateKind.FAILED

"""The log lines of a run that is waited for.

There is a line when the state changes, with the time that the run spent in the state before, and
one every ten minutes while it does not change. Polls are not logged. An unknown state is logged
once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from airflow_jobs_provider.api.states import RunState
from airflow_jobs_provider.api.text import printable

__all__ = ["REPEAT_SECONDS", "Log", "RunProgress"]

# Seconds without a line after which the state of a run is logged again.
REPEAT_SECONDS = 600.0


# One for all, since a triggerer has thousands of RunProgress.
_NONE: frozenset[tuple[str, str]] = frozenset()


class Log(Protocol):
    """The methods that a logger needs; loggers of ``logging`` and of Airflow have them."""

    def info(self, msg: str, /, *args: Any) -> Any:
        """Log at level INFO."""
        ...

    def warning(self, msg: str, /, *args: Any) -> Any:
        """Log at level WARNING."""
        ...

    def error(self, msg: str, /, *args: Any) -> Any:
        """Log at level ERROR."""
        ...


class RunProgress:
    """Logs the states of one run.

    :param run_id: the run.
    :param log: the task's logger.
    :param known_life_cycle_state: the state that was logged already; default None: none was.
    :param repeat_seconds: seconds without a line after which the state is logged again; default
        :data:`REPEAT_SECONDS`.
    :param clock: returns the seconds of a monotonic clock.
    """

    def __init__(
        self,
        run_id: int,
        log: Log,
        *,
        known_life_cycle_state: str | None = None,
        repeat_seconds: float = REPEAT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run_id = run_id
        self._log = log
        self._repeat_seconds = repeat_seconds
        self._clock = clock
        self._states: tuple[str, str] | None = None
        if known_life_cycle_state is not None:
            self._states = (known_life_cycle_state, "")
        self._since = self._last_line = clock()
        self._unknown = _NONE

    @property
    def life_cycle_state(self) -> str | None:
        """The run's life cycle state as last read; None before the first read."""
        return None if self._states is None else self._states[0]

    def next_attempt(self, run_id: int) -> None:
        """Log that the service retries the run with another one, and go on with that one."""
        self._log.info("Run %s is retried by the service as run %s", self._run_id, run_id)
        self._run_id = run_id
        self._states = None

    def observe(self, run: Mapping[str, Any]) -> RunState:
        """Log what is new in a run or task, as the service returned it, and return its state."""
        state = RunState.from_run(run)
        states = (state.life_cycle_state, state.result_state)
        now = self._clock()
        if states != self._states:
            before = (
                f" after {_duration(now - self._since)} {printable(self._states[0])}"
                if self._states
                else ""
            )
            self._log.info("Run %s is %s%s", self._run_id, state, before)
            self._states, self._since, self._last_line = states, now, now
        elif now - self._last_line >= self._repeat_seconds:
            self._log.info(
                "Run %s is still %s, for %s", self._run_id, state, _duration(now - self._since)
            )
            self._last_line = now
        if not state.is_known and states not in self._unknown:
            self._unknown |= {states}
            self._log.warning(
                "Run %s has a state that this version does not know: %s. It counts as %s.",
                self._run_id,
                state,
                "ended without success" if state.is_terminal else "active",
            )
        return state


def _duration(seconds: float) -> str:
    """Return a duration as text: 4 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"

"""What there is to say about a run while it is waited for.

One line when the state changes, with the time that the run spent in the state before, and a sign
of life now and then; never a line for each poll. An unknown state is named once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from airflow_jobs_provider.api.states import RunState
from airflow_jobs_provider.api.text import printable

__all__ = ["Log", "RunProgress"]


class Log(Protocol):
    """What is asked of a logger; those of ``logging`` and of Airflow's structured logs have it."""

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
    """Logs the way of one run, whoever polls it.

    :param run_id: the run.
    :param log: where to; a task's logger, so that the lines are in the task's log.
    :param known_life_cycle_state: what the log has already; None for nothing.
    :param sign_of_life_seconds: time without a line after which there is one; default 10 minutes.
    :param clock: seconds from any start, only ever growing.
    """

    def __init__(
        self,
        run_id: int,
        log: Log,
        *,
        known_life_cycle_state: str | None = None,
        sign_of_life_seconds: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run_id = run_id
        self._log = log
        self._sign_of_life_seconds = sign_of_life_seconds
        self._clock = clock
        self._states: tuple[str, str | None] | None = None
        if known_life_cycle_state is not None:
            self._states = (known_life_cycle_state, None)
        self._since = self._last_line = clock()
        self._unknown: set[tuple[str, str | None]] = set()

    @property
    def life_cycle_state(self) -> str | None:
        """The run's life cycle state as last seen; None before the first look."""
        return None if self._states is None else self._states[0]

    def next_attempt(self, run_id: int) -> None:
        """Say that the service tries again with a run of its own, and go on with that one."""
        self._log.info("Run %s is retried by the service as run %s", self._run_id, run_id)
        self._run_id = run_id
        self._states = None

    def observe(self, run: Mapping[str, Any]) -> RunState:
        """Note a run as the service answered it, say what is new, and return its state."""
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
        elif now - self._last_line >= self._sign_of_life_seconds:
            self._log.info(
                "Run %s is still %s, for %s", self._run_id, state, _duration(now - self._since)
            )
            self._last_line = now
        if not state.is_known and states not in self._unknown:
            self._unknown.add(states)
            self._log.warning(
                "Run %s has a state that this version does not know: %s. It counts as %s.",
                self._run_id,
                state,
                "ended without success" if state.is_terminal else "active",
            )
        return state


def _duration(seconds: float) -> str:
    """Write a duration as a person would: 4 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"

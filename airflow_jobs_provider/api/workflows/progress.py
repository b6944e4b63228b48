"""The log lines of a run that is waited for.

There is a line when the state changes, with the time that the run spent in the state before, and
one every ten minutes while it does not change. The line of a run that has ended names its cluster
and the parts of its time. Polls are not logged. An unknown state is logged once.

Of a run of several tasks there is a line when tasks have ended, at most one a minute. It says which
tasks have ended and which are running. It needs the run's tasks:

* Where each poll reads the run with all its tasks, it costs nothing.
* Where the polls read no tasks, as from lists of runs or from version 2.0 of the API, or only the
  first hundred, the tasks are read by a request of their own. This is at most one request for a
  run in ten minutes, and at most one in two seconds for all runs of the process. With 10,000 such
  runs, each has a line every five to six hours. :meth:`RunProgress.tasks_are_due` decides, and
  :func:`~airflow_jobs_provider.api.workflows.follow.follow_run` reads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, TypeVar

from airflow_jobs_provider.api.run_summary import (
    ended_tasks,
    latest_attempts,
    lists_all_tasks,
    task_summary,
    usage_summary,
)
from airflow_jobs_provider.api.states import RunState
from airflow_jobs_provider.api.text import duration, printable

__all__ = [
    "REPEAT_SECONDS",
    "SECONDS_BETWEEN_TASK_LINES",
    "SECONDS_BETWEEN_TASK_READS",
    "Log",
    "RunProgress",
    "run_log",
]

# Seconds without a line after which the state of a run is logged again, or its tasks are read.
REPEAT_SECONDS = 600.0
# Shortest time between two lines about the tasks of a run.
SECONDS_BETWEEN_TASK_LINES = 60.0
# Shortest time between two requests for tasks, for all runs of the process together.
SECONDS_BETWEEN_TASK_READS = 2.0


T = TypeVar("T")

# One for all, since a triggerer has thousands of RunProgress.
_NONE: frozenset[tuple[str, str]] = frozenset()
_NO_TASKS: frozenset[tuple[str, int]] = frozenset()


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


def run_log(log: Any, run_id: int | None, job_id: int | None = None) -> Any:
    """Return a logger whose lines carry a run's ids as the fields of a structured log.

    The fields are ``databricks_run_id`` and ``databricks_job_id``: Airflow's own lines have the id
    of the DAG run as ``run_id``. A logger of ``logging`` has no such fields, and is returned as it
    is.

    :param log: the logger.
    :param run_id: the run; None if it is not known, which gives no fields.
    :param job_id: the run's job; default None: not known.
    """
    bind = getattr(log, "bind", None)
    if bind is None or run_id is None:
        return log
    fields = {"databricks_run_id": run_id}
    if job_id is not None:
        fields["databricks_job_id"] = job_id
    return bind(**fields)


def _if_valid(read: Callable[[Mapping[str, Any]], T], run: Mapping[str, Any], default: T) -> T:
    """Return what the log says of a run; the default if a field has an unexpected type.

    The wait does not depend on these fields, so they must not end it.
    """
    try:
        return read(run)
    except (AttributeError, TypeError, ValueError, OverflowError):
        return default


class RunProgress:
    """Logs the states of one run, and those of its tasks.

    :param run_id: the run.
    :param log: the task's logger.
    :param known_life_cycle_state: the state that was logged already; default None: none was.
    :param repeat_seconds: seconds without a line after which the state is logged again; default
        :data:`REPEAT_SECONDS`.
    :param clock: returns the seconds of a monotonic clock.

    :ivar job_id: the run's job; None if it is not known.
    """

    # When the tasks of any run were read last for the log.
    _tasks_read_at: ClassVar[float] = float("-inf")

    # Defaults in the class: most of the thousands of objects never get values of their own.
    job_id: int | None = None
    _logged_tasks = _NO_TASKS
    _tasks_logged_at = float("-inf")

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
        self._since = self._last_line = self._tasks_due_since = clock()
        self._unknown = _NONE

    @property
    def life_cycle_state(self) -> str | None:
        """The run's life cycle state as last read; None before the first read."""
        return None if self._states is None else self._states[0]

    def next_attempt(self, run_id: int) -> None:
        """Log that the service retries the run with another one, and go on with that one."""
        self._run_log().info("Run %s is retried by the service as run %s", self._run_id, run_id)
        self._run_id = run_id
        self._states = None
        self._logged_tasks = _NO_TASKS

    def observe(self, run: Mapping[str, Any]) -> RunState:
        """Log what is new in a run or task, as the service returned it, and return its state."""
        state = RunState.from_run(run)
        states = (state.life_cycle_state, state.result_state)
        now = self._clock()
        if run.get("job_id") != self.job_id:
            self.job_id = run.get("job_id")
        if states != self._states:
            before = (
                f" after {duration(now - self._since)} {printable(self._states[0])}"
                if self._states
                else ""
            )
            usage = _if_valid(usage_summary, run, "") if state.is_terminal else ""
            message = f": {printable(state.state_message)}" if state.state_message else ""
            self._run_log().info(
                "Run %s is %s%s%s%s",
                self._run_id,
                printable(state.both_states),
                before,
                message,
                f"; {usage}" if usage else "",
            )
            self._states, self._since, self._last_line = states, now, now
        elif now - self._last_line >= self._repeat_seconds:
            self._run_log().info(
                "Run %s is still %s, for %s", self._run_id, state, duration(now - self._since)
            )
            self._last_line = now
        if not state.is_known and states not in self._unknown:
            self._unknown |= {states}
            self._run_log().warning(
                "Run %s has a state that this version does not know: %s. It counts as %s.",
                self._run_id,
                state,
                "ended without success" if state.is_terminal else "active",
            )
        if not state.is_terminal and lists_all_tasks(run):
            self.observe_tasks(run)
        return state

    def observe_tasks(self, run: Mapping[str, Any]) -> None:
        """Log how far the tasks of an active run are, if tasks have ended since the last line.

        :param run: the run, with all its tasks.
        """
        now = self._clock()
        if now - self._tasks_logged_at < SECONDS_BETWEEN_TASK_LINES:
            return
        if _if_valid(lambda whole: len(latest_attempts(whole)), run, 0) < 2:
            # A run of one task has no progress, and version 2.0 may list no tasks. They are not
            # asked for again.
            self._tasks_due_since = float("inf")
            return
        ended = _if_valid(ended_tasks, run, _NO_TASKS)
        if ended and ended != self._logged_tasks:
            self._run_log().info("Run %s: %s", self._run_id, task_summary(run))
            self._logged_tasks, self._tasks_logged_at = ended, now

    def tasks_are_due(self, run: Mapping[str, Any]) -> bool:
        """Whether to read the tasks of a run for the log, by a request of its own.

        If so, the request counts as sent.

        :param run: the run as it was read, active.
        """
        if lists_all_tasks(run) or run.get("format") != "MULTI_TASK":
            return False
        now = self._clock()
        # The absolute value, since tests have clocks of their own.
        is_late_enough = abs(now - RunProgress._tasks_read_at) >= SECONDS_BETWEEN_TASK_READS
        if now - self._tasks_due_since < self._repeat_seconds or not is_late_enough:
            return False
        self._tasks_due_since = RunProgress._tasks_read_at = now
        return True

    def _run_log(self) -> Log:
        log: Log = run_log(self._log, self._run_id, self.job_id)
        return log

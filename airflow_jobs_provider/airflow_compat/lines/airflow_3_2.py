"""Airflow 3.2: every attempt has an id of its own, and the API counts clears."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from airflow_jobs_provider.airflow_compat.lines.airflow_3_1 import Airflow31
from airflow_jobs_provider.airflow_compat.lines.base import (
    RUNNING,
    Successor,
    successor_after_failure,
)
from airflow_jobs_provider.airflow_compat.task_identity import TaskAttempt

__all__ = ["LINE", "Airflow32"]


class Airflow32(Airflow31):
    """Airflow 3.2."""

    def initialize_stats(self) -> None:
        """Initialize it as a task's process does. The triggerer initializes a copy of its own."""
        from airflow.sdk._shared.observability.metrics.base_stats_logger import NoStatsLogger
        from airflow.sdk._shared.observability.metrics.stats import Stats
        from airflow.sdk.observability.metrics import stats_utils

        # The attribute of the class; other names are those of its client. The first metric sets it,
        # if nothing has before.
        if vars(Stats).get("factory") in (None, NoStatsLogger):
            # 3.3 has other parameters.
            stats: Any = Stats
            get_stats_factory: Any = stats_utils.get_stats_factory
            stats.initialize(factory=get_stats_factory(stats))

    def xcoms_at_start(self, attempt: TaskAttempt) -> dict[str, int]:  # noqa: ARG002
        """Return none: ids tell attempts apart."""
        return {}

    def watch_deferral(self) -> Callable[[], bool]:
        """Note the supervisor's answer, whose error Airflow only logs."""
        from airflow.sdk.execution_time import task_runner

        supervisor: Any = task_runner.SUPERVISOR_COMMS
        kind, accepted = type(supervisor), []

        def send(supervisor: Any, *args: Any, **kwargs: Any) -> Any:
            answer = kind.send(supervisor, *args, **kwargs)
            message = args[0] if args else kwargs.get("msg")
            if type(message).__name__ == "DeferTask":
                accepted.append(message)
            return answer

        # The same object, since others hold it. Its class has slots.
        with suppress(TypeError):
            supervisor.__class__ = type(kind.__name__, (kind,), {"__slots__": (), "send": send})
        return lambda: bool(accepted)

    def _find_later_attempt(self, attempt: TaskAttempt, state: str | None) -> Successor:
        """Find the successor by the id, which another attempt does not share."""
        if state == RUNNING and not self._has_new_id(attempt):
            return successor_after_failure(attempt)
        return Successor.NONE if self._tasks_were_cleared(attempt) else Successor.EXISTING

    def _tasks_were_cleared(self, attempt: TaskAttempt) -> bool:
        """Return whether a user has cleared tasks of the DAG run since this attempt began.

        It may be this one: a task that is cleared twice does not stay in the state that tells of
        the first time.
        """
        from airflow.sdk.execution_time import comms, task_runner

        supervisor: Any = task_runner.SUPERVISOR_COMMS
        now = supervisor.send(comms.GetDagRun(dag_id=attempt.dag_id, run_id=attempt.run_id))
        return bool(now.clear_number != attempt.clear_number)


LINE = Airflow32()

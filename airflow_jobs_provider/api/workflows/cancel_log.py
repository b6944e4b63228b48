"""The log lines about a run that was to be canceled."""

from __future__ import annotations

from typing import Any, Protocol

from airflow_jobs_provider.api.errors import NotFoundError

__all__ = ["log_failed_cancel"]


class Log(Protocol):
    """A logger of the standard library, or Airflow's."""

    def info(self, event: str, /, *args: Any) -> Any:
        """Log at the level INFO."""

    def error(self, event: str, /, *args: Any) -> Any:
        """Log at the level ERROR."""


def log_failed_cancel(log: Log, run_id: int | None, error: BaseException, *, is_new: bool) -> None:
    """Log that a run could not be canceled, or that there is no such run any more.

    :param log: the task's log.
    :param run_id: the run; None if the launch has not been answered.
    :param error: why the cancel failed.
    :param is_new: whether the run was launched so recently that the service may not show it yet.
    """
    if isinstance(error, NotFoundError) and run_id is not None and not is_new:
        log.info("Run %s does not exist any more and is not canceled.", run_id)
        return
    why = str(error) or "no answer in time"
    log.error("Run %s could not be canceled and may still run: %s", run_id or "of this task", why)

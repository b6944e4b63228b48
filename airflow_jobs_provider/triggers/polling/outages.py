"""What goes wrong while runs are followed, and how often it is told: once at its start and its end.

Either the service is in trouble, which concerns all waiters, or one run cannot be read while others
can, which concerns its own. How long anything is waited out is the retry policy's to say.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_jobs_provider.api.errors import JobsAPIError, RateLimitError
from airflow_jobs_provider.api.retry import ConsecutiveFailures

if TYPE_CHECKING:
    from airflow_jobs_provider.api.retry import RetryPolicy

__all__ = ["ServiceOutage", "UnreadableRuns"]

log = logging.getLogger(__name__)

# A service's limit that is met again and again is told no oftener.
LIMIT_IS_NEWS_AFTER_SECONDS = 600.0


class ServiceOutage:
    """Whether the service answers, for all that is asked of it.

    :ivar failures: tries in a row that did not work.
    :ivar in_a_row: the same, for the retry policy.
    """

    def __init__(self) -> None:
        self.failures = 0
        self.in_a_row = ConsecutiveFailures()
        self._since: float | None = None
        self._was_told = False
        self._limit_told_at = float("-inf")

    @property
    def seconds(self) -> float:
        """How long it has lasted."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    def record_failure(self, error: JobsAPIError, runs: int) -> None:
        """Note that something did not work, for so many runs that are waited for."""
        now = time.monotonic()
        self.failures += 1
        if self._since is not None:
            return
        self._since = now
        self._was_told = True
        if isinstance(error, RateLimitError):
            self._was_told = now - self._limit_told_at >= LIMIT_IS_NEWS_AFTER_SECONDS
            self._limit_told_at = now if self._was_told else self._limit_told_at
        if self._was_told:
            log.warning("%d runs cannot be followed for now: %s", runs, error)

    def record_success(self) -> None:
        """Note that the service answers, again or still."""
        if self._since is not None and self._was_told:
            log.info(
                "The service answers again, after %.0f s; all runs are followed.", self.seconds
            )
        self._since = None
        self.failures = 0
        self.in_a_row = ConsecutiveFailures()


@dataclass(slots=True)
class _Trouble:
    since: float
    failures: int = 0
    in_a_row: ConsecutiveFailures = field(default_factory=ConsecutiveFailures)
    again_at: float = 0.0


class UnreadableRuns:
    """Which runs cannot be read while others can."""

    def __init__(self) -> None:
        self._of: dict[int, _Trouble] = {}

    def __contains__(self, run_id: int) -> bool:
        return run_id in self._of

    def again_at(self) -> dict[int, float]:
        """Return when each run that is in trouble is to be asked for again (monotonic clock)."""
        return {run_id: trouble.again_at for run_id, trouble in self._of.items()}

    def record_failure(
        self, failed: Mapping[int, JobsAPIError], retries: RetryPolicy
    ) -> dict[int, JobsAPIError]:
        """Note that runs could not be read; return those that are not to be waited for any more."""
        now = time.monotonic()
        new: list[int] = []
        given_up: dict[int, JobsAPIError] = {}
        for run_id, error in failed.items():
            trouble = self._of.setdefault(run_id, _Trouble(now))
            trouble.failures += 1
            if not retries.should_retry(error, trouble.in_a_row):
                given_up[run_id] = error
                continue
            trouble.again_at = now + retries.wait_seconds(error, trouble.failures)
            if trouble.failures == 1:
                new.append(run_id)
        if new:
            log.warning(
                "%s %s cannot be read for now, while others can: %s",
                "Run" if len(new) == 1 else "Runs",
                ", ".join(str(run_id) for run_id in new),
                failed[new[0]],
            )
        return given_up

    def record_success(self, run_id: int) -> None:
        """Note that a run was read, after trouble or without any."""
        if (trouble := self._of.pop(run_id, None)) is not None:
            seconds = time.monotonic() - trouble.since
            log.info("Run %s can be read again, after %.0f s.", run_id, seconds)

    def forget(self, run_id: int) -> None:
        """Forget a run that nobody waits for any more."""
        self._of.pop(run_id, None)

"""Outages: of the whole service, or of single runs that cannot be read while others can.

Each is logged once when it begins and once when it ends. How long it is waited out is decided by
the retry policy.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_jobs_provider.api.errors import JobsAPIError, RateLimitError
from airflow_jobs_provider.api.retry import ConsecutiveFailures

if TYPE_CHECKING:
    from airflow_jobs_provider.api.retry import RetryPolicy

__all__ = ["ServiceOutage", "UnreadableRuns"]

log = logging.getLogger(__name__)

# A rate limit that is met again and again is logged at most this often.
LOG_RATE_LIMIT_EVERY_SECONDS = 600.0


class ServiceOutage:
    """Whether the service answers, for all requests of a poller together.

    :param on_end: called with its seconds when an outage has ended that was no mere rate limit;
        default None: nothing is called.
    :param followed: what is followed, for the log; default ``runs``.

    :ivar failures: failed tries in a row.
    :ivar consecutive: the same, for the retry policy.
    :ivar is_rate_limit: whether each failure so far was a 429.
    """

    def __init__(
        self, on_end: Callable[[float], None] | None = None, followed: str = "runs"
    ) -> None:
        self._on_end = on_end
        self._followed = followed
        self.is_rate_limit = False
        self.failures = 0
        self.consecutive = ConsecutiveFailures()
        self._since: float | None = None
        self._was_logged = False
        self._rate_limit_logged_at = float("-inf")

    @property
    def seconds(self) -> float:
        """How long the outage has lasted; 0 if there is none."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    def record_failure(self, error: JobsAPIError, runs: int, *, is_further: bool = True) -> None:
        """Record a failed try.

        :param error: why it failed.
        :param runs: the number of runs that are waited for.
        :param is_further: whether it was made after the one before had failed. Tries at the same
            time count once. Default True.
        """
        now = time.monotonic()
        self.failures = self.failures + 1 if is_further else max(1, self.failures)
        if self._since is not None:
            self.is_rate_limit = self.is_rate_limit and isinstance(error, RateLimitError)
            return
        self._since = now
        self.is_rate_limit = isinstance(error, RateLimitError)
        self._was_logged = True
        if self.is_rate_limit:
            self._was_logged = now - self._rate_limit_logged_at >= LOG_RATE_LIMIT_EVERY_SECONDS
            self._rate_limit_logged_at = now if self._was_logged else self._rate_limit_logged_at
        if self._was_logged:
            log.warning("%d %s cannot be followed for now: %s", runs, self._followed, error)

    def record_success(self) -> None:
        """Record that the service answers: an outage, if there is one, has ended."""
        if self._since is not None and self._was_logged:
            log.info(
                "The service answers again, after %.0f s; all %s are followed.",
                self.seconds,
                self._followed,
            )
        if self._since is not None and self._on_end is not None and not self.is_rate_limit:
            self._on_end(self.seconds)
        self.forget()

    def forget(self) -> None:
        """Forget an outage that concerns nobody any more. A later one is another one."""
        self._since = None
        self.failures = 0
        self.consecutive = ConsecutiveFailures()


@dataclass(slots=True)
class _RunOutage:
    """Failed reads in a row of one run.

    :ivar since: when the first one failed (monotonic clock).
    :ivar failures: how many failed.
    :ivar consecutive: the same, for the retry policy.
    :ivar retry_at: when the run is to be read again (monotonic clock).
    """

    since: float
    failures: int = 0
    consecutive: ConsecutiveFailures = field(default_factory=ConsecutiveFailures)
    retry_at: float = 0.0


class UnreadableRuns:
    """The runs that cannot be read while others can."""

    def __init__(self) -> None:
        self._by_run: dict[int, _RunOutage] = {}

    def __contains__(self, run_id: int) -> bool:
        return run_id in self._by_run

    def run_ids(self) -> set[int]:
        """Return the runs."""
        return set(self._by_run)

    def not_before(self) -> dict[int, float]:
        """Return when each unreadable run is to be read again (monotonic clock)."""
        return {run_id: outage.retry_at for run_id, outage in self._by_run.items()}

    def record_failure(
        self, failed: Mapping[int, JobsAPIError], retries: RetryPolicy
    ) -> dict[int, JobsAPIError]:
        """Record that runs could not be read; return those that are given up, with their errors.

        :param failed: the error of each run.
        :param retries: decides whether and when a run is read again.
        """
        now = time.monotonic()
        new: list[int] = []
        given_up: dict[int, JobsAPIError] = {}
        for run_id, error in failed.items():
            outage = self._by_run.setdefault(run_id, _RunOutage(now))
            outage.failures += 1
            if not retries.should_retry(error, outage.consecutive):
                given_up[run_id] = error
                continue
            outage.retry_at = now + retries.wait_seconds(error, outage.failures)
            if outage.failures == 1:
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
        """Record that a run was read: its outage, if there is one, has ended."""
        if (outage := self._by_run.pop(run_id, None)) is not None:
            seconds = time.monotonic() - outage.since
            log.info("Run %s can be read again, after %.0f s.", run_id, seconds)

    def forget(self, run_id: int) -> None:
        """Forget a run that has no waiter any more."""
        self._by_run.pop(run_id, None)

"""The rate limits for launches of one host, in turn between DAGs.

The service limits launches per workspace: ``runs/submit`` to 35 a second, ``run-now`` to 20. Other
triggerers, workers and users of the workspace launch runs, too, so a triggerer takes a quarter of
that only. The option ``[databricks_jobs] launches_per_second`` sets another rate for both.

A DAG of 1,000 mapped tasks asks for 1,000 launches at once. The DAGs that wait launch one run each
in turn, so that another DAG's launch does not wait for all of them.
"""

from __future__ import annotations

import contextvars
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cache
from typing import Self

from airflow.providers.common.compat.sdk import conf

from airflow_jobs_provider.airflow_compat.turns import Turns
from airflow_jobs_provider.triggers.polling.rate_limiter import RateLimiter

__all__ = ["HostLimiters", "LaunchLimiter"]

log = logging.getLogger(__name__)

# Launches a second in a workspace that the service allows, for all clients together.
SERVICE_LIMITS = {"runs/submit": 35, "run-now": 20}
# What a triggerer takes of them by default: three triggerers stay below the limits. For each launch
# the pollers read the run and its output, which is within their own rate of 20 requests a second.
DEFAULT_SHARE = 0.25
# Launches in flight of one endpoint, so that slow ones leave room for the pollers' requests.
LAUNCHES_AT_ONCE = 4
# A launch that has waited for so long is logged, once for all that wait.
LOG_AFTER_SECONDS = 5.0
# At most this often.
LOG_EVERY_SECONDS = 600.0


class LaunchLimiter:
    """Limits the rate of the launches of one host through one endpoint. DAGs launch in turn.

    :param host: the host, for the log.
    :param endpoint: the endpoint, for the log.
    :param launches_per_second: the full rate.
    """

    def __init__(self, host: str, endpoint: str, launches_per_second: float) -> None:
        self._host = host
        self._endpoint = endpoint
        self._limiter = RateLimiter(launches_per_second, LAUNCHES_AT_ONCE)
        self._turns = Turns()
        self._logged_at = float("-inf")

    @asynccontextmanager
    async def acquire(self, dag_id: str) -> AsyncIterator[float]:
        """Wait until a launch may be sent, and count it as in flight within the context.

        Yields the time at which it was allowed (monotonic clock).

        :param dag_id: the DAG that launches.
        """
        asked_at = time.monotonic()
        async with AsyncExitStack() as in_flight:
            async with self._turns.turn(dag_id):
                self._log_wait(dag_id, time.monotonic() - asked_at)
                allowed_at = await in_flight.enter_async_context(self._limiter.acquire())
            yield allowed_at

    def slow_down(self, seconds: float, sent_at: float) -> None:
        """Pause all launches, and halve their rate after that; see :meth:`.RateLimiter.slow_down`.

        :param seconds: length of the pause.
        :param sent_at: when the refused launch was sent (monotonic clock).
        """
        self._limiter.slow_down(seconds, sent_at)

    def _log_wait(self, dag_id: str, seconds: float) -> None:
        """Log that launches are held back, once for all of them."""
        now = time.monotonic()
        if seconds < LOG_AFTER_SECONDS or now - self._logged_at < LOG_EVERY_SECONDS:
            return
        self._logged_at = now
        # In a context of its own. In the task's it would be in the log of that task only.
        contextvars.Context().run(
            log.info,
            "Launches are held back (waiting: %d, DAGs: %d). The rate of %s to %s is %g a second, "
            "see [databricks_jobs] launches_per_second, and lower while Airflow stores the ids of "
            "runs more slowly.",
            self._turns.waiting + 1,
            len(self._turns.dag_ids | {dag_id}),
            self._endpoint,
            self._host,
            self._limiter.requests_per_second,
        )


@dataclass(frozen=True, slots=True)
class HostLimiters:
    """The rate limiters of one host.

    :ivar requests: limits all requests but launches. The service limits each endpoint by itself.
    :ivar launches: limit launches, by endpoint.
    """

    requests: RateLimiter
    launches: Mapping[str, LaunchLimiter]

    @classmethod
    def for_host(cls, host: str) -> Self:
        """Return new limiters for a host, with the rates of the configuration.

        :param host: the host.
        """
        rate = _configured_rate()
        return cls(
            RateLimiter(),
            {
                endpoint: LaunchLimiter(host, endpoint, rate or limit * DEFAULT_SHARE)
                for endpoint, limit in SERVICE_LIMITS.items()
            },
        )


def _configured_rate() -> float | None:
    """Return the option ``[databricks_jobs] launches_per_second``; None if it is not given."""
    option = conf.get("databricks_jobs", "launches_per_second", fallback=None)
    if option is None:
        return None
    try:
        rate = float(option)
    except ValueError as error:
        log.warning("[databricks_jobs] launches_per_second is not used: %s", error)
        return None
    if not 0 < rate < float("inf"):
        log.warning("[databricks_jobs] launches_per_second is not used: %g is not positive.", rate)
        return None
    _warn_above_limits(rate)
    return rate


@cache
def _warn_above_limits(rate: float) -> None:
    """Log once that a rate is above what the service allows."""
    limits = [f"{limit} {name}" for name, limit in SERVICE_LIMITS.items() if rate > limit]
    if limits:
        log.warning(
            "[databricks_jobs] launches_per_second is %g, above the published limit of the "
            "service: it allows a workspace %s per second, for all its clients together.",
            rate,
            " and ".join(limits),
        )

"""Limits of a workspace ("Run now", "Runs submit": the limits of a workspace)."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from airflow_jobs_provider.local.engine.store import Store
from airflow_jobs_provider.local.errors import ApiError

__all__ = ["QuotaKeeper", "Quotas"]

_HOUR_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Quotas:
    """The limits of a workspace.

    :param active_task_runs: how many task runs are active at once; beyond it a launch is answered
        429, unless its run may be queued.
    :param jobs_an_hour: how many jobs are created within an hour, one-time runs among them.
    :param saved_jobs: how many jobs there are.
    """

    active_task_runs: int = 1000
    jobs_an_hour: int = 10_000
    saved_jobs: int = 12_000


class QuotaKeeper:
    """Refuses requests beyond the limits.

    :param clock: seconds from any start, only ever growing.
    """

    def __init__(
        self, quotas: Quotas, store: Store, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._quotas = quotas
        self._store = store
        self._clock = clock
        self._created: deque[float] = deque()

    def check_launch(self, task_runs: int) -> None:
        """Refuse a launch that would exceed the limit of active task runs."""
        limit = self._quotas.active_task_runs
        if self._store.active_task_runs() + task_runs > limit:
            raise _too_many(f"The workspace is limited to {limit} concurrent task runs.")

    def check_creation(self) -> None:
        """Refuse to create a job, or the hidden job of a one-time run; note it otherwise."""
        now = self._clock()
        while self._created and self._created[0] <= now - _HOUR_SECONDS:
            self._created.popleft()
        limit = self._quotas.jobs_an_hour
        if len(self._created) >= limit:
            raise _too_many(f"The workspace is limited to {limit} jobs created in an hour.")
        self._created.append(now)

    def check_saving(self) -> None:
        """Refuse one more stored job."""
        limit = self._quotas.saved_jobs
        if self._store.job_count() >= limit:
            raise ApiError(
                HTTPStatus.BAD_REQUEST,
                "QUOTA_EXCEEDED",
                f"The quota for the number of jobs has been reached. The current quota is {limit}.",
            )


def _too_many(message: str) -> ApiError:
    return ApiError(HTTPStatus.TOO_MANY_REQUESTS, "REQUEST_LIMIT_EXCEEDED", message)

"""Names and tags of jobs, for watches that choose runs by them. A list of runs has neither."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_jobs_provider.api.endpoints import get_job
from airflow_jobs_provider.api.errors import (
    AuthenticationError,
    BadRequestError,
    ConflictError,
    JobsAPIError,
)
from airflow_jobs_provider.triggers.polling.rate_limiter import REQUESTS_AT_ONCE

if TYPE_CHECKING:
    from airflow_jobs_provider.triggers.polling.sender import Sender

__all__ = ["KEPT_SECONDS", "JobDetails", "JobDetailsCache"]

log = logging.getLogger(__name__)

# A job that was renamed, or got other tags, is known by them after this time at the latest.
KEPT_SECONDS = 600.0
# A job that cannot be read so often in a row, although the lists of runs can, counts as one without
# name and tags.
MAX_FAILED_READS = 10


@dataclass(frozen=True, slots=True)
class JobDetails:
    """What a watch may choose a run by, of the run's job.

    :ivar name: the job's name; None if the job cannot be read: it was deleted, say.
    :ivar tags: the job's tags.
    """

    name: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


class JobDetailsCache:
    """Reads jobs by their ids, each at most once in :data:`KEPT_SECONDS`.

    :param sender: sends the requests.
    """

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._known: dict[int, tuple[float, JobDetails]] = {}
        # Reads in a row that failed, of the jobs that were asked for last.
        self._failed_reads: dict[int, int] = {}

    async def read(self, job_ids: Collection[int]) -> Mapping[int, JobDetails]:
        """Return the details of jobs, without those that cannot be read for now.

        :param job_ids: the jobs.
        """
        now = time.monotonic()
        self._known = {
            job_id: known for job_id, known in self._known.items() if now - known[0] < KEPT_SECONDS
        }
        unknown = [job_id for job_id in job_ids if job_id not in self._known]
        failed: dict[int, int] = {}
        # In portions: the requests of the poller's waits come in between.
        for start in range(0, len(unknown), REQUESTS_AT_ONCE):
            portion = unknown[start : start + REQUESTS_AT_ONCE]
            details = await asyncio.gather(*(self._read_job(job_id) for job_id in portion))
            for job_id, one in zip(portion, details, strict=True):
                if one is None:
                    failed[job_id] = self._failed_reads.get(job_id, 0) + 1
                else:
                    self._known[job_id] = (now, one)
            if failed.keys() >= set(portion):
                break  # probably an outage
        self._failed_reads = failed
        return {job: self._known[job][1] for job in job_ids if job in self._known}

    async def _read_job(self, job_id: int) -> JobDetails | None:
        """Read a job; return None if it cannot be read for now."""
        try:
            job = await self._sender.send_once(get_job(job_id))
        except JobsAPIError as error:
            # The runs could be read a moment ago, so this concerns the job only.
            if _is_about_job(error):
                log.info("Job %s, of which a run has ended, cannot be read: %s", job_id, error)
                return JobDetails()
            failed_reads = self._failed_reads.get(job_id, 0)
            if failed_reads + 1 < MAX_FAILED_READS:
                if not failed_reads:
                    log.warning("Job %s cannot be read for now: %s", job_id, error)
                return None
            log.warning("Job %s counts as one without name and tags: %s", job_id, error)
            return JobDetails()
        settings: Any = job.get("settings") or {}
        tags: Any = settings.get("tags") or {}
        return JobDetails(settings.get("name"), {str(k): str(v or "") for k, v in tags.items()})


def _is_about_job(error: JobsAPIError) -> bool:
    """Whether the service refuses to show the job: it was deleted, say."""
    if isinstance(error, AuthenticationError):
        return error.status == 403
    return isinstance(error, BadRequestError) and not isinstance(error, ConflictError)

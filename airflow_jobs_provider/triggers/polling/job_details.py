"""Names and tags of jobs, for watches that choose runs by them. A list of runs has neither."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_jobs_provider.api.endpoints import get_job
from airflow_jobs_provider.api.errors import AuthenticationError, BadRequestError, ConflictError

if TYPE_CHECKING:
    from airflow_jobs_provider.triggers.polling.sender import Sender

__all__ = ["KEPT_SECONDS", "JobDetails", "JobDetailsCache"]

log = logging.getLogger(__name__)

# A job that was renamed, or got other tags, is known by them after this time at the latest.
KEPT_SECONDS = 600.0


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

    async def read(self, job_ids: Collection[int]) -> Mapping[int, JobDetails]:
        """Return the details of jobs.

        :param job_ids: the jobs.
        :raises JobsAPIError: the service does not answer.
        """
        now = time.monotonic()
        self._known = {
            job_id: known for job_id, known in self._known.items() if now - known[0] < KEPT_SECONDS
        }
        unknown = [job_id for job_id in job_ids if job_id not in self._known]
        # The rate limiter bounds how many are in flight.
        details = await asyncio.gather(*(self._read_job(job_id) for job_id in unknown))
        self._known |= {job: (now, one) for job, one in zip(unknown, details, strict=True)}
        return {job_id: self._known[job_id][1] for job_id in job_ids}

    async def _read_job(self, job_id: int) -> JobDetails:
        try:
            job = await self._sender.send_once(get_job(job_id))
        except ConflictError:
            raise
        except (AuthenticationError, BadRequestError) as error:
            # The runs could be read a moment ago, so this concerns the job only.
            log.info("Job %s, of which a run has ended, cannot be read: %s", job_id, error)
            return JobDetails()
        settings: Any = job.get("settings") or {}
        tags: Any = settings.get("tags") or {}
        return JobDetails(settings.get("name"), {str(k): str(v or "") for k, v in tags.items()})

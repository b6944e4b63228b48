"""An authorized request of the Jobs API, and the type of the functions that answer it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_jobs_provider.local import checks
from airflow_jobs_provider.local.engine.model import Job, Run
from airflow_jobs_provider.local.engine.responses import run_answer
from airflow_jobs_provider.local.errors import job_does_not_exist, run_does_not_exist
from airflow_jobs_provider.local.service import Service
from airflow_jobs_provider.local.versions import Version

__all__ = ["Call", "Endpoint", "FileContent"]


@dataclass(frozen=True, slots=True)
class Call:
    """An authorized request: its workspace, API version and data."""

    service: Service
    version: Version
    data: Mapping[str, Any]

    def job(self, name: str = "job_id") -> Job:
        """Return the job that the request names."""
        job_id = checks.required_integer(self.data, name)
        job = self.service.store.job(job_id)
        if job is None:
            raise job_does_not_exist(job_id)
        return job

    def run(self) -> Run:
        """Return the run that the request names."""
        run_id = checks.required_integer(self.data, "run_id")
        run = self.service.store.run(run_id)
        if run is None:
            raise run_does_not_exist(run_id)
        return run

    def answer(self, run: Run, *, with_tasks: bool = True, first_task: int = 0) -> dict[str, Any]:
        """Return a run as this version answers it."""
        store = self.service.store
        return run_answer(
            run,
            self.version,
            self.service.base_url,
            lambda parent: store.task_runs([parent.run_id]),
            with_tasks=with_tasks,
            first_task=first_task,
        )


@dataclass(frozen=True, slots=True)
class FileContent:
    """A file as a response.

    :param modified: when it was changed last, in seconds since 1970; None if that is not told.
    """

    content: bytes
    modified: float | None = None


# The answer: JSON, or the content of a file as it is.
Endpoint = Callable[[Call], Awaitable[dict[str, Any] | FileContent]]

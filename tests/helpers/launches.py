"""Runs that no task has launched."""

from __future__ import annotations

from airflow_jobs_provider.api import endpoints
from airflow_jobs_provider.api.auth import Token
from airflow_jobs_provider.api.client import JobsClient
from tests.fakes.fake_service import FakeService, Run

__all__ = ["launch"]


def launch(workspace: FakeService, name: str) -> Run:
    """Launch a run of a new job with this name."""
    job_id = workspace.new_job({"name": name})
    with JobsClient(workspace.url, Token("any")) as client:
        return workspace.run(client.send(endpoints.run_now({"job_id": job_id})))

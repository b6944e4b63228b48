"""The fake service for jobs of several tasks repairs as the real one does."""

from __future__ import annotations

import pytest

from airflow_jobs_provider.api import endpoints
from airflow_jobs_provider.api.auth import Token
from airflow_jobs_provider.api.client import JobsClient
from airflow_jobs_provider.api.errors import BadRequestError
from tests.fakes.fake_service import FakeService, JobRun


def test_the_tasks_that_a_repair_names_run_again() -> None:
    """In a run that has ended, after the latest repair; the others keep their only run."""
    tasks = [{"task_key": key} for key in ("a", "b")]
    with FakeService() as service, JobsClient(service.url, Token("t"), api_version="2.2") as client:
        job_id = client.send(endpoints.create_job({"name": "etl", "tasks": tasks}))
        run_id = client.send(endpoints.run_now({"job_id": job_id}))
        run = service.run(run_id)
        assert isinstance(run, JobRun)
        repair = {"run_id": run_id, "rerun_tasks": ["a"]}
        with pytest.raises(BadRequestError):
            client.send(endpoints.repair_run(repair))
        service.end_task(run, "a", "FAILED")
        service.end_task(run, "b")
        assert client.send(endpoints.get_run(run_id))["state"]["result_state"] == "FAILED"
        repair_id = client.send(endpoints.repair_run(repair))
        service.end_task(run, "a")
        with pytest.raises(BadRequestError):
            client.send(endpoints.repair_run(repair))
        assert client.send(endpoints.get_run(run_id))["state"]["result_state"] == "SUCCESS"
        client.send(endpoints.repair_run({**repair, "latest_repair_id": repair_id}))
        assert [run.attempts(key) for key in ("a", "b")] == [3, 1]
        client.send(endpoints.cancel_run(run.latest["a"].run_id))
        assert (run.latest["a"].cancels, run.result) == (1, "FAILED")

"""Uses prefect-databricks as its users do; run by its own Python, writes what it saw as JSON."""

# mypy: ignore-errors
# prefect is installed only where this is run.

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.testing.utilities import prefect_test_harness
from prefect_databricks import DatabricksCredentials
from prefect_databricks.flows import (
    jobs_runs_submit_and_wait_for_completion,
    jobs_runs_submit_by_id_and_wait_for_completion,
)
from prefect_databricks.jobs import jobs_create, jobs_delete, jobs_list
from prefect_databricks.models.jobs import JobTaskSettings, NotebookTask, RunSubmitTaskSettings

credentials = DatabricksCredentials(
    databricks_instance=os.environ["DATABRICKS_INSTANCE"],
    token=os.environ["DATABRICKS_TOKEN"],
    client_kwargs={"verify": os.environ["CA_FILE"]},
)
POLL = {"poll_frequency_seconds": 0, "max_wait_seconds": 60}


def task(kind: Any, path: str, **parameters: str) -> Any:
    """Return a task that runs a notebook."""
    notebook = NotebookTask(notebook_path=path, base_parameters=parameters)
    return kind(task_key="only", existing_cluster_id="1201-my-cluster", notebook_task=notebook)


@flow
async def drive() -> dict[str, Any]:
    """Submit a run, fail with one, create a job and run it."""
    seen = {}
    seen["submitted"] = await jobs_runs_submit_and_wait_for_completion(
        databricks_credentials=credentials,
        run_name="from Prefect",
        tasks=[task(RunSubmitTaskSettings, "/greet", name="Prefect")],
        **POLL,
    )
    try:
        await jobs_runs_submit_and_wait_for_completion(
            databricks_credentials=credentials,
            run_name="fails",
            tasks=[task(RunSubmitTaskSettings, "/fail")],
            **POLL,
        )
    except Exception as error:  # noqa: BLE001  (whatever its user would get to see)
        seen["failure"] = f"{type(error).__name__}: {error}"
    made = await jobs_create(
        databricks_credentials=credentials,
        name="Prefect's job",
        tasks=[task(JobTaskSettings, "/greet", name="nobody")],
    )
    job_id = made["job_id"]
    listed = await jobs_list(databricks_credentials=credentials)
    seen["listed"] = job_id in [job["job_id"] for job in listed["jobs"]]
    seen["ran"] = await jobs_runs_submit_by_id_and_wait_for_completion(
        databricks_credentials=credentials,
        job_id=job_id,
        notebook_params={"name": "a job"},
        **POLL,
    )
    await jobs_delete(databricks_credentials=credentials, job_id=job_id)
    return seen


with prefect_test_harness(server_startup_timeout=60):
    Path(sys.argv[1]).write_text(json.dumps(asyncio.run(drive())))

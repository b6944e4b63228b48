"""Uses dagster-databricks as its users do; run by its own Python, prints what it saw as JSON."""

# mypy: ignore-errors
# dagster is installed only where this is run.

import io
import json
import os
import sys
from typing import Any

from dagster import DagsterInstance, job
from dagster_databricks import (
    DatabricksClientResource,
    create_databricks_run_now_op,
    create_databricks_submit_run_op,
)
from databricks.sdk.service import jobs

databricks = DatabricksClientResource(
    host=os.environ["DATABRICKS_HOST"], token=os.environ["DATABRICKS_TOKEN"]
)
client = databricks.get_client()
sdk = client.workspace_client
seen = {}


def task(path: str, **parameters: str) -> dict[str, Any]:
    """Return a task that runs a notebook."""
    return {
        "task_key": "only",
        "existing_cluster_id": "1201-my-cluster",
        "notebook_task": {"notebook_path": path, "base_parameters": parameters},
    }


def outcome_of(*ops: Any) -> dict[str, bool]:
    """Run a job of ops one after another; return whether each succeeded."""

    @job(resource_defs={"databricks": databricks})
    def run_all() -> None:
        before = None
        for op in ops:
            before = op() if before is None else op(start_after=before)

    with DagsterInstance.ephemeral() as instance:
        result = run_all.execute_in_process(instance=instance, raise_on_error=False)
    return {op.name: result.is_node_success(op.name) for op in ops}


created = sdk.jobs.create(
    name="Dagster's job", tasks=[jobs.Task.from_dict(task("/greet", name="nobody"))]
)
submit = create_databricks_submit_run_op(
    task("/greet", name="Dagster"), poll_interval_seconds=0.1, name="submit"
)
run_now = create_databricks_run_now_op(
    created.job_id,
    {"notebook_params": {"name": "a job"}},
    poll_interval_seconds=0.1,
    name="run_now",
)
fails = create_databricks_submit_run_op(task("/fail"), poll_interval_seconds=0.1, name="fails")
seen["outcomes"] = outcome_of(submit, run_now, fails)
seen["results"] = [
    sdk.jobs.get_run_output(run.tasks[0].run_id).notebook_output.result
    for run in list(sdk.jobs.list_runs(expand_tasks=True))[2::-1]
]
client.put_file(io.BytesIO(b"of Dagster"), "dbfs:///dagster.txt", overwrite=True)
seen["file"] = client.read_file("dbfs:///dagster.txt").decode()
json.dump(seen, sys.stdout)

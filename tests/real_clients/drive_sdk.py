"""Uses databricks-sdk as its users do; run by its own Python, prints what it saw as JSON."""

# mypy: ignore-errors
# databricks-sdk is installed only where this is run.

import json
import sys
import time
from datetime import timedelta
from typing import Any

from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import DatabricksError
from databricks.sdk.service import jobs

client = WorkspaceClient()
seen = {}


def task(path: str, **parameters: str) -> Any:
    """Return a task that runs a notebook."""
    notebook = jobs.NotebookTask(notebook_path=path, base_parameters=parameters)
    return jobs.SubmitTask(task_key="only", notebook_task=notebook)


def wait_until_running(run_id: int) -> None:
    """Wait until a run is at work."""
    deadline = time.monotonic() + 30
    while client.jobs.get_run(run_id).state.life_cycle_state.value != "RUNNING":
        assert time.monotonic() < deadline
        time.sleep(0.1)


waiter = client.jobs.submit(run_name="from the SDK", tasks=[task("/greet", name="SDK")])
run = waiter.result(timeout=timedelta(minutes=1))
seen["state"] = run.state.result_state.value
seen["output"] = client.jobs.get_run_output(run.tasks[0].run_id).notebook_output.result
try:
    client.jobs.get_run_output(run.run_id)
except DatabricksError as error:
    seen["output_of_parent"] = str(error)
seen["export"] = client.jobs.export_run(run.tasks[0].run_id).views[0].type.value
seen["listed"] = run.run_id in [listed.run_id for listed in client.jobs.list_runs()]

waiter = client.jobs.submit(run_name="fails", tasks=[task("/fail")])
try:
    waiter.result(timeout=timedelta(minutes=1))
except Exception as error:  # noqa: BLE001  (whatever its user would get to see)
    seen["failure"] = str(error)
failed = client.jobs.get_run(waiter.run_id)
seen["error"] = client.jobs.get_run_output(failed.tasks[0].run_id).error

long = client.jobs.submit(run_name="long", tasks=[task("/sleep")])
wait_until_running(long.run_id)
client.jobs.cancel_run(long.run_id).result(timeout=timedelta(minutes=1))
seen["canceled"] = client.jobs.get_run(long.run_id).state.result_state.value

python = jobs.Task(
    task_key="python",
    existing_cluster_id="1201-my-cluster",
    spark_python_task=jobs.SparkPythonTask(python_file="dbfs:/job.py"),
)
job = client.jobs.create(name="SDK job", tasks=[python])
seen["job"] = client.jobs.get(job.job_id).settings.tasks[0].task_key
seen["found"] = [found.job_id for found in client.jobs.list(name="SDK job")] == [job.job_id]
run = client.jobs.run_now(job.job_id, python_params=["a"]).result(timeout=timedelta(minutes=1))
seen["logs"] = client.jobs.get_run_output(run.tasks[0].run_id).logs
repair = client.jobs.repair_run(run.run_id, rerun_tasks=["python"], python_params=["b"])
repaired = repair.result(timeout=timedelta(minutes=1))
seen["attempts"] = [task.attempt_number for task in repaired.tasks]
seen["repaired_logs"] = client.jobs.get_run_output(repaired.tasks[-1].run_id).logs
history = client.jobs.get_run(run.run_id, include_history=True).repair_history
seen["history"] = [item.type.value for item in history]
seen["repair_is_known"] = history[-1].id == repair.response.repair_id
try:
    client.jobs.repair_run(run.run_id, rerun_tasks=["python"])
except DatabricksError as error:
    seen["second_repair"] = str(error)
client.jobs.update(job.job_id, new_settings=jobs.JobSettings(name="renamed"))
seen["renamed"] = client.jobs.get(job.job_id).settings.name
client.jobs.delete_run(run.run_id)
client.jobs.delete(job.job_id)
try:
    client.jobs.get(job.job_id)
except DatabricksError as error:
    seen["gone"] = f"{type(error).__name__}: {error}"
for _ in range(24):
    client.jobs.submit(
        tasks=[jobs.SubmitTask(task_key="p", pipeline_task=jobs.PipelineTask(pipeline_id="x"))]
    )
seen["all_pages"] = len(list(client.jobs.list_runs()))
seen["job_id"], seen["run_id"] = job.job_id, failed.run_id
json.dump(seen, sys.stdout)

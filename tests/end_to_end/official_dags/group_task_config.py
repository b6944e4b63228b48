from __future__ import annotations

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG
from airflow.providers.databricks.operators.databricks import DatabricksTaskOperator
from airflow.providers.databricks.operators.databricks_workflow import DatabricksWorkflowTaskGroup

cluster = {"spark_version": "15.4.x-scala2.12", "node_type_id": "i3.xlarge", "num_workers": 1}
task_configs = {
    "notebook": {
        "notebook_task": {"notebook_path": "/Shared/greet", "source": "WORKSPACE"},
        "libraries": [{"pypi": {"package": "simplejson"}}],
    },
    "python_file": {
        "spark_python_task": {"python_file": "/etl.py", "parameters": ["a", "b"]},
        "timeout_seconds": 600,
    },
    "retried": {
        "notebook_task": {"notebook_path": "/Shared/greet", "base_parameters": {"name": "Ada"}},
        "max_retries": 2,
        "min_retry_interval_millis": 1000,
    },
    "condition": {"condition_task": {"op": "EQUAL_TO", "left": "1", "right": "1"}},
}

with (
    DAG("group_task_config", schedule=None, start_date=datetime(2024, 1, 1)) as dag,
    DatabricksWorkflowTaskGroup(
        group_id="workflow",
        databricks_conn_id="databricks_default",
        job_clusters=[{"job_cluster_key": "small", "new_cluster": cluster}],
        max_concurrent_runs=3,
        extra_job_params={"tags": {"team": "sales"}, "timeout_seconds": 3600},
    ),
):
    previous = None
    for number, (task_id, config) in enumerate(task_configs.items()):
        task = DatabricksTaskOperator(
            task_id=task_id,
            databricks_conn_id="databricks_default",
            databricks_task_key=task_id,
            task_config=config,
            job_cluster_key="" if task_id == "condition" else "small",
            deferrable=number % 2 == 0,
            polling_period_seconds=1,
        )
        if previous is not None:
            previous >> task
        previous = task

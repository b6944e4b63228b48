from __future__ import annotations

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG
from airflow.providers.databricks.operators.databricks import DatabricksTaskOperator
from airflow.providers.databricks.operators.databricks_workflow import DatabricksWorkflowTaskGroup

cluster = {"spark_version": "15.4.x-scala2.12", "node_type_id": "i3.xlarge", "num_workers": 1}
task_configs = {
    "wheel": {
        "python_wheel_task": {
            "package_name": "etl",
            "entry_point": "main",
            "named_parameters": {"day": "monday"},
        },
        "libraries": [{"whl": "dbfs:/wheels/etl-1.0-py3-none-any.whl"}],
    },
    "jar": {
        "spark_jar_task": {"main_class_name": "com.example.Etl", "parameters": ["--day"]},
        "libraries": [{"jar": "dbfs:/jars/etl.jar"}],
    },
    "pipeline": {"pipeline_task": {"pipeline_id": "a12cd3e4-0ab1-1abc-1a2b-1a2bcd3e4fg5"}},
}

with (
    DAG("group_dry_run", schedule=None, start_date=datetime(2024, 1, 1)) as dag,
    DatabricksWorkflowTaskGroup(
        group_id="workflow",
        databricks_conn_id="databricks_staging",
        job_clusters=[{"job_cluster_key": "small", "new_cluster": cluster}],
        python_params=["2024-01-01"],
        jar_params=["2024-01-01"],
        extra_job_params={"tags": {"team": "sales"}, "timeout_seconds": 3600},
    ),
):
    previous = None
    for number, (task_id, config) in enumerate(task_configs.items()):
        task = DatabricksTaskOperator(
            task_id=task_id,
            databricks_conn_id="databricks_staging",
            databricks_task_key=task_id,
            task_config=config,
            job_cluster_key="" if task_id == "pipeline" else "small",
            deferrable=number % 2 == 0,
            polling_period_seconds=1,
        )
        if previous is not None:
            previous >> task
        previous = task

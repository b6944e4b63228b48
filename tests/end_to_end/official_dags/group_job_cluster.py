from __future__ import annotations

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG, task
from airflow.providers.databricks.operators.databricks import DatabricksNotebookOperator
from airflow.providers.databricks.operators.databricks_workflow import DatabricksWorkflowTaskGroup

job_clusters = [
    {
        "job_cluster_key": "Shared_job_cluster",
        "new_cluster": {
            "cluster_name": "",
            "spark_version": "15.4.x-scala2.12",
            "aws_attributes": {"first_on_demand": 1, "availability": "SPOT_WITH_FALLBACK"},
            "node_type_id": "i3.xlarge",
            "spark_env_vars": {"PYSPARK_PYTHON": "/databricks/python3/bin/python3"},
            "enable_elastic_disk": False,
            "data_security_mode": "LEGACY_SINGLE_USER_STANDARD",
            "runtime_engine": "STANDARD",
            "num_workers": 8,
        },
    }
]

with DAG("group_job_cluster", schedule="@daily", start_date=datetime(2024, 1, 1)) as dag:

    @task
    def report(run: dict[str, object]) -> list[str]:
        return sorted(run)

    group = DatabricksWorkflowTaskGroup(
        group_id="workflow",
        databricks_conn_id="databricks_default",
        job_clusters=job_clusters,
        notebook_params={"ts": "{{ ts }}"},
        notebook_packages=[{"pypi": {"package": "simplejson"}}],
        extra_job_params={"email_notifications": {"on_start": ["team@example.com"]}},
    )
    with group:
        load = DatabricksNotebookOperator(
            task_id="load",
            databricks_conn_id="databricks_default",
            notebook_path="/Shared/greet",
            notebook_packages=[{"pypi": {"package": "Faker"}}],
            source="WORKSPACE",
            job_cluster_key="Shared_job_cluster",
            execution_timeout=None,
            polling_period_seconds=1,
        )
        clean = DatabricksNotebookOperator(
            task_id="clean",
            databricks_conn_id="databricks_default",
            notebook_path="/Shared/greet",
            notebook_params={"name": "clean"},
            source="WORKSPACE",
            job_cluster_key="Shared_job_cluster",
            deferrable=True,
            polling_period_seconds=1,
        )
        not_waited_for = DatabricksNotebookOperator(
            task_id="not_waited_for",
            databricks_conn_id="databricks_default",
            databricks_task_key="not_waited_for",
            notebook_path="/Shared/greet",
            source="WORKSPACE",
            job_cluster_key="Shared_job_cluster",
            wait_for_termination=False,
        )
        load >> clean >> not_waited_for
    group >> report(group.children["workflow.launch"].output)

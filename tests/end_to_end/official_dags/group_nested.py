from __future__ import annotations

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG, TaskGroup, task
from airflow.providers.databricks.operators.databricks import (
    DatabricksNotebookOperator,
    DatabricksTaskOperator,
)
from airflow.providers.databricks.operators.databricks_workflow import DatabricksWorkflowTaskGroup

arguments = {
    "databricks_conn_id": "databricks_default",
    "existing_cluster_id": "0923-164208-meows279",
    "polling_period_seconds": 1,
}
greet = {"notebook_path": "/Shared/greet", "source": "WORKSPACE", **arguments}

with DAG("group_nested", schedule=None, start_date=datetime(2024, 1, 1)) as dag:

    @task
    def begin() -> str:
        return "begun"

    @task(trigger_rule="none_failed")
    def end() -> str:
        return "ended"

    with TaskGroup("outer"):
        with DatabricksWorkflowTaskGroup(
            group_id="first", databricks_conn_id="databricks_default"
        ) as first:
            one = DatabricksNotebookOperator(task_id="one", **greet)
            with TaskGroup("inner"):
                two = DatabricksNotebookOperator(task_id="two", deferrable=True, **greet)
                three = DatabricksTaskOperator(
                    task_id="three",
                    task_config={"spark_python_task": {"python_file": "/etl.py"}},
                    **arguments,
                )
                two >> three
            one >> two
        with DatabricksWorkflowTaskGroup(
            group_id="second", databricks_conn_id="databricks_default"
        ) as second:
            four = DatabricksNotebookOperator(
                task_id="four", notebook_params={"name": "four"}, **greet
            )
    begin() >> first >> second >> end()

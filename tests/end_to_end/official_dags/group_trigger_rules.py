from __future__ import annotations

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG
from airflow.providers.databricks.operators.databricks import DatabricksNotebookOperator
from airflow.providers.databricks.operators.databricks_workflow import DatabricksWorkflowTaskGroup

with (
    DAG("group_trigger_rules", schedule=None, start_date=datetime(2024, 1, 1)) as dag,
    DatabricksWorkflowTaskGroup(
        group_id="workflow",
        databricks_conn_id="databricks_default",
        existing_clusters=["0923-164208-meows279"],
    ),
):

    def notebook(
        task_id: str, path: str = "/Shared/greet", **arguments: object
    ) -> DatabricksNotebookOperator:
        return DatabricksNotebookOperator(
            task_id=task_id,
            notebook_path=path,
            source="WORKSPACE",
            existing_cluster_id="0923-164208-meows279",
            polling_period_seconds=1,
            **arguments,
        )

    good = notebook("good")
    bad = notebook("bad", "/Shared/raise")
    bad_deferred = notebook("bad_deferred", "/Shared/raise", deferrable=True)
    [good, bad, bad_deferred] >> notebook("all_success")
    [good, bad, bad_deferred] >> notebook("all_done", trigger_rule="all_done")
    [good, bad, bad_deferred] >> notebook("one_success", trigger_rule="one_success")
    [good, bad, bad_deferred] >> notebook("one_failed", trigger_rule="one_failed")
    [good, bad, bad_deferred] >> notebook("none_failed", trigger_rule="none_failed")
    [bad, bad_deferred] >> notebook("all_failed", trigger_rule="all_failed", deferrable=True)
    good >> notebook("not_needed", trigger_rule="one_failed")
    good >> notebook("not_needed_deferred", trigger_rule="all_failed", deferrable=True)

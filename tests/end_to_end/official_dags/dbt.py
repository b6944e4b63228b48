from __future__ import annotations

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG
from airflow.providers.databricks.operators.databricks import (
    DatabricksCreateJobsOperator,
    DatabricksRunNowOperator,
    DatabricksSubmitRunOperator,
)

git_source = {
    "git_url": "https://github.com/example/dbt",
    "git_provider": "gitHub",
    "git_branch": "main",
}
dbt_task = {"commands": ["dbt deps", "dbt run"], "warehouse_id": "583f4aa5e7cc7c3d"}

with DAG(
    "dbt",
    schedule=None,
    start_date=datetime(2024, 1, 1),
    default_args={"databricks_conn_id": "databricks_staging"},
) as dag:
    submit = DatabricksSubmitRunOperator(
        task_id="submit",
        new_cluster={
            "spark_version": "15.4.x-scala2.12",
            "node_type_id": "i3.xlarge",
            "num_workers": 1,
        },
        dbt_task=dbt_task,
        git_source=git_source,
        libraries=[{"pypi": {"package": "dbt-databricks>=1.0.0,<2.0.0"}}],
        polling_period_seconds=1,
    )
    create = DatabricksCreateJobsOperator(
        task_id="create",
        name="official dbt",
        git_source=git_source,
        tasks=[
            {
                "task_key": "dbt",
                "existing_cluster_id": "0923-164208-meows279",
                "dbt_task": dbt_task,
            }
        ],
    )
    run_now = DatabricksRunNowOperator(
        task_id="run_now",
        job_name="official dbt",
        dbt_commands=["dbt test"],
        polling_period_seconds=1,
    )
    submit >> create >> run_now

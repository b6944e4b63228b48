"""A deferred task for each authentication method, and tasks whose secret is refused."""

from __future__ import annotations

import os
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_jobs_provider.operators.jobs import DatabricksSubmitRunOperator

IMPATIENT: dict[str, Any] = {"databricks_retry_delay": 0.01, "polling_period_seconds": 0.05}

with DAG("keeping_tokens", schedule=None, catchup=False):
    # The test names the connections.
    for conn_id in os.environ["CONNECTIONS_OF_THE_TEST"].split():
        DatabricksSubmitRunOperator(
            task_id=conn_id,
            databricks_conn_id=conn_id,
            existing_cluster_id="cluster",
            notebook_task={"notebook_path": "/work", "base_parameters": {"day": "{{ ds }}"}},
            deferrable=not conn_id.startswith("blocking_"),
            **IMPATIENT,
        )

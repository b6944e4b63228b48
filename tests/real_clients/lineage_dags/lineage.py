"""Tasks of all kinds, for the events that OpenLineage's provider emits; see test_openlineage.py."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import DAG, XComArg

from airflow_jobs_provider.operators.jobs import (
    DatabricksNotebookOperator,
    DatabricksRunNowOperator,
    DatabricksSubmitRunOperator,
)
from airflow_jobs_provider.operators.workflow import DatabricksWorkflowTaskGroup
from airflow_jobs_provider.sensors.jobs import DatabricksJobRunSensor

CLUSTER: Any = {
    "spark_version": "15.4.x-scala2.12",
    "node_type_id": "i3.xlarge",
    "num_workers": 1,
}
INJECTED: dict[str, Any] = {
    "openlineage_inject_parent_job_info": True,
    "openlineage_inject_transport_info": True,
}


def notebook(path: str) -> dict[str, Any]:
    """Make a notebook task."""
    return {"notebook_path": path, "base_parameters": {"who": "lineage"}}


with DAG("lineage", schedule=None, default_args={"retries": 0}):
    blocking = DatabricksSubmitRunOperator(
        task_id="blocking",
        new_cluster=CLUSTER,
        notebook_task=notebook("/etl"),
        polling_period_seconds=0.2,
        **INJECTED,
    )
    deferrable = DatabricksSubmitRunOperator(
        task_id="deferrable",
        polling_period_seconds=0.2,
        deferrable=True,
        # With listeners a worker ends it, and starts one that could start in the triggerer.
        end_from_trigger=True,
        tasks=[
            {"task_key": key, "new_cluster": CLUSTER, "notebook_task": notebook("/etl")}
            for key in ("load", "report")
        ],
        **INJECTED,
    )
    failing = DatabricksRunNowOperator(
        task_id="failing",
        job_name="nightly",
        polling_period_seconds=0.2,
        deferrable=True,
        openlineage_inject_parent_job_info=True,
    )
    alone = DatabricksNotebookOperator(
        task_id="alone",
        notebook_path="/etl",
        source="WORKSPACE",
        new_cluster=CLUSTER,
        wait_for_termination=False,
        **INJECTED,
    )
    launched: Any = XComArg(blocking, "run_id")
    sensor = DatabricksJobRunSensor(task_id="sensor", run_id=launched, poke_interval=0.2)
    with DatabricksWorkflowTaskGroup(
        group_id="group",
        job_clusters=[{"job_cluster_key": "small", "new_cluster": CLUSTER}],
        openlineage_inject_parent_job_info=True,
    ):
        member = DatabricksNotebookOperator(
            task_id="member",
            notebook_path="/etl",
            source="WORKSPACE",
            job_cluster_key="small",
            databricks_task_key="member",
            polling_period_seconds=0.2,
            deferrable=True,
        )
    [alone, member] >> failing

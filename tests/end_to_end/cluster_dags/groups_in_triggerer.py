"""Workflow groups without workers; see test_groups_in_triggerer.py.

The parameter ``dag_run`` tells the workspace which DAG run has launched a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, BaseOperator

from airflow_jobs_provider.airflow_compat.start_in_triggerer import renders_in_triggerer
from airflow_jobs_provider.operators.jobs import DatabricksNotebookOperator
from airflow_jobs_provider.operators.workflow import DatabricksWorkflowTaskGroup

PAIR = ("a", "b")
TEN = tuple(f"n{number}" for number in range(10))


def group(
    dag_id: str,
    names: Sequence[str] = PAIR,
    *,
    is_chain: bool = False,
    of_first: dict[str, Any] | None = None,
    cluster: str = "c",
    **arguments: Any,
) -> DAG:
    """Make a DAG of a group of notebooks, and a task before it and one after it.

    :param dag_id: the DAG.
    :param names: the tasks, by their Databricks keys.
    :param is_chain: whether each task depends on the one before it.
    :param of_first: arguments of the first task alone.
    :param cluster: the cluster of all tasks; a template is a part of the job's definition.
    :param arguments: arguments of all tasks, the launching one included.
    """
    common = {
        "retries": 0,
        "retry_delay": timedelta(seconds=0.1),
        "start_from_trigger": True,
        "end_from_trigger": True,
        **arguments,
    }
    with (
        DAG(dag_id, schedule=None, catchup=False, max_active_runs=50, default_args=common) as dag,
        DatabricksWorkflowTaskGroup(
            group_id="g", notebook_params={"dag_run": "{{ run_id }}"}, max_concurrent_runs=50
        ),
    ):
        before: BaseOperator | None = None
        for name in names:
            task = DatabricksNotebookOperator(
                task_id=name,
                databricks_task_key=name,
                notebook_path=f"/Shared/{name}",
                source="WORKSPACE",
                existing_cluster_id=cluster,
                polling_period_seconds=1,
                **((of_first or {}) if name == names[0] else {}),
            )
            if is_chain and before is not None:
                before >> task
            before = task
    return dag


if renders_in_triggerer():
    triggered_pair = group("triggered_pair")
    triggered_chain = group("triggered_chain", is_chain=True)
    triggered_pair_retried = group("triggered_pair_retried", retries=3)
    triggered_pair_timed = group(
        "triggered_pair_timed", of_first={"execution_timeout": timedelta(seconds=15)}
    )
    triggered_own_definition = group("triggered_own_definition", cluster="c-{{ run_id }}")
    triggered_ten = group("triggered_ten", TEN)

"""DAGs with a workflow group; see test_workflow_user_actions.py.

The tasks of those whose ids begin with ``workerless`` need no worker. The parameter ``dag_run``
tells the workspace which DAG run has launched a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task_group

from airflow_jobs_provider.airflow_compat.start_in_triggerer import renders_in_triggerer
from airflow_jobs_provider.operators.jobs import DatabricksNotebookOperator
from airflow_jobs_provider.operators.workflow import DatabricksWorkflowTaskGroup

PAIR = ("a", "b")
TEN = [f"n{number}" for number in range(10)]
GROUP: dict[str, Any] = {
    "group_id": "g",
    "notebook_params": {"dag_run": "{{ run_id }}"},
    "max_concurrent_runs": 50,
}


def group(
    dag_id: str,
    names: Sequence[str],
    *,
    of_first: dict[str, Any] | None = None,
    is_chain: bool = False,
    cluster: str = "c",
    deferrable: bool = True,
    **arguments: Any,
) -> DAG:
    """Make a DAG of a group of notebooks.

    :param dag_id: the DAG.
    :param names: the tasks, by their Databricks keys.
    :param of_first: arguments of the first task alone.
    :param is_chain: whether each task depends on the one before it.
    :param cluster: the cluster of all tasks; a template is a part of the job's definition.
    :param deferrable: whether the tasks wait in the triggerer, and not on a worker.
    :param arguments: arguments of all tasks, the launching one included.
    """
    before = None
    common = {"retries": 0, "retry_delay": timedelta(seconds=0.1), **arguments}
    with (
        DAG(dag_id, schedule=None, catchup=False, max_active_runs=50, default_args=common) as dag,
        DatabricksWorkflowTaskGroup(**GROUP),
    ):
        for name in names:
            more = (of_first or {}) if name == names[0] else {}
            task = notebook(name, existing_cluster_id=cluster, deferrable=deferrable, **more)
            if is_chain and before is not None:
                before >> task
            before = task
    return dag


def notebook(name: str, **arguments: Any) -> DatabricksNotebookOperator:
    """Make a notebook whose Databricks key is its name."""
    return DatabricksNotebookOperator(
        task_id=name,
        databricks_task_key=name,
        notebook_path=f"/Shared/{name}",
        source="WORKSPACE",
        polling_period_seconds=1,
        **arguments,
    )


pair = group("pair", PAIR)
pair_retried = group("pair_retried", PAIR, retries=3)
pair_timed = group("pair_timed", PAIR, of_first={"execution_timeout": timedelta(seconds=20)})
chain_retried = group("chain_retried", PAIR, is_chain=True, retries=3)
group_blocking = group("group_blocking", PAIR, deferrable=False)
group_blocking_retried = group("group_blocking_retried", PAIR, deferrable=False, retries=3)
ten = group("ten", TEN)
ten_retried = group("ten_retried", TEN, retries=1)
changed = group("changed", PAIR)
own_definition = group("own_definition", PAIR, cluster="c-{{ run_id }}")

with DAG("group_mapped", schedule=None, catchup=False) as group_mapped:

    @task_group
    def each(cluster: str) -> None:
        """Run a pair whose definition depends on the map index."""
        with DatabricksWorkflowTaskGroup(**GROUP):
            for name in PAIR:
                notebook(name, existing_cluster_id=cluster, deferrable=True)

    each.expand(cluster=["one", "two"])

if renders_in_triggerer():
    workerless: dict[str, Any] = {"start_from_trigger": True, "end_from_trigger": True}
    workerless_pair = group("workerless_pair", PAIR, **workerless)
    workerless_chain = group("workerless_chain", PAIR, is_chain=True, **workerless)
    workerless_pair_retried = group("workerless_pair_retried", PAIR, retries=3, **workerless)
    workerless_pair_timed = group(
        "workerless_pair_timed",
        PAIR,
        of_first={"execution_timeout": timedelta(seconds=20)},
        **workerless,
    )
    workerless_own_definition = group(
        "workerless_own_definition", PAIR, cluster="c-{{ run_id }}", **workerless
    )
    workerless_ten = group("workerless_ten", TEN, **workerless)

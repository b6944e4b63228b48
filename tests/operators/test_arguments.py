"""What the operators' arguments may be; mypy, which checks the tests, too, has its say here."""

from __future__ import annotations

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_jobs_provider.api.errors import InvalidRequestError
from airflow_jobs_provider.api.schema.types import NewCluster, NotebookTask
from airflow_jobs_provider.operators.jobs import (
    DatabricksCancelRunsOperator,
    DatabricksRunNowOperator,
    DatabricksSubmitRunOperator,
)


def test_every_argument_takes_what_another_task_returns() -> None:
    """Whole, or within a structure; the task then comes after that one."""
    with DAG("d", schedule=None):
        first = DatabricksSubmitRunOperator(
            task_id="first",
            existing_cluster_id="c",
            notebook_task={"notebook_path": "/n"},
        )
        submit = DatabricksSubmitRunOperator(
            task_id="submit",
            existing_cluster_id=first.output,
            notebook_task=first.output,
            libraries=first.output,
            timeout_seconds=first.output,
        )
        run_now = DatabricksRunNowOperator(
            task_id="run_now", job_id=first.output, notebook_params={"day": first.output}
        )
        cancel = DatabricksCancelRunsOperator(task_id="cancel", run_id=first.output)
    assert first.downstream_task_ids == {submit.task_id, run_now.task_id, cancel.task_id}


def test_structures_of_the_reference_are_arguments() -> None:
    """With the editor's completion; a field that the reference does not know is passed on."""
    cluster: NewCluster = {
        "spark_version": "15.4.x-scala2.12",
        "node_type_id": "i3.xlarge",
        "num_workers": 2,
    }
    task: NotebookTask = {"notebook_path": "/n"}
    operator = DatabricksSubmitRunOperator(
        task_id="submit", new_cluster=cluster, notebook_task={**task, "of_tomorrow": True}
    )
    assert operator.request()["notebook_task"] == {"notebook_path": "/n", "of_tomorrow": True}
    with pytest.raises(InvalidRequestError, match="notebook_path"):
        DatabricksSubmitRunOperator(
            task_id="submit", new_cluster=cluster, notebook_task={"notebook_path": "n"}
        )

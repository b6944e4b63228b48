"""Options of Airflow's configuration that constructors read once for a DAG."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, conf

from airflow_jobs_provider.operators import dag_options
from airflow_jobs_provider.operators.jobs import DatabricksNotebookOperator

OPTION = "AIRFLOW__OPENLINEAGE__SPARK_INJECT_PARENT_JOB_INFO"


def notebook(task_id: str) -> DatabricksNotebookOperator:
    """Return an operator for a notebook."""
    return DatabricksNotebookOperator(
        task_id=task_id, notebook_path="/n", source="WORKSPACE", existing_cluster_id="c"
    )


def test_an_option_is_read_once_for_a_dag(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many operators the DAG has."""
    read: list[tuple[str, str]] = []

    class Conf:
        """Notes what is read."""

        def get(self, section: str, option: str, **kwargs: Any) -> Any:
            read.append((section, option))
            return conf.get(section, option, **kwargs)

        def getboolean(self, section: str, option: str, **kwargs: Any) -> Any:
            read.append((section, option))
            return conf.getboolean(section, option, **kwargs)

    monkeypatch.setattr(dag_options, "conf", Conf())
    with DAG("many", schedule=None):
        for number in range(3):
            notebook(f"n{number}")
    assert ("openlineage", "spark_inject_parent_job_info") in read
    assert ("databricks_jobs", "start_from_trigger") in read
    assert len(read) == len(set(read))


def test_another_dag_reads_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """And so does each operator without a DAG."""
    with DAG("first", schedule=None):
        assert not notebook("a").openlineage_inject_parent_job_info
    assert not notebook("b").openlineage_inject_parent_job_info
    monkeypatch.setenv(OPTION, "true")
    with DAG("second", schedule=None):
        assert notebook("a").openlineage_inject_parent_job_info
    assert notebook("b").openlineage_inject_parent_job_info

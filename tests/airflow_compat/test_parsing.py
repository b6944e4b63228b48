"""Whether a DAG file is parsed to execute a task."""

from __future__ import annotations

import sys

import pytest

from airflow_jobs_provider.airflow_compat.lines import airflow_version
from airflow_jobs_provider.airflow_compat.parsing import is_parsed_for_execution
from tests.helpers.tasks import parsed_for_a_task


def test_not_while_tests_run() -> None:
    """Nor in the DAG processor, nor on the command line."""
    assert not is_parsed_for_execution()


def test_in_a_process_that_airflow_has_told_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow names the task before it parses the file."""
    parsed_for_a_task(monkeypatch)
    assert is_parsed_for_execution()


@pytest.mark.skipif(airflow_version() < (3, 0), reason="Airflow 2 has no supervisors")
def test_not_in_a_process_that_a_task_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """It inherits the environment, where Airflow names the task, but has no supervisor."""
    parsed_for_a_task(monkeypatch)
    task_runner = sys.modules["airflow.sdk.execution_time.task_runner"]
    monkeypatch.delattr(task_runner, "SUPERVISOR_COMMS")
    assert not is_parsed_for_execution()

"""For what a DAG file is parsed: to execute a task, to call callbacks, or to store the DAG."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

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


# A DAG file whose requests the reference forbids. Its callback tells that it was called.
DAG_FILE = """
from pathlib import Path
from airflow.sdk import DAG, TaskGroup
from airflow_jobs_provider.operators import jobs

def failed(context):
    Path(__file__).with_suffix(".called").touch()

with DAG("etl", schedule=None, on_failure_callback=failed):
    TASK
"""
FORBIDDEN = (
    'jobs.DatabricksSubmitRunOperator(task_id="t", notebook_task={"notebook_path": "x"})',
    'jobs.DatabricksRunNowOperator(task_id="t", job_id=1, notebook_params={1: []})',
    'jobs.DatabricksCreateJobsOperator(task_id="t", name="n", notebook_task={})',
    'jobs.DatabricksNotebookOperator(task_id="t", notebook_path="x", source="WORKSPACE")',
)


def parsed(file: Path, *, calls_back: bool) -> Any:
    """Parse a DAG file as a process of Airflow 3's DAG processor does."""
    processor: Any = pytest.importorskip("airflow.dag_processing.processor")
    if not hasattr(processor, "DagFileParseRequest"):
        pytest.skip("Airflow 2 stores the DAG in the same process")
    from airflow.callbacks.callback_requests import DagCallbackRequest

    callback: dict[str, Any] = {"dag_id": "etl", "run_id": "r", "bundle_version": None}
    request: dict[str, Any] = {
        "file": str(file),
        "bundle_path": file.parent,
        "bundle_name": "dags",
        "callback_requests": [
            DagCallbackRequest(filepath=file.name, bundle_name="dags", msg=None, **callback)
        ],
    }
    if not calls_back:
        del request["callback_requests"]
    log = importlib.import_module("structlog").get_logger()
    return processor._parse_file(processor.DagFileParseRequest(**request), log)


@pytest.mark.parametrize("task", FORBIDDEN)
def test_a_process_that_calls_callbacks_does_not_validate(task: str, tmp_path: Path) -> None:
    """The process that stores the DAG tells what is wrong."""
    file = tmp_path / "etl.py"
    file.write_text(DAG_FILE.replace("TASK", task))
    assert parsed(file, calls_back=True) is None
    assert file.with_suffix(".called").exists()
    stored = parsed(file, calls_back=False)
    assert not stored.serialized_dags
    assert "InvalidRequestError" in str(stored.import_errors)

"""An Airflow of the tests' own, with an empty database. Copy this file beside your tests.

``pip install 'airflow-jobs-provider[testing]'`` brings pytest's fixture ``databricks_workspace``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

DAGS = Path(__file__).parent.parent

# Airflow reads these when it is imported, so they are set before.
_HOME = tempfile.mkdtemp(prefix="airflow-tests-")
os.environ["AIRFLOW_HOME"] = _HOME
os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = str(DAGS)
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
# Not the database and the connections that the environment may name.
os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"sqlite:///{_HOME}/airflow.db"
os.environ["AIRFLOW__SECRETS__BACKEND"] = ""


@pytest.fixture(scope="session")
def airflow_database() -> Iterator[None]:
    """The metadata database, made once for all tests."""
    migrate = [sys.executable, "-m", "airflow", "db", "migrate"]
    subprocess.run(migrate, check=True, capture_output=True)
    yield
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture
def run_dag(airflow_database: None) -> Callable[..., Any]:
    """Run a DAG to its end in this process, deferred tasks too, and return its DAG run."""

    def run(dag_id: str, conf: dict[str, Any] | None = None) -> Any:
        try:
            dagbag = import_module("airflow.dag_processing.dagbag")
        except ImportError:  # Airflow before 3.2
            dagbag = import_module("airflow.models.dagbag")
        bag = dagbag.DagBag(dag_folder=str(DAGS / f"{dag_id}.py"))
        assert not bag.import_errors, bag.import_errors
        dag = bag.dags[dag_id]
        for task in dag.tasks:
            # A retry at once, so that a test sees what a retry does. Airflow 3.3 ignores its option
            # default_task_retries in dag.test().
            task.retries, task.retry_delay = task.retries or 1, timedelta(0)
        return dag.test(run_conf=conf)

    return run

"""A DAG run takes longer than its ``dagrun_timeout`` at the moment when its task defers.

What Airflow stores then decides whether the run of the task is canceled: a triggerer cancels it
where the task is no longer deferred, and the task's process where the deferral is refused.
test_user_actions.py and test_refused_deferrals.py have that.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.airflow_env import ROOT, airflow_environment
from scripts.services import PostgresServer
from tests.end_to_end.airflow_versions import RENDERS_IN_TRIGGERER
from tests.end_to_end.cluster_database import DATABASE_OPTION

HERE = Path(__file__).parent
DAG_FILE = """
from datetime import timedelta

from airflow.sdk import DAG, BaseOperator

with DAG("limited", schedule=None, dagrun_timeout=timedelta(minutes=1)):
    BaseOperator(task_id="wait")
"""


def states(home: Path, database: str) -> dict[str, list[str]]:
    """Return the states of DAG run and task, by the order in which scheduler and task acted."""
    dags = home / "dags"
    dags.mkdir()
    (dags / "limited.py").write_text(DAG_FILE)
    environment = airflow_environment(home, dags, connection=None)
    environment |= {DATABASE_OPTION: database, "PYTHONPATH": str(ROOT)}
    script = [str(HERE / "timed_out_deferrals.py"), str(dags)]
    for arguments in (["-m", "airflow", "db", "migrate"], script):
        done = subprocess.run(
            [sys.executable, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


@pytest.mark.distributed
@pytest.mark.thorough
def test_postgres(postgres: PostgresServer, tmp_path: Path) -> None:
    """It locks the row of the task: the task is skipped, whichever comes first."""
    found = states(tmp_path, f"{postgres.url}/postgres")
    assert found == {
        "deferral first": ["failed", "skipped"],
        "meanwhile": ["failed", "skipped"],
    }


@pytest.mark.standalone
@pytest.mark.thorough
@pytest.mark.skipif(not RENDERS_IN_TRIGGERER, reason="the script is for Airflow 3.3")
def test_sqlite(tmp_path: Path) -> None:
    """A known limit: SQLite locks no rows, and the task stays deferred."""
    found = states(tmp_path, f"sqlite:///{tmp_path}/airflow.db?timeout=60")
    assert found == {
        "deferral first": ["failed", "skipped"],
        "meanwhile": ["failed", "deferred"],
    }

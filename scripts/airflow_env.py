"""The environment of an Airflow that is ours alone: own home, own database, loopback only."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_jobs_provider.local.workspace import LocalWorkspace

__all__ = [
    "DEMO_HOME",
    "EXAMPLE_DAGS",
    "ROOT",
    "WORKSPACE_PORT",
    "airflow_environment",
    "connection_to",
    "write_private_file",
]

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE_DAGS = ROOT / "example_dags"
DEMO_HOME = ROOT / ".demo"
# The same for "make demo" and "make airflow", so that the pages of runs stay where they were.
WORKSPACE_PORT = 8421


def airflow_environment(home: Path, dags: Path, *, connection: str | None) -> dict[str, str]:
    """Return the environment for an Airflow that shares nothing with another one on this machine.

    :param home: the AIRFLOW_HOME, where database and logs go.
    :param dags: folder of the DAG files.
    :param connection: what AIRFLOW_CONN_DATABRICKS_DEFAULT shall say, if anything.
    """
    env = {
        name: value
        for name, value in os.environ.items()
        # The user's own Airflow may have its database or its connections named here.
        if not name.startswith(("AIRFLOW", "_AIRFLOW", "PYTHONPATH", "PYTHONHOME"))
    }
    env |= {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        # By default 30 s, which the first import of a DAG file may take on a busy machine.
        "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "240",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', '')}",
        "PYTHONUNBUFFERED": "1",
        # A proxy is not the way to this machine.
        "NO_PROXY": _with_loopback(env.get("NO_PROXY") or env.get("no_proxy") or ""),
    }
    env["no_proxy"] = env["NO_PROXY"]
    if connection is not None:
        env["AIRFLOW_CONN_DATABRICKS_DEFAULT"] = connection
    return env


def connection_to(workspace: LocalWorkspace) -> str:
    """Return the Airflow connection of a local workspace, as AIRFLOW_CONN_... wants it."""
    return json.dumps(
        {"conn_type": "databricks_jobs", "host": workspace.url, "password": workspace.token}
    )


def write_private_file(file: Path, text: str) -> None:
    """Write a file that only this user can read."""
    file.unlink(missing_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
        opened.write(text)


def _with_loopback(hosts: str) -> str:
    return ",".join(filter(None, [hosts, "127.0.0.1", "localhost"]))

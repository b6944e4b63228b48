"""Runs the DAGs of official_dags with the official provider and, migrated, with this package."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_jobs_provider.local.workspace import LocalWorkspace
from airflow_jobs_provider.migrate.__main__ import main as migrate
from scripts.airflow_env import ROOT, airflow_environment

__all__ = ["DAGS", "Side", "rows", "table"]

DAGS = Path(__file__).parent / "official_dags"
# Where the official provider has the URL of the button. Here it is the XCom run_page_url.
_LINK = "_link_DatabricksJobRunLink"
_HEAD = "| DAG | Task | Official | Here | Differs |\n| --- | --- | --- | --- | --- |\n"


@dataclass
class Side:
    """One provider: the Python of its environment, and a folder for what it needs.

    :ivar python: the interpreter.
    :ivar folder: where home, DAGs and workspaces are.
    :ivar migrates: whether the DAG files are changed by the migrate command.
    :ivar more_path: folder of packages beside those of the environment.
    """

    python: str
    folder: Path
    migrates: bool
    more_path: Path | None = None

    def start(self, stack: ExitStack, home: Path, dags: Path = DAGS) -> subprocess.Popen[str]:
        """Start to run all DAGs in one process, on workspaces of their own."""
        shutil.copytree(home, self.folder / "home")
        shutil.copytree(dags, self.folder / "dags", ignore=shutil.ignore_patterns("workspace"))
        shutil.copytree(DAGS / "workspace", self.folder / "workspace")
        (self.folder / "staging").mkdir()
        if self.migrates:
            assert migrate(["--write", str(self.folder / "dags")]) == 0
        workspace = stack.enter_context(LocalWorkspace(self.folder / "workspace"))
        # For what nothing here can run: dbt, SQL, code in a git repository.
        staging = stack.enter_context(LocalWorkspace(self.folder / "staging", dry_run=True))
        env = airflow_environment(
            self.folder / "home", self.folder / "dags", connection=_connection(workspace)
        )
        env["AIRFLOW_CONN_DATABRICKS_STAGING"] = _connection(staging)
        env["PATH"] = f"{Path(self.python).parent}:{env['PATH']}"
        path = self.more_path or (ROOT if self.migrates else None)
        if path is not None:
            env["PYTHONPATH"] = str(path)
        script = str(ROOT / "scripts" / "run_dag.py")
        with self._log.open("w") as log:
            return subprocess.Popen(
                [self.python, script, str(self.folder / "dags"), "all", str(self._results)],
                env=env,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
            )

    @property
    def _log(self) -> Path:
        return self.folder / "log"

    @property
    def _results(self) -> Path:
        return self.folder / "results.json"

    def log(self) -> str:
        """Return the end of the log."""
        return self._log.read_text()[-5000:]

    def outcomes(self) -> dict[str, Any]:
        """Return what became of each DAG."""
        assert self._results.exists(), self.log()
        outcomes: dict[str, Any] = json.loads(self._results.read_text())
        return outcomes


def _connection(workspace: LocalWorkspace) -> str:
    """Return a connection as users of the official provider have it."""
    return json.dumps(
        {
            "conn_type": "databricks",
            "schema": "http",
            "host": "127.0.0.1",
            "port": int(workspace.url.rpartition(":")[2]),
            "password": workspace.token,
        }
    )


def _shown(task: Mapping[str, Any]) -> str:
    """Return a task's state and XComs: ids and URLs are of each side, so their kind is shown."""
    xcoms = {key: value for key, value in task["xcoms"].items() if key != _LINK}
    run_id, url = xcoms.get("run_id"), xcoms.get("run_page_url")
    if run_id is not None:
        # The button of both leads to the run's page.
        assert task["xcoms"].get(_LINK, url) == url
        assert re.fullmatch(rf"http://127\.0\.0\.1:\d+/runs/{run_id}", str(url)), xcoms
    parts = [
        key
        if key in ("run_id", "job_id", "run_page_url") and isinstance(value, (int, str))
        else f"{key} {_value(value)}"
        for key, value in sorted(xcoms.items())
    ]
    return f"{task['state']}: {', '.join(parts)}" if parts else str(task["state"])


def _value(value: Any) -> str:
    return "a number" if isinstance(value, int) and value is not True else f"`{json.dumps(value)}`"


def _differences(official: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    if official["state"] != here["state"]:
        yield "state"
    for key in sorted((official["xcoms"].keys() | here["xcoms"].keys()) - {_LINK}):
        if not _are_equal(key, official["xcoms"].get(key), here["xcoms"].get(key)):
            yield key


def _are_equal(key: str, theirs: Any, ours: Any) -> bool:
    """Whether two XComs mean the same: each side has ids and URLs of its own."""
    if key == "run_page_url":
        return (theirs is None) == (ours is None)
    return theirs == ours or (isinstance(theirs, int) and isinstance(ours, int))


def rows(official: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Return DAG, task, outcome of both sides, and what differs, for each task.

    :param official: the outcomes of the DAGs with the official provider.
    :param here: those with this package.
    """
    assert official.keys() == here.keys()
    for dag_id in sorted(official):
        tasks, others = official[dag_id]["tasks"], here[dag_id]["tasks"]
        assert tasks.keys() == others.keys()
        for task_id in sorted(tasks):
            one, other = tasks[task_id], others[task_id]
            differs = ", ".join(_differences(one, other))
            yield dag_id, task_id, _shown(one), _shown(other), differs


def table(official: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Return the rows as the table of docs/migrating.md."""
    return _HEAD + "".join(
        f"| {' | '.join((f'`{dag}`', f'`{task}`', *cells))} |\n"
        for dag, task, *cells in rows(official, here)
    )

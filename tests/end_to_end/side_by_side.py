"""Runs the DAGs of official_dags with the official provider and, migrated, with this package."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_jobs_provider.local.workspace import LocalWorkspace
from airflow_jobs_provider.migrate.__main__ import main as migrate
from airflow_jobs_provider.migrate.names import OFFICIAL
from scripts.airflow_env import ROOT, airflow_environment
from tests.end_to_end.recording_proxy import Recorded, recording_proxy

__all__ = ["DAGS", "Side", "rows", "shown", "shown_outcomes", "table", "with_imports_changed"]

DAGS = Path(__file__).parent / "official_dags"
# Where the official provider has the URL of the button. Here it is the XCom run_page_url.
_LINK = "_link_DatabricksJobRunLink"
# The same for a task of a workflow group: the official provider has the page of the group's run.
_GROUP_LINK = "databricks_job_run_link"
# Only here, for a run of several tasks.
_TASK_RUNS = "task_run_ids"
# What the launching task of a group keeps here for a clear or a retry.
_RECORDS = re.compile(r"databricks_(definition|task_runs|task_run\..*)")
_PAGE = ROOT / "docs" / "migrating.md"
_GROUP_ROW = re.compile(r"^\| `(group_\w+)` \| `(\S+)` \| .*? \| (.*?) \| .*\|$", re.MULTILINE)
_HEAD = "| DAG | Task | Official | Here | Differs |\n| --- | --- | --- | --- | --- |\n"


@dataclass
class Side:
    """One provider: the Python of its environment, and a folder for what it needs.

    :ivar python: the interpreter.
    :ivar folder: where home, DAGs and workspaces are.
    :ivar migrates: whether the DAG files are changed by the migrate command.
    :ivar more_path: folder of packages beside those of the environment.
    :ivar sent: the requests to the workspaces.
    """

    python: str
    folder: Path
    migrates: bool
    more_path: Path | None = None
    sent: list[list[Recorded]] = field(default_factory=list)

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
            self.folder / "home",
            self.folder / "dags",
            connection=self._connection(stack, workspace),
        )
        env["AIRFLOW_CONN_DATABRICKS_STAGING"] = self._connection(stack, staging)
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

    def _connection(self, stack: ExitStack, workspace: LocalWorkspace) -> str:
        """Return a connection as users of the official provider have it; its use is recorded."""
        port, sent = stack.enter_context(recording_proxy(workspace.url))
        self.sent.append(sent)
        return json.dumps(
            {
                "conn_type": "databricks",
                "schema": "http",
                "host": "127.0.0.1",
                "port": port,
                "password": workspace.token,
            }
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


def with_imports_changed(text: str) -> str:
    """Return a DAG file that names its imports in lines of their own, with these lines changed."""
    moved = re.compile(rf"^from {re.escape(OFFICIAL)}\.operators\.\w+ import", re.MULTILINE)
    return moved.sub("from airflow_jobs_provider.operators.jobs import", text)


def _xcoms(task: Mapping[str, Any]) -> dict[str, Any]:
    """Return the XComs of a task that its users read."""
    hidden = {_LINK, _GROUP_LINK, _TASK_RUNS}
    if not task["xcoms"].get("run_page_url"):
        hidden.add("run_page_url")  # Airflow 3 stores that a button leads nowhere.
    return {
        key: value
        for key, value in task["xcoms"].items()
        if key not in hidden and not _RECORDS.fullmatch(key)
    }


def shown(task: Mapping[str, Any]) -> str:
    """Return a task's state and XComs: ids and URLs are of each side, so their kind is shown."""
    xcoms = _xcoms(task)
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


def shown_outcomes() -> dict[tuple[str, str], str]:
    """Return what docs/migrating.md shows of this package's groups, by DAG and task."""
    rows = _GROUP_ROW.findall(_PAGE.read_text())
    return {(dag_id, task_id): outcome for dag_id, task_id, outcome in rows}


def _value(value: Any) -> str:
    if isinstance(value, int) and value is not True:
        return "a number"
    if _is_launch(value):
        return "of a launch"
    return f"`{json.dumps(value)}`"


def _is_launch(value: Any) -> bool:
    return isinstance(value, Mapping) and value.keys() == {"conn_id", "job_id", "run_id"}


def _differences(official: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    if official["state"] != here["state"]:
        yield "state"
    theirs, ours = _xcoms(official), _xcoms(here)
    for key in sorted(theirs.keys() | ours.keys()):
        if not _are_equal(key, theirs.get(key), ours.get(key)):
            yield key


def _are_equal(key: str, theirs: Any, ours: Any) -> bool:
    """Whether two XComs mean the same: each side has ids and URLs of its own."""
    if key == "run_page_url":
        return (theirs is None) == (ours is None)
    if _is_launch(theirs) and _is_launch(ours):
        return bool(theirs["conn_id"] == ours["conn_id"])
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
            yield dag_id, task_id, shown(one), shown(other), differs


def table(official: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Return the rows as the table of docs/migrating.md."""
    return _HEAD + "".join(
        f"| {' | '.join((f'`{dag}`', f'`{task}`', *cells))} |\n"
        for dag, task, *cells in rows(official, here)
    )

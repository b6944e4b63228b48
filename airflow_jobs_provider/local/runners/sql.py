"""Running SQL files in a warehouse on this machine (reference of later versions: "SqlTask")."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from airflow_jobs_provider.local.engine.model import Output, Run
from airflow_jobs_provider.local.engine.parameters import parameters_of
from airflow_jobs_provider.local.engine.runner import CannotRunError, Outcome, Workspace
from airflow_jobs_provider.local.paths import PathRefusedError, file_in_root
from airflow_jobs_provider.local.runners.prepare import TaskCode
from airflow_jobs_provider.local.runners.python import ProcessRunner, file_missing

__all__ = ["SqlRunner"]

_PROGRAM = str(Path(__file__).with_name("sql_program.py"))
_NEEDED = ("duckdb", "sqlglot")


class SqlRunner(ProcessRunner):
    """Runs the file of a ``sql_task``."""

    def __init__(self, run: Run, workspace: Workspace, code: TaskCode) -> None:
        super().__init__(run, workspace, code)
        self._task: dict[str, Any] = run.task["sql_task"]
        self._folder = Path(tempfile.mkdtemp(dir=workspace.temporary_folder))
        self._result = self._folder / "result.json"
        self._query = ""

    async def setup(self) -> None:
        """Check that this machine can run the task."""
        for kind in ("query", "dashboard", "alert"):
            if kind in self._task:
                raise CannotRunError(
                    f"The local workspace has no saved queries, dashboards and alerts, so it "
                    f"cannot run sql_task.{kind}. Put the SQL into a file and name it in "
                    "sql_task.file."
                )
        missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
        if missing:
            raise CannotRunError(
                f"sql_task needs {' and '.join(missing)} on this machine: "
                "pip install 'airflow-jobs-provider[sql]'"
            )

    def command(self) -> tuple[list[str], Path] | Outcome:
        """Return how Python runs the statements of the file."""
        path: str = self._task["file"]["path"]
        try:
            file = file_in_root(self._code.root, path)
        except PathRefusedError as error:
            return file_missing(path, str(error))
        if not file.is_file():
            return file_missing(path, f"there is no file {file}")
        try:
            self._query = file.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            return file_missing(path, f"it is not text in UTF-8: {error}")
        arguments = {
            "query": self._query,
            "parameters": parameters_of(self._run),
            "database": str(self._workspace.warehouse),
            "temporary_folder": str(self._folder / "temporary"),
            "result": str(self._result),
        }
        given = self._folder / "arguments.json"
        given.write_text(json.dumps(arguments), encoding="utf-8")
        return [sys.executable, "-P", _PROGRAM, str(given)], file.parent

    async def execute(self) -> Outcome:
        """Run the statements, and keep their results."""
        outcome = await super().execute()
        if not self._result.exists():
            return outcome  # the program did not get to its end
        result = json.loads(self._result.read_text(encoding="utf-8"))
        sql = {"query_text": self._query, "results": result["results"]}
        if result["error"] is not None:
            return Outcome.failure(result["error"], sql=sql)
        return Outcome(output=Output(sql=sql))

    async def cleanup(self) -> None:
        """End the process, and remove its files."""
        await super().cleanup()
        shutil.rmtree(self._folder, ignore_errors=True)

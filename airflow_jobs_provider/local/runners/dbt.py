"""Running the commands of a dbt project (reference of later versions: "DbtTask")."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow_jobs_provider.local.engine.model import Run
from airflow_jobs_provider.local.engine.parameters import list_parameters
from airflow_jobs_provider.local.engine.runner import CannotRunError, Outcome, Workspace
from airflow_jobs_provider.local.paths import PathRefusedError, file_in_root
from airflow_jobs_provider.local.runners.prepare import TaskCode
from airflow_jobs_provider.local.runners.python import ProcessRunner, file_missing

__all__ = ["DbtRunner"]

_PROGRAM = str(Path(__file__).with_name("dbt_program.py"))
_PROFILES = "profiles.yml"


class DbtRunner(ProcessRunner):
    """Runs the commands of a ``dbt_task`` in the folder of its project."""

    def __init__(self, run: Run, workspace: Workspace, code: TaskCode) -> None:
        super().__init__(run, workspace, code)
        self._task: dict[str, Any] = run.task["dbt_task"]
        self._dbt = ""
        self._profiles: Path | None = None

    async def setup(self) -> None:
        """Check that dbt is installed."""
        beside_python = Path(sys.executable).parent
        found = shutil.which("dbt") or shutil.which("dbt", path=str(beside_python))
        if found is None:
            raise CannotRunError(
                "dbt_task needs dbt on this machine: pip install dbt-core and the adapter of your "
                "profile, such as dbt-duckdb"
            )
        self._dbt = found

    def command(self) -> tuple[list[str], Path] | Outcome:
        """Return how the commands are run, and the folder of the project."""
        path: str = self._task.get("project_directory") or "/"
        profiles: str | None = self._task.get("profiles_directory")
        try:
            folder = file_in_root(self._code.root, path)
            if profiles is not None:
                self._profiles = file_in_root(self._code.root, profiles)
        except PathRefusedError as error:
            return file_missing(path, str(error))
        if not (folder / "dbt_project.yml").is_file():
            return file_missing(path, f"there is no dbt_project.yml in {folder}")
        root = self._code.root
        if self._profiles is None and not (folder / _PROFILES).exists():
            self._profiles = root if (root / _PROFILES).exists() else None
        commands = []
        for text in list_parameters(self._run):
            try:
                commands.append([self._dbt, *shlex.split(text)[1:]])
            except ValueError as error:
                return Outcome.failure(f"The command {text!r} cannot be read: {error}")
        return [sys.executable, "-P", _PROGRAM, json.dumps(commands)], folder

    def variables(self) -> Mapping[str, str]:
        """Return where dbt finds its profiles, unless it is the folder of the project."""
        return {"DBT_PROFILES_DIR": str(self._profiles)} if self._profiles else {}

"""Running an entry point of a package (reference of later versions: "PythonWheelTask")."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from airflow_jobs_provider.local.engine.parameters import parameters_of
from airflow_jobs_provider.local.engine.runner import Outcome
from airflow_jobs_provider.local.runners import entry_point
from airflow_jobs_provider.local.runners.python import ProcessRunner

__all__ = ["PythonWheelRunner"]

_PROGRAM = str(Path(entry_point.__file__))


class PythonWheelRunner(ProcessRunner):
    """Runs the entry point of a ``python_wheel_task``."""

    def command(self) -> tuple[list[str], Path] | Outcome:
        """Return how Python runs the entry point."""
        task: dict[str, Any] = self._run.task["python_wheel_task"]
        package: str = task["package_name"]
        path = [*map(str, self._code.import_path), *sys.path]
        if not any(metadata.distributions(name=package, path=path)):
            return _package_missing(package)
        parameters: dict[str, str] | list[str] = parameters_of(self._run)
        if isinstance(parameters, dict):
            parameters = [f"--{name}={value}" for name, value in parameters.items()]
        # -P: the folder of the program is not on the import path.
        command = [sys.executable, "-P", _PROGRAM, package, task["entry_point"], *parameters]
        return command, self._workspace.root


def _package_missing(package: str) -> Outcome:
    message = (
        f"Python wheel with name {package} could not be found. Name its wheel in the libraries of "
        "the task or in the dependencies of its environment, or install it in the Python of the "
        f"local workspace: {sys.executable} -m pip install {package}"
    )
    return Outcome.not_started(message, termination_code="LIBRARY_INSTALLATION_ERROR")

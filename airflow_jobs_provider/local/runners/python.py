"""Running a Python file as a plain process (reference: "SparkPythonTask")."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from airflow_jobs_provider.local.engine.model import Output, Run
from airflow_jobs_provider.local.engine.parameters import list_parameters
from airflow_jobs_provider.local.engine.runner import Outcome, Workspace
from airflow_jobs_provider.local.output_limits import MAX_ERROR_CHARS, MAX_TRACE_CHARS, truncate
from airflow_jobs_provider.local.paths import PathRefusedError, data_file_in_root
from airflow_jobs_provider.local.runners.prepare import TaskCode
from airflow_jobs_provider.local.runners.processes import (
    environment_of_runs,
    start_process,
    stop_process,
)

__all__ = ["ProcessRunner", "PythonRunner"]

_MAX_LOG_BYTES = 5 * 1024 * 1024
_TRACEBACK = "Traceback (most recent call last):"


class ProcessRunner:
    """Base of runners that run one command, which a subclass names."""

    def __init__(self, run: Run, workspace: Workspace, code: TaskCode) -> None:
        self._run = run
        self._workspace = workspace
        self._code = code
        self._process: asyncio.subprocess.Process | None = None
        self._log = workspace.kept_file(run.run_id, ".log")
        self._marker = workspace.run_marker(run.run_id)
        # Of tables that it saves with Spark. They end with the run, whose Spark forgets them. In
        # its current folder, Spark's default, they would keep the next run from saving them again.
        self._spark_warehouse = workspace.temporary_folder / f"spark-{run.run_id}"

    def command(self) -> tuple[list[str], Path] | Outcome:
        """Return the command and the folder to run it in, or how the run ends without it."""
        raise NotImplementedError

    def variables(self) -> Mapping[str, str]:
        """Return more variables for the environment of the command."""
        return {}

    async def setup(self) -> None:
        """Nothing to prepare."""

    async def execute(self) -> Outcome:
        """Run the command to its end."""
        command = self.command()
        if isinstance(command, Outcome):
            return command
        import_path = [str(folder) for folder in self._code.import_path]
        inherited = os.environ.get("PYTHONPATH")
        self._process = await start_process(
            command[0],
            cwd=command[1],
            env=environment_of_runs(
                self._marker,
                {
                    **_spark_variables(self._spark_warehouse),
                    "PYTHONPATH": os.pathsep.join(filter(None, (*import_path, inherited))),
                    "PYTHONUNBUFFERED": "1",
                    **self.variables(),
                },
            ),
            log=self._log,
        )
        code = await self._process.wait()
        logs, truncated = _tail(self._log)
        if code == 0:
            return Outcome(output=Output(logs=logs, logs_truncated=truncated))
        error, trace = _error_in(logs, code)
        error, _ = truncate(error, MAX_ERROR_CHARS)
        if trace is not None:
            trace, _ = truncate(trace, MAX_TRACE_CHARS)
        return Outcome.failure(error, trace, logs=logs, logs_truncated=truncated)

    async def cleanup(self) -> None:
        """End the process and its descendants."""
        if self._process is not None:
            await stop_process(self._process, self._marker)
        if self._spark_warehouse.exists():
            await asyncio.to_thread(shutil.rmtree, self._spark_warehouse, ignore_errors=True)


class PythonRunner(ProcessRunner):
    """Runs the file of a ``spark_python_task``."""

    def command(self) -> tuple[list[str], Path] | Outcome:
        """Return how Python runs the file."""
        uri: str = self._run.task["spark_python_task"]["python_file"]
        try:
            file = data_file_in_root(self._code.root, uri)
        except PathRefusedError as error:
            return file_missing(uri, str(error))
        if not file.is_file():
            return file_missing(uri, f"there is no file {file}")
        parameters = list_parameters(self._run)
        return [sys.executable, str(file), *parameters], file.parent


def file_missing(uri: str, reason: str) -> Outcome:
    """Return the outcome of a run whose file does not exist."""
    message = f"Cannot read the file {uri}: {reason}."
    return Outcome.not_started(message)


def _spark_variables(warehouse: Path) -> dict[str, str]:
    """Return the variables by which pyspark starts Spark with that warehouse folder."""
    if "PYSPARK_SUBMIT_ARGS" in os.environ:
        return {}
    option = shlex.quote(f"spark.sql.warehouse.dir={warehouse}")
    return {"PYSPARK_SUBMIT_ARGS": f"--conf {option} pyspark-shell"}


def _tail(log: Path) -> tuple[str, bool]:
    with log.open("rb") as opened:
        size = opened.seek(0, os.SEEK_END)
        opened.seek(max(0, size - _MAX_LOG_BYTES))
        return opened.read().decode("utf-8", errors="replace"), size > _MAX_LOG_BYTES


def _error_in(logs: str, code: int) -> tuple[str, str | None]:
    """Return the error in one line and its trace, as far as the process wrote them."""
    start = logs.rfind(_TRACEBACK)
    if start >= 0:
        trace = logs[start:].rstrip()
        # The error's first line is the last one that stands at the margin; its text may go on.
        at_margin = [line for line in trace.splitlines()[1:] if line and not line.startswith(" ")]
        if at_margin:
            return at_margin[0], trace
    if code < 0:
        return f"The process was ended by {signal.Signals(-code).name}", None
    last = logs.rstrip().rpartition("\n")[2]
    return f"The process ended with exit code {code}" + (f": {last}" if last else ""), None

"""Running a notebook in a Jupyter kernel of its own."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from airflow_jobs_provider.local.engine.model import Output, Run, task_key_of
from airflow_jobs_provider.local.engine.parameters import notebook_parameters
from airflow_jobs_provider.local.engine.runner import Outcome, Workspace
from airflow_jobs_provider.local.kernel.context import (
    CONTEXT_VARIABLE,
    restart_mark,
    too_large_mark,
)
from airflow_jobs_provider.local.notebook_files import Cell, NotNotebookError, read_notebook
from airflow_jobs_provider.local.output_limits import MAX_RESULT_BYTES, OutputMeter
from airflow_jobs_provider.local.paths import (
    RUN_SUFFIXES,
    PathRefusedError,
    notebook_in_root,
)
from airflow_jobs_provider.local.runners.kernel_client import Kernel, load_kernel_support
from airflow_jobs_provider.local.runners.kernel_processes import ForkServer
from airflow_jobs_provider.local.runners.prepare import TaskCode

__all__ = ["NotebookRunner"]

_KERNEL_DIED = "The notebook's Python process died (killed, or out of memory?)"
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class NotebookRunner:
    """Runs the notebook of a ``notebook_task`` (reference: "NotebookTask")."""

    def __init__(
        self, run: Run, workspace: Workspace, code: TaskCode, fork_server: ForkServer
    ) -> None:
        self._run = run
        self._workspace = workspace
        self._code = code
        self._fork_server = fork_server
        self._folder = Path(tempfile.mkdtemp(dir=workspace.temporary_folder))
        self._exit_file = self._folder / "exit"
        self._file = Path()
        self._cells: list[Cell] = []
        self._marker = workspace.run_marker(run.run_id)
        self._missing: Outcome | None = None
        self._meter = OutputMeter()
        self._kernel: Kernel | None = None
        self._kernel_number = 0
        self._notebook: Any = None

    async def setup(self) -> None:
        """Read the notebook and start its kernel."""
        path: str = self._run.task["notebook_task"]["notebook_path"]
        try:
            file = notebook_in_root(self._code.root, path, RUN_SUFFIXES)
            if file is None:
                self._missing = _no_access(path, "Either it does not exist, or")
            else:
                self._file = file
                self._cells = read_notebook(file)
        except PathRefusedError:
            self._missing = _no_access(path, "It cannot be opened in this workspace, or")
        except NotNotebookError as error:
            self._missing = Outcome.failure(f"The notebook {path} cannot be read: {error}")
        if self._missing is None:
            # The first import takes half a second: not in the event loop, and not at start-up.
            await asyncio.to_thread(load_kernel_support)
            self._notebook = _notebook_of(self._cells)
            self._workspace.live_notebooks[self._run.run_id] = self._notebook
            await self._start_kernel({})

    async def execute(self) -> Outcome:
        """Run the cells in order until one fails or exits the notebook."""
        if self._missing is not None:
            return self._missing
        assert self._kernel is not None
        from nbclient.exceptions import CellExecutionError, DeadKernelError

        for index, cell in enumerate(self._notebook.cells):
            failure: Outcome | None = None
            try:
                await self._kernel.execute(cell, index)
            except CellExecutionError as error:
                truncated = self._kernel.error_is_truncated
                failure = Outcome.failure(*_error_and_trace(cell, error), truncated=truncated)
            except DeadKernelError:
                # nbclient also says so when we are canceled.
                failure = Outcome.failure(_KERNEL_DIED)
            # First: neither a good end of the cell nor an exit value makes up for it.
            if excess := self._excess():
                return Outcome.failure(excess)
            if self._exit_file.exists():
                return Outcome(output=_exit_output(self._exit_file))
            mark = restart_mark(self._exit_file)
            if mark.exists():
                widgets = json.loads(mark.read_text(encoding="utf-8"))["widgets"]
                mark.unlink()
                await self._kernel.end()
                await self._start_kernel(widgets)
            elif failure is not None:
                return failure
        return Outcome()

    async def cleanup(self) -> None:
        """Kill the kernel and its descendants; save the executed notebook."""
        self._workspace.close_callback(self._run.run_id)
        self._workspace.live_notebooks.pop(self._run.run_id, None)
        if self._kernel is not None:
            await self._kernel.end()
        if self._notebook is not None:
            file = self._workspace.kept_file(self._run.run_id, ".ipynb")
            # Up to 20 MB of it: not in the event loop.
            await asyncio.to_thread(_write_notebook, self._notebook, file)
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _start_kernel(self, widgets: dict[str, str]) -> None:
        self._kernel_number += 1
        self._kernel = Kernel(
            self._notebook,
            self._folder / f"k{self._kernel_number}",
            self._marker,
            self._fork_server,
            self._meter,
        )
        given = self._folder / "context.json"
        given.touch(mode=0o600)
        given.write_text(
            json.dumps(
                {
                    "root": str(self._workspace.root),
                    "code_root": str(self._code.root),
                    "import_path": [str(folder) for folder in self._code.import_path],
                    "folder": str(self._file.parent),
                    "parameters": notebook_parameters(self._run),
                    "exit_file": str(self._exit_file),
                    "callback_url": f"{self._workspace.base_url}/local/",
                    "secret": self._workspace.open_callback(self._run.run_id),
                    "widgets": widgets,
                    "about": _about(self._run, self._workspace),
                    "warehouse": str(self._workspace.warehouse),
                    "spark_folder": str(self._workspace.spark_folder),
                    "packages": self._packages(),
                }
            ),
            encoding="utf-8",
        )
        await self._kernel.start(self._file.parent, {CONTEXT_VARIABLE: str(given)})

    def _packages(self) -> str:
        if not self._workspace.installs_packages:
            return ""
        folder = self._folder / "packages"
        folder.mkdir(exist_ok=True)
        return str(folder)

    def _excess(self) -> str:
        """Return the message about output that is too large, or an empty text."""
        mark = too_large_mark(self._exit_file)
        if mark.exists():
            return mark.read_text(encoding="utf-8")
        return self._meter.excess


def _about(run: Run, workspace: Workspace) -> dict[str, Any]:
    """Return what the notebook's context tells of the run."""
    tags = {
        "jobId": str(run.job_id),
        "runId": str(run.run_id),
        "jobName": run.run_name,
        "taskKey": task_key_of(run),
        "user": workspace.user,
        "orgId": str(workspace.workspace_number),
        "browserHostName": workspace.base_url.partition("//")[2],
    }
    if run.job_run_id is not None:
        tags["multitaskParentRunId"] = str(run.job_run_id)
    if "existing_cluster_id" in run.cluster_spec:
        tags["clusterId"] = str(run.cluster_spec["existing_cluster_id"])
    extra = {
        "notebook_path": run.task["notebook_task"]["notebook_path"],
        "api_url": workspace.base_url,
    }
    return {"tags": tags, "extraContext": extra}


def _no_access(path: str, reason: str) -> Outcome:
    return Outcome.not_started(
        f'Unable to access the notebook "{path}". {reason} the identity used to run this job '
        "lacks the required permissions."
    )


def _exit_output(file: Path) -> Output:
    with file.open("rb") as opened:
        data = opened.read(MAX_RESULT_BYTES + 1)
    truncated = len(data) > MAX_RESULT_BYTES
    text = data[:MAX_RESULT_BYTES].decode("utf-8", errors="ignore" if truncated else "replace")
    return Output(result=text, truncated=truncated)


def _error_and_trace(cell: Any, error: Any) -> tuple[str, str]:
    lines: list[str] = []
    for output in cell.get("outputs", []):
        if output["output_type"] == "error":
            lines = output["traceback"]
    trace = _COLOURS.sub("", "\n".join(lines)) or _COLOURS.sub("", error.traceback)
    text = f"{error.ename}: {error.evalue}" if error.evalue else str(error.ename)
    return text, trace


def _notebook_of(cells: list[Cell]) -> Any:
    """Return a notebook of format 4.5; not by the functions for it, which load a JSON schema."""
    from_dict: Any = import_module("nbformat.notebooknode").from_dict
    made: list[dict[str, Any]] = [
        {
            "id": f"cell-{number}",
            "cell_type": cell.kind,
            "metadata": {},
            "source": cell.source,
            **({"execution_count": None, "outputs": []} if cell.kind == "code" else {}),
        }
        for number, cell in enumerate(cells, start=1)
    ]
    language = {"name": "python", "pygments_lexer": "ipython3"}
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return from_dict(
        {
            "cells": made,
            "metadata": {"language_info": language, "kernelspec": kernel},
            "nbformat": 4,
            "nbformat_minor": 5,
        }
    )


def _write_notebook(notebook: Any, file: Path) -> None:
    # In one step: the workspace may be killed meanwhile.
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(notebook), encoding="utf-8")
    partial.replace(file)

"""Running a notebook in a Jupyter kernel of its own.

nbclient speaks with the kernel from the server's event loop. Only two things are done differently
from its ``execute()``: cells are run one by one, because ``dbutils.notebook.exit`` ends a notebook
early; and the kernel is started without nbclient's signal handlers, which would replace the
server's own.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from airflow_jobs_provider.local.engine.model import Output, Run
from airflow_jobs_provider.local.engine.parameters import notebook_parameters
from airflow_jobs_provider.local.engine.runner import CannotRunError, Outcome, Workspace
from airflow_jobs_provider.local.kernel import context as kernel_context
from airflow_jobs_provider.local.kernel.context import too_large_mark
from airflow_jobs_provider.local.notebook_files import Cell, NotNotebookError, read_notebook
from airflow_jobs_provider.local.output_limits import MAX_RESULT_BYTES, OutputMeter
from airflow_jobs_provider.local.paths import PathRefusedError, notebook_in_root
from airflow_jobs_provider.local.runners.processes import (
    end_process_tree,
    environment_of_runs,
    request_end,
    supervised,
)

__all__ = ["NotebookRunner"]

_KERNEL_DIED = "The notebook's Python process died (killed, or out of memory?)"
_START_SECONDS = 60
_LAST_BYTES = 2000
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_LAUNCH = Path(kernel_context.__file__).with_name("launch.py")


class NotebookRunner:
    """Runs the notebook of a ``notebook_task`` (reference: "NotebookTask")."""

    def __init__(self, run: Run, workspace: Workspace) -> None:
        self._run = run
        self._workspace = workspace
        self._folder = Path(tempfile.mkdtemp(dir=workspace.temporary_folder))
        self._exit_file = self._folder / "exit"
        self._cells: list[Cell] = []
        self._marker = workspace.run_marker(run.run_id)
        self._missing: Outcome | None = None
        self._manager: Any = None
        self._client: Any = None
        self._notebook: Any = None

    async def setup(self) -> None:
        """Read the notebook and start its kernel."""
        path: str = self._run.task["notebook_task"]["notebook_path"]
        try:
            file = notebook_in_root(self._workspace.root, path)
            if file is None:
                self._missing = _no_access(path, "Either it does not exist, or")
            else:
                self._cells = read_notebook(file)
        except PathRefusedError:
            self._missing = _no_access(path, "It cannot be opened in this workspace, or")
        except NotNotebookError as error:
            self._missing = Outcome.failure(f"The notebook {path} cannot be read: {error}")
        if self._missing is None:
            assert file is not None
            await self._start_kernel(file)

    async def execute(self) -> Outcome:
        """Run the cells in order until one fails or exits the notebook."""
        if self._missing is not None:
            return self._missing
        from nbclient.exceptions import CellExecutionError, DeadKernelError

        for index, cell in enumerate(self._notebook.cells):
            failure: Outcome | None = None
            try:
                await self._client.async_execute_cell(cell, index)
            except CellExecutionError as error:
                truncated = self._client.error_is_truncated
                failure = Outcome.failure(*_error_and_trace(cell, error), truncated=truncated)
            except DeadKernelError:
                # nbclient also says so when we are canceled.
                failure = Outcome.failure(_KERNEL_DIED)
            # First: neither a good end of the cell nor an exit value makes up for it.
            if excess := self._excess():
                return Outcome.failure(excess)
            if self._exit_file.exists():
                return Outcome(output=_exit_output(self._exit_file))
            if failure is not None:
                return failure
        return Outcome()

    async def cleanup(self) -> None:
        """Kill the kernel and its descendants; save the executed notebook."""
        self._workspace.close_callback(self._run.run_id)
        manager = self._manager
        if manager is not None:
            await self._end_kernel()
            if self._client.kc is not None:
                self._client.kc.stop_channels()
            with suppress(Exception):
                await manager.shutdown_kernel(now=True)
            with suppress(Exception):
                await manager.cleanup_resources()
        if self._notebook is not None:
            file = self._workspace.kept_file(self._run.run_id, ".ipynb")
            # Up to 20 MB of it: not in the event loop.
            await asyncio.to_thread(_write_notebook, self._notebook, file)
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _end_kernel(self) -> None:
        process = _process_of(self._manager)
        if process is not None:
            await end_process_tree(process.pid, process.poll, self._marker)

    async def _start_kernel(self, file: Path) -> None:
        # The first import takes half a second: not in the event loop, and not at start-up.
        make = await asyncio.to_thread(_load_kernel_support)
        self._notebook = _notebook_of(self._cells)
        self._manager, self._client = make(self._notebook, self._folder)
        given = self._folder / "context.json"
        given.touch(mode=0o600)
        given.write_text(
            json.dumps(
                {
                    "root": str(self._workspace.root),
                    "folder": str(file.parent),
                    "parameters": notebook_parameters(self._run),
                    "exit_file": str(self._exit_file),
                    "callback_url": f"{self._workspace.base_url}/local/",
                    "secret": self._workspace.open_callback(self._run.run_id),
                }
            ),
            encoding="utf-8",
        )
        env = environment_of_runs(
            self._marker,
            {
                kernel_context.CONTEXT_VARIABLE: str(given),
                # No start-up files, profile or history of the user's own IPython.
                "IPYTHONDIR": str(self._folder / "ipython"),
                "PYDEVD_DISABLE_FILE_VALIDATION": "1",
            },
        )
        log = self._folder / "kernel.log"
        try:
            # A kernel copies what its child processes print to its own standard streams. It must
            # not be the workspace's, which nobody may read: a full pipe would stop the notebook.
            with log.open("wb") as errors:
                await self._client.async_start_new_kernel(
                    cwd=str(file.parent), env=env, stdout=subprocess.DEVNULL, stderr=errors
                )
            await self._client.async_start_new_kernel_client()
        except RuntimeError as error:
            reason = ": ".join(filter(None, (str(error), _last_line(log))))
            raise CannotRunError(f"The notebook's kernel did not start: {reason}") from error

    def _excess(self) -> str:
        """Return the message about output that is too large, or an empty text."""
        mark = too_large_mark(self._exit_file)
        if mark.exists():
            return mark.read_text(encoding="utf-8")
        return str(self._client.meter.excess)


def _last_line(log: Path) -> str:
    with log.open("rb") as opened:
        opened.seek(max(0, opened.seek(0, os.SEEK_END) - _LAST_BYTES))
        return opened.read().decode("utf-8", errors="replace").rstrip().rpartition("\n")[2]


def _no_access(path: str, reason: str) -> Outcome:
    message = (
        f'Unable to access the notebook "{path}". {reason} the identity used to run this job '
        "lacks the required permissions."
    )
    failure = Outcome.failure(message)
    return Outcome(failure.result_state, message, failure.output)


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
    v4: Any = import_module("nbformat.v4")
    made = [
        v4.new_code_cell(cell.source) if cell.kind == "code" else v4.new_markdown_cell(cell.source)
        for cell in cells
    ]
    language = {"name": "python", "pygments_lexer": "ipython3"}
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return v4.new_notebook(cells=made, metadata={"language_info": language, "kernelspec": kernel})


def _load_kernel_support() -> Any:
    """Import jupyter_client; return the classes of the kernel manager and its client."""
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionComplete

    class Manager(AsyncKernelManager):
        """Starts the workspace's own kernel, not one that the user has installed."""

        @property
        def kernel_spec(self) -> KernelSpec:
            command = supervised([sys.executable, str(_LAUNCH), "-f", "{connection_file}"])
            return KernelSpec(argv=command, display_name="Python 3", language="python")

    class Client(NotebookClient):
        """Stops a kernel whose notebook exceeds Databricks' output limits.

        A second look: the kernel ends itself before, except where processes that the notebook has
        forked print past the kernel's own count.
        """

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.meter = OutputMeter()
            self.error_is_truncated = False
            self.metered_cell = -1

        def process_message(self, msg: dict[str, Any], cell: Any, cell_index: int) -> Any:
            if cell_index != self.metered_cell:
                self.metered_cell = cell_index
                self.meter.begin_cell()
                self.error_is_truncated = False
            self.meter.add(msg["msg_type"], msg["content"], msg.get("buffers") or ())
            if self.meter.excess:
                process = _process_of(self.km)
                if process is not None and process.poll() is None:
                    request_end(process.pid)
                # Nothing more of it is read: there may be a lot still under way.
                raise CellExecutionComplete
            if msg["msg_type"] == "error" and msg["content"].get("truncated"):
                self.error_is_truncated = True
            return super().process_message(msg, cell, cell_index)

    def make(notebook: Any, folder: Path) -> tuple[Manager, Client]:
        manager = Manager(connection_file=str(folder / "kernel.json"))
        if os.name == "posix":
            # Sockets in a folder of ours: no port that another process could take or knock at.
            manager.transport = "ipc"
            manager.ip = str(folder / "kernel")
        client = Client(
            notebook,
            km=manager,
            startup_timeout=_START_SECONDS,
            ipython_hist_file=":memory:",
            timeout=None,
            record_timing=False,
        )
        return manager, client

    return make


def _write_notebook(notebook: Any, file: Path) -> None:
    file.write_text(json.dumps(notebook), encoding="utf-8")


def _process_of(manager: Any) -> Any:
    """Return the process of a kernel; None where it has not started, or was reaped already."""
    return None if manager.provisioner is None else manager.provisioner.process

"""Executes the notebook of a run, in a process of its own.

The server starts one for each run (``notebook.py``). So the modules that speak with a kernel, and a
notebook's outputs of up to 20 MB, are not in the server's memory. On Linux the process is forked
from the fork server, elsewhere it is a program: ``python notebook_program.py TASK``.

``TASK`` is a file with a JSON object: the fields of :class:`.notebook_task.Task`. Commands and
messages are lines of JSON, on standard input and output where it is a program. There is one
command, ``execute``. The end of the commands ends the process.
The messages, each an object with one field:

==============  ====================================================================================
Field           Value
==============  ====================================================================================
``ready``       true: the kernel has started, and ``execute`` is waited for
``cells``       the cells that have changed, for the page of the run
``outcome``     how the run ends: ``error``, ``trace``, ``result`` and ``truncated``
``cannot_run``  why the kernel did not start
``crash``       the trace of an error in this program
``end``         true: the kernel has ended, and the executed notebook is written
==============  ====================================================================================
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import threading
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if __name__ == "__main__":
    # First, since another version may be installed.
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from airflow_jobs_provider.local.kernel.context import (
    CONTEXT_VARIABLE,
    restart_mark,
    too_large_mark,
)
from airflow_jobs_provider.local.notebook_files import Cell, NotNotebookError, read_notebook
from airflow_jobs_provider.local.output_limits import MAX_RESULT_BYTES, OutputMeter
from airflow_jobs_provider.local.runners.kernel_client import (
    Kernel,
    KernelStartError,
    load_kernel_support,
)
from airflow_jobs_provider.local.runners.notebook_changes import NotebookChanges
from airflow_jobs_provider.local.runners.notebook_task import KERNEL_DIED, Task

if TYPE_CHECKING:
    from airflow_jobs_provider.local.runners.kernel_processes import KernelForks

__all__ = ["load_modules", "run"]

_CHANGES_SECONDS = 0.5
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def load_modules() -> None:
    """Import what the process needs later."""
    load_kernel_support()
    import_module("nbclient.exceptions")
    import_module("nbformat.notebooknode")


def run(file: Path, commands: IO[bytes], messages: IO[bytes], forks: KernelForks | None) -> None:
    """Execute a notebook as the commands say; return at their end.

    :param file: the task. It is removed.
    :param forks: what kernels are forked by; None to start programs.
    """
    task = Task(**json.loads(file.read_text(encoding="utf-8")))
    file.unlink()
    asyncio.run(_Execution(task, messages, forks).run(commands))


class _Execution:
    def __init__(self, task: Task, messages: IO[bytes], forks: KernelForks | None) -> None:
        self._task = task
        self._messages = messages
        self._forks = forks
        self._folder = Path(task.folder)
        self._exit_file = Path(task.context["exit_file"])
        self._meter = OutputMeter()
        self._kernel: Kernel | None = None
        self._kernel_number = 0
        self._notebook: Any = None
        self._changes: NotebookChanges | None = None
        self._may_execute = asyncio.Event()

    async def run(self, commands: IO[bytes]) -> None:
        """Do the work until the commands end."""
        loop = asyncio.get_running_loop()
        work = asyncio.create_task(self._work())

        def read() -> None:
            for _ in commands:
                loop.call_soon_threadsafe(self._may_execute.set)
            loop.call_soon_threadsafe(ended.set)

        ended = asyncio.Event()
        threading.Thread(target=read, daemon=True).start()
        await ended.wait()
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work
        try:
            if self._kernel is not None:
                await self._kernel.end()
            if self._notebook is not None:
                _write_notebook(self._notebook, Path(self._task.kept))
        except Exception:  # noqa: BLE001  (the workspace logs it)
            self._send("crash", traceback.format_exc())
        else:
            self._send("end", True)

    async def _work(self) -> None:
        try:
            if outcome := await self._begin():
                self._send("outcome", outcome)
                return
            self._send("ready", True)
            await self._may_execute.wait()
            showing = asyncio.create_task(self._show_changes())
            outcome = await self._execute()
            showing.cancel()
            self._send_changes()
            self._send("outcome", outcome)
        except KernelStartError as error:
            self._send("cannot_run", str(error))
        except Exception:  # noqa: BLE001  (the workspace logs it, and ends the run)
            self._send("crash", traceback.format_exc())

    def _send(self, name: str, value: Any) -> None:
        # A broken pipe: the workspace is gone, or it has killed the run.
        with suppress(BrokenPipeError):
            self._messages.write(json.dumps({name: value}).encode() + b"\n")
            self._messages.flush()

    def _send_changes(self) -> None:
        assert self._changes is not None
        if cells := self._changes.changed_cells():
            self._send("cells", cells)

    async def _show_changes(self) -> None:
        while True:
            self._send_changes()
            await asyncio.sleep(_CHANGES_SECONDS)

    async def _begin(self) -> dict[str, Any] | None:
        """Read the notebook and start its kernel; return how the run ends without it."""
        try:
            cells = read_notebook(Path(self._task.file))
        except NotNotebookError as error:
            return {"error": f"The notebook {self._task.path} cannot be read: {error}"}
        self._notebook = _notebook_of(cells)
        self._changes = NotebookChanges(self._notebook)
        await self._start_kernel({})
        return None

    async def _execute(self) -> dict[str, Any]:
        """Run the cells in order until one fails or exits the notebook."""
        assert self._kernel is not None
        from nbclient.exceptions import CellExecutionError, DeadKernelError

        for index, cell in enumerate(self._notebook.cells):
            failure: dict[str, Any] | None = None
            try:
                await self._kernel.execute(cell, index)
            except CellExecutionError as error:
                failure = _failure(cell, error, truncated=self._kernel.error_is_truncated)
            except DeadKernelError:
                # nbclient also says so when we are canceled.
                failure = {"error": KERNEL_DIED}
            # First: neither a good end of the cell nor an exit value makes up for it.
            if excess := self._excess():
                return {"error": excess}
            if self._exit_file.exists():
                return _exit_output(self._exit_file)
            mark = restart_mark(self._exit_file)
            if mark.exists():
                widgets = json.loads(mark.read_text(encoding="utf-8"))["widgets"]
                mark.unlink()
                await self._kernel.end()
                await self._start_kernel(widgets)
            elif failure is not None:
                return failure
        return {}

    async def _start_kernel(self, widgets: dict[str, str]) -> None:
        self._kernel_number += 1
        self._kernel = Kernel(
            self._notebook,
            self._folder / f"k{self._kernel_number}",
            self._task.marker,
            self._forks,
            self._meter,
        )
        given = self._folder / "context.json"
        given.touch(mode=0o600)
        given.write_text(json.dumps({**self._task.context, "widgets": widgets}), encoding="utf-8")
        await self._kernel.start(Path(self._task.file).parent, {CONTEXT_VARIABLE: str(given)})

    def _excess(self) -> str:
        """Return the message about output that is too large, or an empty text."""
        mark = too_large_mark(self._exit_file)
        if mark.exists():
            return mark.read_text(encoding="utf-8")
        return self._meter.excess


def _exit_output(file: Path) -> dict[str, Any]:
    with file.open("rb") as opened:
        data = opened.read(MAX_RESULT_BYTES + 1)
    truncated = len(data) > MAX_RESULT_BYTES
    text = data[:MAX_RESULT_BYTES].decode("utf-8", errors="ignore" if truncated else "replace")
    return {"result": text, "truncated": truncated}


def _failure(cell: Any, error: Any, *, truncated: bool) -> dict[str, Any]:
    lines: list[str] = []
    for output in cell.get("outputs", []):
        if output["output_type"] == "error":
            lines = output["traceback"]
    trace = _COLOURS.sub("", "\n".join(lines)) or _COLOURS.sub("", error.traceback)
    text = f"{error.ename}: {error.evalue}" if error.evalue else str(error.ename)
    return {"error": text, "trace": trace, "truncated": truncated}


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


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.stdin.buffer, sys.stdout.buffer, None)

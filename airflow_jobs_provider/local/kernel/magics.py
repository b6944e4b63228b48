"""Magics of Databricks notebooks, in the kernel: ``%run``, ``%pip``, ``%sql`` ..."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from airflow_jobs_provider.local.kernel.context import KernelContext
from airflow_jobs_provider.local.kernel.dbutils import NotebookExit
from airflow_jobs_provider.local.notebook_files import read_notebook
from airflow_jobs_provider.local.paths import PathRefusedError

__all__ = ["register"]

_SHOWN_CHARS = 10_000


def register(shell: Any, context: KernelContext) -> None:
    """Teach the kernel's shell the magics, and that an exit is no error."""

    def run(line: str) -> None:
        _run_notebook(shell, context, line)

    def pip(line: str) -> None:
        sys.stdout.write(
            f"%pip {line}: not done by the local workspace, which uses the packages of the "
            "Python it was started with. Install it there if it is missing.\n"
        )

    def sql(line: str, cell: str | None = None) -> Any:
        frame = shell.user_ns["spark"].sql((cell if cell is not None else line).strip())
        shell.user_ns["_sqldf"] = frame
        shell.user_ns["display"](frame)

    def unsupported(name: str) -> Any:
        def magic(_line: str, _cell: str | None = None) -> None:
            raise NotImplementedError(f"%{name} cells are not run by the local workspace")

        return magic

    for name, function in {"run": run, "pip": pip, "conda": pip}.items():
        shell.register_magic_function(function, "line", name)
    shell.register_magic_function(sql, "line_cell", "sql")
    for name in ("scala", "r", "fs"):
        shell.register_magic_function(unsupported(name), "line_cell", name)
    shell.set_custom_exc((NotebookExit,), _show_exit)


def _show_exit(_shell: Any, _kind: Any, error: BaseException, *_: Any, **__: Any) -> None:
    shown = str(error)
    shown = shown if len(shown) <= _SHOWN_CHARS else shown[:_SHOWN_CHARS] + "..."
    sys.stdout.write(f"Notebook exited: {shown}\n")


def _run_notebook(shell: Any, context: KernelContext, line: str) -> None:
    words = shlex.split(line)
    if not words:
        raise ValueError("%run needs the path of a notebook")
    written = words[0]
    try:
        file = context.notebook_file(written)
    except PathRefusedError as error:
        raise FileNotFoundError(str(error)) from None
    if file is None:
        raise FileNotFoundError(f"Notebook not found: {context.workspace_path(written)} (%run)")
    widgets = shell.user_ns["dbutils"].widgets
    for word in words[1:]:
        # %run ./other $name="value": the notebook sees the value as its widget.
        name, equals, value = word.removeprefix("$").partition("=")
        if equals:
            widgets.override(name, value)
    _execute_cells(shell, context, file)


def _execute_cells(shell: Any, context: KernelContext, file: Path) -> None:
    caller_folder, context.folder = context.folder, file.parent
    try:
        for cell in read_notebook(file):
            if cell.kind != "code":
                continue
            # In place of run_cell, which would print an error here and again in the caller.
            source = shell.transform_cell(cell.source)
            name = shell.compile.cache(source, raw_code=cell.source)
            exec(shell.compile(source, name, "exec"), shell.user_ns)  # noqa: S102  (its purpose)
    finally:
        context.folder = caller_folder

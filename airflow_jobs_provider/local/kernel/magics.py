"""Magics of Databricks notebooks, in the kernel: ``%run``, ``%pip``, ``%sql`` ..."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from airflow_jobs_provider.local.kernel.context import KernelContext
from airflow_jobs_provider.local.kernel.dbutils import NotebookExit, PythonRestart
from airflow_jobs_provider.local.kernel.namespace import Spark, SparkStarter
from airflow_jobs_provider.local.kernel.scripts import install_packages, run_script
from airflow_jobs_provider.local.kernel.sql_cells import SqlMagic
from airflow_jobs_provider.local.notebook_files import read_notebook
from airflow_jobs_provider.local.paths import PathRefusedError

__all__ = ["register"]

_SHOWN_CHARS = 10_000


def register(shell: Any, context: KernelContext, spark: Spark) -> None:
    """Teach the kernel's shell the magics, and that an exit is no error."""

    def run(line: str) -> None:
        _run_notebook(shell, context, line, starter)

    def pip(line: str) -> None:
        if context.packages:
            install_packages(context, line)
        else:
            sys.stdout.write(
                f"%pip {line}: not done by the local workspace, which uses the packages of the "
                "Python it was started with. Install it there if it is missing, or start the "
                "workspace with --pip-install.\n"
            )

    def conda(line: str) -> None:
        sys.stdout.write(f"%conda {line}: not done by the local workspace; use %pip.\n")

    def restart_python(_line: str) -> None:
        shell.user_ns["dbutils"].library.restartPython()

    def fs(line: str, cell: str | None = None) -> None:
        words = shlex.split(line if cell is None else f"{line} {cell}")
        files = shell.user_ns["dbutils"].fs
        if not words or words[0].startswith("_") or not hasattr(files, words[0]):
            raise ValueError("%fs needs a command of dbutils.fs; %fs help prints them")
        answer = getattr(files, words[0])(*words[1:])
        if answer is not None:
            shell.user_ns["display"](answer)

    sql = SqlMagic(shell, context)
    starter = SparkStarter(shell, spark)
    shell.events.register("pre_run_cell", starter.before_cell)
    shell.events.register("pre_run_cell", spark.read_tables)
    shell.events.register("post_run_cell", spark.write_tables)

    def unsupported(name: str) -> Any:
        def magic(_line: str, _cell: str | None = None) -> None:
            raise NotImplementedError(
                f"%{name} cells are not run by the local workspace; it runs Python, SQL and sh"
            )

        return magic

    line_magics = {"run": run, "pip": pip, "conda": conda, "restart_python": restart_python}
    for name, function in line_magics.items():
        shell.register_magic_function(function, "line", name)
    for name, cell_function in {"sql": sql.run, "sh": run_script, "fs": fs}.items():
        shell.register_magic_function(cell_function, "line_cell", name)
    for name in ("scala", "r"):
        shell.register_magic_function(unsupported(name), "line_cell", name)
    shell.set_custom_exc((NotebookExit, PythonRestart), _show_exit)


def _show_exit(shell: Any, _kind: Any, error: BaseException, *_: Any, **__: Any) -> None:
    # ipykernel reads it after each exception; only IPython's own handler sets it. Without it a
    # cell that awaits gets no reply.
    shell._last_traceback = []  # noqa: SLF001  (its contract)
    if isinstance(error, PythonRestart):
        sys.stdout.write("Python is restarted.\n")
        return
    shown = str(error)
    shown = shown if len(shown) <= _SHOWN_CHARS else shown[:_SHOWN_CHARS] + "..."
    sys.stdout.write(f"Notebook exited: {shown}\n")


def _run_notebook(shell: Any, context: KernelContext, line: str, starter: SparkStarter) -> None:
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
    _execute_cells(shell, context, file, starter)


def _execute_cells(shell: Any, context: KernelContext, file: Path, starter: SparkStarter) -> None:
    caller_folder, context.folder = context.folder, file.parent
    try:
        for cell in read_notebook(file):
            if cell.kind != "code":
                continue
            # In place of run_cell, which would print an error here and again in the caller.
            source = shell.transform_cell(cell.source)
            starter.before_code(source)
            name = shell.compile.cache(source, raw_code=cell.source)
            exec(shell.compile(source, name, "exec"), shell.user_ns)  # noqa: S102  (its purpose)
    finally:
        context.folder = caller_folder

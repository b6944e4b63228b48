"""The program of a notebook's kernel: IPython's, with ``dbutils``, ``spark`` and ``%run``.

Started by file name (``python .../launch.py -f CONNECTION_FILE``), so that it needs no place on the
import path and leaves none behind for the notebook to trip over. Where the workspace has a fork
server (``runners/fork_server.py``), that process has the modules loaded and calls
:func:`run_kernel` in the processes that it forks.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["load_modules", "run_kernel"]

_PACKAGE_PARENT = str(Path(__file__).resolve().parents[3])
_MODULES = ("ipykernel.kernelapp", "ipykernel.ipkernel", "IPython.core.completer")
# What these import when a kernel starts or executes its first cell. Other versions have others.
_LATE_MODULES = (
    *("IPython.core.completerlib", "IPython.core.debugger", "IPython.core.oinspect"),
    *(
        "IPython.core.display_functions",
        "IPython.display",
        "argcomplete",
        "asyncio",
        "faulthandler",
    ),
    *("ipykernel.debugger", "pdb", "sqlite3", "tornado.platform.asyncio"),
)
_OURS = (
    *("context", "forked_output", "magics", "namespace", "notebook_imports"),
    *("output_monitor", "spark_tables"),
)


def load_modules() -> None:
    """Import what a kernel needs; no thread is started, and no socket is opened."""
    sys.path.insert(0, _PACKAGE_PARENT)
    try:
        for name in _OURS:
            import_module(f"airflow_jobs_provider.local.kernel.{name}")
    finally:
        sys.path.remove(_PACKAGE_PARENT)
    for name in _MODULES:
        import_module(name)
    for name in _LATE_MODULES:
        with suppress(ImportError):
            import_module(name)


def run_kernel(arguments: list[str]) -> None:
    """Run the kernel until it is told to stop or the workspace is gone.

    :param arguments: those of ipykernel's own program.
    """
    from airflow_jobs_provider.local.kernel import magics
    from airflow_jobs_provider.local.kernel.context import KernelContext
    from airflow_jobs_provider.local.kernel.forked_output import receive_at
    from airflow_jobs_provider.local.kernel.namespace import Spark, names_for
    from airflow_jobs_provider.local.kernel.notebook_imports import (
        NotebookSkipper,
        provide_modules,
    )
    from airflow_jobs_provider.local.kernel.output_monitor import limit_output

    context = KernelContext.from_environment()
    skipper: Any = NotebookSkipper(context.root, context.code_root)
    sys.meta_path.insert(0, skipper)
    spark = Spark(context)
    names = names_for(context, spark)
    provide_modules(names)
    kernelapp: Any = import_module("ipykernel.kernelapp")
    receive_at(context.exit_file.with_name("forked"), kernelapp.IOPubThread)
    app = kernelapp.IPKernelApp.instance(user_ns=names)
    app.initialize(arguments)
    magics.register(app.shell, context, spark)
    limit_output(app.shell, app.session, context)
    # The notebook's folder, its libraries and the workspace's root, as Databricks has it.
    installed = [context.packages] if context.packages else []
    sys.path[:0] = [str(context.folder), *context.import_path, *installed]
    app.start()


if __name__ == "__main__":
    if not sys.flags.safe_path:
        # Python put this file's folder first; a notebook importing `magics` must not find ours.
        sys.path.pop(0)
    load_modules()
    run_kernel(sys.argv[1:])

"""The program of a notebook's kernel: IPython's, with ``dbutils``, ``spark`` and ``%run``.

Started by file name (``python .../launch.py -f CONNECTION_FILE``), so that it needs no place on the
import path and leaves none behind for the notebook to trip over.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

_PACKAGE_PARENT = str(Path(__file__).resolve().parents[3])


def main() -> None:
    """Run the kernel until it is told to stop or the workspace is gone."""
    # Python put this file's folder first; a notebook importing `magics` must not find ours.
    sys.path.pop(0)
    sys.path.insert(0, _PACKAGE_PARENT)
    from airflow_jobs_provider.local.kernel import magics
    from airflow_jobs_provider.local.kernel.context import KernelContext
    from airflow_jobs_provider.local.kernel.namespace import names_for
    from airflow_jobs_provider.local.kernel.output_monitor import limit_output

    sys.path.remove(_PACKAGE_PARENT)
    context = KernelContext.from_environment()

    kernelapp: Any = import_module("ipykernel.kernelapp")
    app = kernelapp.IPKernelApp.instance(user_ns=names_for(context))
    app.initialize(sys.argv[1:])
    magics.register(app.shell, context)
    limit_output(app.shell, app.session, context)
    # The notebook's folder and the workspace's root, as Databricks has it.
    sys.path[:0] = [str(context.folder), str(context.root)]
    app.start()


if __name__ == "__main__":
    main()

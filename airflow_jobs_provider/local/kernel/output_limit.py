"""The limit of a cell's output, kept where the output is made (reference: "NotebookTask")."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from airflow_jobs_provider.local.kernel.context import (
    MAX_CELL_OUTPUT_BYTES,
    KernelContext,
    too_large_mark,
)

__all__ = ["limit_output"]


def limit_output(shell: Any, context: KernelContext) -> None:
    """Have the kernel end itself when a cell prints more than Databricks lets it.

    A loop that prints makes hundreds of megabytes in the second it takes to be noticed from
    outside, and the workspace would have to read them all.
    """
    written = 0

    def begin_cell(*_: object) -> None:
        nonlocal written
        written = 0

    def limited(write: Callable[[str], int]) -> Callable[[str], int]:
        def limited_write(text: str) -> int:
            nonlocal written
            written += len(text)
            if written > MAX_CELL_OUTPUT_BYTES:
                too_large_mark(context.exit_file).touch()
                os._exit(1)
            return write(text)

        return limited_write

    shell.events.register("pre_run_cell", begin_cell)
    for stream in (sys.stdout, sys.stderr):
        stream.write = limited(stream.write)  # type: ignore[method-assign]

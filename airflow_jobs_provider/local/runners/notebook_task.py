"""What the server and the process that executes a notebook tell each other.

Both import it, so it imports the standard library only.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["EXECUTE", "KERNEL_DIED", "Task", "last_line", "start_failure"]

EXECUTE = b'"execute"\n'
KERNEL_DIED = "The notebook's Python process died (killed, or out of memory?)"
_LAST_BYTES = 2000


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be executed.

    :param path: the path of the notebook in the workspace, for messages.
    :param file: its file.
    :param folder: a folder for what is needed only while the run runs.
    :param kept: the file that the executed notebook is written to.
    :param marker: the run's marker.
    :param context: what the kernel needs to know (``kernel/context.py``), without the widgets.
    """

    path: str
    file: str
    folder: str
    kept: str
    marker: str
    context: dict[str, Any]


def start_failure(*reasons: str) -> str:
    """Return the message of a run whose kernel did not start."""
    reason = ": ".join(filter(None, reasons)) or "its process died"
    return f"The notebook's kernel did not start: {reason}"


def last_line(log: Path) -> str:
    """Return the last line of a log; empty if there is none."""
    try:
        with log.open("rb") as opened:
            opened.seek(max(0, opened.seek(0, os.SEEK_END) - _LAST_BYTES))
            return opened.read().decode("utf-8", errors="replace").rstrip().rpartition("\n")[2]
    except FileNotFoundError:
        return ""

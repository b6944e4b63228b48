"""Environment variables that tell which run of which workspace a process belongs to.

Each process of a run inherits its run's marker. So a process that outlived its workspace is found
again, though its parent has ended and its process id tells nothing.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["MARKER_VARIABLE", "kill_marked", "run_marker", "workspace_id"]

MARKER_VARIABLE = "AIRFLOW_JOBS_PROVIDER_LOCAL_RUN"
_ID_FILE = "workspace-id"
# Each look finds what was forked during the one before.
_MAX_LOOKS = 20
_END_SECONDS = 2.0


def workspace_id(state_dir: Path) -> str:
    """Return the random id of the workspace of a state folder; made at its first start."""
    file = state_dir / _ID_FILE
    with suppress(FileNotFoundError):
        if known := file.read_text(encoding="ascii").strip():
            return known
    made = secrets.token_hex(16)
    file.touch(mode=0o600)
    file.write_text(made, encoding="ascii")
    return made


def run_marker(workspace: str, run_id: int | None = None) -> str:
    """Return the marker of a run's processes, or the prefix of all markers of the workspace."""
    return f"{workspace}:{'' if run_id is None else f'{run_id}:'}"


def kill_marked(marker: str) -> int:
    """Kill this user's processes whose marker has this prefix; return their number.

    Neither this process nor one of its ancestors is killed: a workspace may itself be the work of a
    run. psutil compares the time at which a process was created before it sends a signal, so that a
    process id that was given to another process meanwhile does no harm.
    """
    # Takes a moment to import.
    psutil: Any = import_module("psutil")
    this = psutil.Process()
    spared = {this.pid, *(parent.pid for parent in this.parents())}
    found = 0
    for _ in range(_MAX_LOOKS):
        marked = [process for process in _marked(psutil, marker) if process.pid not in spared]
        if not marked:
            break
        found += len(marked)
        for process in marked:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(marked, timeout=_END_SECONDS)
    return found


def _marked(psutil: Any, marker: str) -> list[Any]:
    marked = []
    for process in psutil.process_iter():
        # Ended meanwhile, or not ours to look at.
        with suppress(psutil.Error, OSError):
            if (
                _is_of_this_user(process)
                and process.environ().get(MARKER_VARIABLE, "").startswith(marker)
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                marked.append(process)
    return marked


def _is_of_this_user(process: Any) -> bool:
    return not hasattr(os, "getuid") or process.uids().real == os.getuid()

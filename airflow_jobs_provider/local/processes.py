"""Child processes of runs: started so that they die with the workspace, stopped for certain."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from airflow_jobs_provider.local import with_parent

__all__ = ["environment_of_runs", "kill_tree", "start_process", "stop_process"]

_GRACE_SECONDS = 2.0
# What belongs to the workspace's own surroundings, not to the code it runs.
_NOT_INHERITED = ("AIRFLOW_CONN_", "AIRFLOW_VAR_", "AIRFLOW__", "DATABRICKS_")


def environment_of_runs(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a run's process: ours, without secrets that it has no use for."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(_NOT_INHERITED)}
    # Spark would listen on the machine's address in the network.
    return {"SPARK_LOCAL_IP": "127.0.0.1", **kept, **(extra or {})}


async def start_process(
    command: Sequence[str], *, cwd: Path, env: Mapping[str, str], log: Path
) -> asyncio.subprocess.Process:
    """Start a command in a session of its own, its output going to ``log``.

    It writes to the file itself, so that not even endless output passes through the workspace.
    """
    with log.open("wb") as output:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-IS",
            with_parent.__file__,
            str(os.getpid()),
            *command,
            cwd=cwd,
            env=env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


async def stop_process(process: asyncio.subprocess.Process) -> None:
    """Ask a process to end, and soon make it, with all that it has started."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _GRACE_SECONDS)
    kill_tree(process.pid)
    await process.wait()


def kill_tree(pid: int) -> None:
    """Kill a process that leads its own group, with its group and its descendants."""
    # Takes a moment to import; not when the workspace starts.
    psutil: Any = import_module("psutil")
    descendants: list[Any] = []
    with suppress(psutil.Error):
        descendants = psutil.Process(pid).children(recursive=True)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    for descendant in descendants:
        with suppress(psutil.Error):
            descendant.kill()

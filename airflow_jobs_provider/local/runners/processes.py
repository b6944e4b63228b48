"""Starts and ends the processes of runs; none outlives the workspace."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from airflow_jobs_provider.local.runners.process_markers import MARKER_VARIABLE, kill_marked

__all__ = [
    "end_process_tree",
    "environment_of_runs",
    "request_end",
    "start_process",
    "stop_process",
    "supervised",
]

_GRACE_SECONDS = 2.0
# Longer than a supervisor takes at most to kill all that there is.
_END_SECONDS = 6.0
_POLL_SECONDS = 0.01
# What belongs to the workspace's own surroundings, not to the code it runs. Under pytest's variable
# an ipykernel would leave out what a notebook's child processes print.
_NOT_INHERITED = (
    "AIRFLOW_CONN_",
    "AIRFLOW_VAR_",
    "AIRFLOW__",
    "DATABRICKS_",
    "PYTEST_CURRENT_TEST",
)
_SUPERVISOR = Path(__file__).with_name("supervisor.py")
_HAS_SUPERVISOR = sys.platform.startswith("linux")


def environment_of_runs(marker: str, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a run's process: ours, without secrets that it has no use for.

    :param marker: the run's marker (see :func:`.process_markers.run_marker`).
    """
    kept = {name: text for name, text in os.environ.items() if not name.startswith(_NOT_INHERITED)}
    # Else Spark would listen on the machine's address in the network, and run functions and
    # applications in Python with the python3 that PATH has.
    spark = {"SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable}
    return {**spark, **kept, **(extra or {}), MARKER_VARIABLE: marker}


def supervised(command: Sequence[str]) -> list[str]:
    """Return the command that runs ``command`` below a supervisor; itself where there is none."""
    if not _HAS_SUPERVISOR:
        return [*command]
    return [sys.executable, "-IS", str(_SUPERVISOR), str(os.getpid()), *command]


async def start_process(
    command: Sequence[str], *, cwd: Path, env: Mapping[str, str], log: Path
) -> asyncio.subprocess.Process:
    """Start a command in a session of its own, its output going to ``log``.

    It writes to the file itself, so that not even endless output passes through the workspace.
    """
    with log.open("wb") as output:
        return await asyncio.create_subprocess_exec(
            *supervised(command),
            cwd=cwd,
            env=env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


async def stop_process(process: asyncio.subprocess.Process, marker: str) -> None:
    """Terminate a process and its descendants; kill them if they do not end soon."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _GRACE_SECONDS)
    await end_process_tree(process.pid, lambda: process.returncode, marker)
    await process.wait()


def request_end(pid: int) -> None:
    """Begin to end a process with its descendants; :func:`end_process_tree` finishes it."""
    if _HAS_SUPERVISOR:
        # Here, since it imports what only Unix has.
        from airflow_jobs_provider.local.runners.supervisor import END_SIGNAL

        with suppress(ProcessLookupError):
            os.kill(pid, END_SIGNAL)
    else:
        _kill_tree(pid)


async def end_process_tree(pid: int, return_code: Callable[[], int | None], marker: str) -> None:
    """End a process and its descendants; return when all are gone.

    :param pid: the process that :func:`supervised` commands have started, not reaped yet unless
        ``return_code`` tells so.
    :param return_code: how the process ended; None while it has not.
    :param marker: the run's marker, by which those are found that have lost their supervisor.
    """
    if return_code() is None:
        request_end(pid)
        with suppress(TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                # Of two kinds of process, one of which has nothing to await.
                while return_code() is None:  # noqa: ASYNC110
                    await asyncio.sleep(_POLL_SECONDS)
    if _HAS_SUPERVISOR and return_code() not in {None, -signal.SIGKILL}:
        # The supervisor ended by itself: nothing is left.
        return
    if return_code() is None or not _HAS_SUPERVISOR:
        # The supervisor was stopped; or there is none, and the process group may live on.
        _kill_tree(pid)
    await asyncio.to_thread(kill_marked, marker)


def _kill_tree(pid: int) -> None:
    """Kill a process that leads its own group, with its group and its descendants."""
    # Takes a moment to import; not when the workspace starts.
    psutil: Any = import_module("psutil")
    # Before the leader dies: afterwards they are nobody's descendants.
    descendants: list[Any] = []
    with suppress(psutil.Error):
        descendants = psutil.Process(pid).children(recursive=True)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    for descendant in descendants:
        with suppress(psutil.Error):
            descendant.kill()

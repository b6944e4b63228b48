"""Processes of an Airflow under test: are they alive, stop them where they are, kill them."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

__all__ = ["has_pending", "is_alive", "send", "stopped"]


def is_alive(process: psutil.Process) -> bool:
    """Return whether a process goes on; one that waits to be reaped does not."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def send(processes: Iterable[psutil.Process], *signs: signal.Signals) -> None:
    """Send each signal to all processes that are still there, one signal after the other."""
    present = list(processes)
    for sign in signs:
        for process in present:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(sign)


@contextmanager
def stopped(process: psutil.Process) -> Iterator[None]:
    """Stop a process where it is; signals that come meanwhile act when it goes on."""
    process.suspend()
    try:
        while process.status() != psutil.STATUS_STOPPED:
            time.sleep(0.01)
        yield
    finally:
        with suppress(psutil.NoSuchProcess):
            process.resume()


def has_pending(process: psutil.Process, sign: signal.Signals) -> bool:
    """Return whether a signal waits for a stopped process to go on; Linux tells it."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    masks = (line.split()[1] for line in status.splitlines() if line.startswith("ShdPnd:"))
    return any(int(mask, 16) >> (sign - 1) & 1 for mask in masks)

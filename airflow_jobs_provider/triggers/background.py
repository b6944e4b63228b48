"""Work of a trigger that goes on after the trigger was canceled."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from typing import Any

__all__ = ["start_in_background", "wait_despite_cancels"]

# The event loop keeps only weak references to tasks.
_tasks: set[asyncio.Task[None]] = set()


def start_in_background(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Start work that goes on when its trigger has ended."""
    task = asyncio.create_task(work)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    return task


async def wait_despite_cancels(work: Coroutine[Any, Any, None], *, timeout_seconds: float) -> None:
    """Start work, and wait for its end although the caller is canceled meanwhile.

    Airflow cancels a trigger about every second until the trigger has ended. Work that takes longer
    than the timeout goes on in the background.

    :param work: the work.
    :param timeout_seconds: wait no longer than this.
    """
    task = start_in_background(work)
    deadline = time.monotonic() + timeout_seconds
    while not task.done() and (left := deadline - time.monotonic()) > 0:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({task}, timeout=left)

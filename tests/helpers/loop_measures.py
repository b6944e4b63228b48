"""Measures of an event loop: its turns and the garbage collections, in seconds of CPU."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

__all__ = ["Collections", "Turns"]


class Collections:
    """Times the garbage collections, in seconds of CPU; made in the thread of the event loop.

    :ivar total: all collections in the thread of the event loop.
    :ivar longest: the longest one there.
    :ivar longest_elsewhere: the longest one in another thread. It holds the GIL, so it delays the
        event loop as well.
    :ivar full_elsewhere: how many full collections there were in other threads.
    """

    def __init__(self) -> None:
        self.longest = self.total = self.longest_elsewhere = self._started = 0.0
        self.full_elsewhere = 0
        self._thread = threading.get_ident()

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        """Note when a collection starts and stops."""
        now = time.thread_time()
        if phase == "start":
            self._started = now
            return
        seconds = now - self._started
        if threading.get_ident() == self._thread:
            self.longest = max(self.longest, seconds)
            self.total += seconds
        else:
            self.longest_elsewhere = max(self.longest_elsewhere, seconds)
            self.full_elsewhere += info["generation"] == 2


class Turns:
    """Times the turns of the event loop, in seconds of CPU: for so long nobody else had one."""

    def __init__(self, collections: Collections) -> None:
        self.longest = self.longest_without_collections = 0.0
        self._collections = collections

    def watch(self) -> None:
        """Time every turn from now on; this costs next to nothing, as a sleeper would not."""
        loop_class: Any = asyncio.base_events.BaseEventLoop
        turn = loop_class._run_once

        def timed(loop: Any) -> None:
            collected, before = self._collections.total, time.thread_time()
            turn(loop)
            taken = time.thread_time() - before
            self.longest = max(self.longest, taken)
            self.longest_without_collections = max(
                self.longest_without_collections, taken - (self._collections.total - collected)
            )

        loop_class._run_once = timed

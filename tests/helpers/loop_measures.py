"""Measures of an event loop: its turns and the garbage collections, in seconds of CPU."""

from __future__ import annotations

import asyncio
import time
from typing import Any

__all__ = ["Collections", "Turns"]


class Collections:
    """Times the garbage collections, in seconds of CPU."""

    def __init__(self) -> None:
        self.longest = self.total = self._started = 0.0

    def __call__(self, phase: str, _info: Any) -> None:
        """Note when a collection starts and stops."""
        now = time.thread_time()
        if phase == "start":
            self._started = now
        else:
            self.longest = max(self.longest, now - self._started)
            self.total += now - self._started


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

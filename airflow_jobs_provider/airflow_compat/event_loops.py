"""PerEventLoop: a value of each event loop. The loop of another thread, or test, has its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["PerEventLoop"]

T = TypeVar("T")


class PerEventLoop(Generic[T]):
    """Makes a value for each event loop in which it is asked for, and forgets those of closed ones.

    :param make: makes the value. It is called in the event loop.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._values: dict[asyncio.AbstractEventLoop, T] = {}

    def get(self) -> T:
        """Return the value of the running event loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._values:
            # Another thread, with a loop of its own, may do the same at this moment.
            for other in list(self._values):
                if other.is_closed():
                    self._values.pop(other, None)
            self._values[loop] = self._make()
        return self._values[loop]

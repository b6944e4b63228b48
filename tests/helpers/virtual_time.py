"""An event loop whose clock jumps to the next timer instead of waiting for it."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["VirtualTimeLoop", "run_in_virtual_time"]

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    """Waits for nothing: the time that it was to wait has passed."""

    now = 1_000.0
    rounds = 0

    def select(self, timeout: float | None = None) -> Any:
        """Let the time pass; return what is ready."""
        if timeout is None:
            raise RuntimeError("every task waits, and no timer is set")
        self.now += max(0.0, timeout)
        self.rounds += 1
        return super().select(0)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop with a clock of its own, which begins at 1000 seconds."""

    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        """Return the seconds of the clock."""
        return self._clock.now

    @property
    def rounds(self) -> int:
        """How often the loop has looked for something to do."""
        return self._clock.rounds


def run_in_virtual_time(main: Coroutine[Any, Any, T], loop: VirtualTimeLoop) -> T:
    """Run a coroutine to its end, then cancel what it has left.

    :param main: the coroutine.
    :param loop: the loop; it is closed.
    """
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main)

"""A value of each event loop."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

from airflow_jobs_provider.airflow_compat.event_loops import PerEventLoop


class Value:
    """A value to which there may be weak references."""


def test_an_event_loop_has_one_value_and_another_loop_has_another() -> None:
    """A trigger in another thread, or in another test, must not wait for a lock of this one."""
    values = PerEventLoop(Value)

    async def get_twice() -> tuple[Value, Value]:
        return values.get(), values.get()

    first, again = asyncio.run(get_twice())
    other, _ = asyncio.run(get_twice())
    assert first is again
    assert other is not first


def test_what_a_closed_loop_had_is_forgotten() -> None:
    """As soon as the next loop asks; the value of a loop that goes on is kept."""
    values = PerEventLoop(Value)

    async def get() -> Value:
        return values.get()

    going_on = asyncio.new_event_loop()
    kept = going_on.run_until_complete(get())
    closed = weakref.ref(asyncio.run(get()))
    asyncio.run(get())
    gc.collect()
    assert closed() is None
    assert going_on.run_until_complete(get()) is kept
    going_on.close()


class Loop(asyncio.SelectorEventLoop):
    """An event loop that lets two threads find at the same moment that it is closed."""

    both = threading.Barrier(2)
    is_watched = False

    def is_closed(self) -> bool:
        """Return whether it is closed."""
        if self.is_watched:
            self.both.wait(30)
        return super().is_closed()


def test_two_threads_forget_a_closed_event_loop_at_the_same_moment() -> None:
    """Each gets the value of its own event loop."""
    values = PerEventLoop(object)

    async def get() -> object:
        first = values.get()
        assert values.get() is first
        return first

    with asyncio.Runner(loop_factory=Loop) as runner:
        closed, loop = runner.run(get()), runner.get_loop()
    assert isinstance(loop, Loop)
    loop.is_watched = True
    with ThreadPoolExecutor(2) as threads:
        found = [threads.submit(asyncio.run, get()) for _ in range(2)]
        kept = {id(one.result(30)) for one in found}
    loop.is_watched = False
    assert len({*kept, id(closed)}) == 3
    assert loop not in values._values

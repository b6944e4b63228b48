"""A value of each event loop."""

from __future__ import annotations

import asyncio
import gc
import weakref

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

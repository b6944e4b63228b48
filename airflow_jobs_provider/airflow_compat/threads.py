"""Blocking functions of Airflow, called by a trigger in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

__all__ = ["in_thread"]

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a blocking function in asgiref's thread, and return its result.

    Airflow's way back to the event loop goes through that thread. If the caller is canceled
    meanwhile, it gets the CancelledError at once, and the function continues to its end. Airflow
    calls ``on_kill`` only for a CancelledError that has Airflow's own message. asgiref would raise
    one without a message.

    :param function: the function.
    :param args: its arguments; ``kwargs`` those that are given by name.
    """
    # Imported here: a DAG file that is parsed needs none of it.
    from asgiref.sync import sync_to_async

    return await asyncio.shield(sync_to_async(function)(*args, **kwargs))

"""When does a trigger fire its event, so that Airflow takes it together with others?

Airflow logs each event in the process of the triggers. Its main process wakes up for the log, and
each time asks the database for new, lost and ended triggers, which takes about 8 ms of processor
time. For the lines of events that are fired together it does so once.
"""

from __future__ import annotations

import asyncio

__all__ = ["BATCH_SECONDS", "seconds_until_batch"]

#: The triggers of tasks in a process fire their events at multiples of this time. Airflow passes
#: events on once a second.
BATCH_SECONDS = 0.1


def seconds_until_batch() -> float:
    """Return how long a trigger has to wait until events are fired, by the clock of its loop."""
    return BATCH_SECONDS - asyncio.get_running_loop().time() % BATCH_SECONDS

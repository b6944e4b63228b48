"""Wait for many runs with deferred triggers that log in, and measure what it does to the loop.

A process of its own, since a process logs in once for all its triggers. Reads from standard input:
``{"runs", "period", "warm_up", "more_runs", "rounds"}``: run ids, the polling period in seconds,
the id of a run that has ended, an address that starts more runs and returns their ids, and how
often to wait for more. Writes the measures to standard output. Both are JSON. The connection
``runs`` is the one that is measured; ``warm_up`` has a plain token.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp

from airflow_jobs_provider.api.auth.sdk.extras import require
from airflow_jobs_provider.triggers.jobs import DatabricksJobRunTrigger
from tests.helpers.loop_measures import Collections, Turns

BEAT_SECONDS = 0.005
# Work that is less is nothing to look at.
LITTLE_SECONDS = 0.01
# What a poller parses. To do so takes half a millisecond.
PAGE = json.dumps(
    [
        {"run_id": number, "state": {"life_cycle_state": "RUNNING", "state_message": "x" * 50}}
        for number in range(400)
    ]
)


class Lateness:
    """How late a timer of the event loop is, measured in three ways.

    :ivar longest: the longest delay, whatever the loop waited for: work, a blocking call or the
        GIL. The time that the machine gave to other processes is not counted. In seconds.
    :ivar longest_work: the most processor time of all threads from the timer's start to its end.
        Whatever works in this process delays the loop no longer, be it on the loop, a thread with
        the GIL or a garbage collection. In seconds.
    :ivar longest_work_in_pages: the most work as a multiple of what it takes right afterwards to
        parse a page. Other processes that use the caches of the processor make both longer.
    """

    def __init__(self) -> None:
        self.longest = self.longest_work = self.longest_work_in_pages = 0.0

    async def watch(self) -> None:
        """Measure until it is canceled."""
        while True:
            began, queued = time.monotonic(), _queued_seconds()
            worked = time.process_time()
            await asyncio.sleep(BEAT_SECONDS)
            worked = time.process_time() - worked
            self.longest_work = max(self.longest_work, worked)
            late = time.monotonic() - began - BEAT_SECONDS
            if late > self.longest:
                now = _queued_seconds()
                late -= sum(now[thread] - queued[thread] for thread in now.keys() & queued.keys())
                self.longest = max(self.longest, late)
            if worked > LITTLE_SECONDS:
                in_pages = worked / _seconds_of_a_page()
                self.longest_work_in_pages = max(self.longest_work_in_pages, in_pages)


def _seconds_of_a_page() -> float:
    """Return the processor time that parsing a page takes now."""
    taken = []
    for _ in range(3):
        began = time.thread_time()
        json.loads(PAGE)
        taken.append(time.thread_time() - began)
    return min(taken)


def _queued_seconds() -> dict[str, float]:
    """Return how long each thread of this process was ready to run while the cores were busy.

    All of them: the event loop may wait for the GIL of one that waits for a core.
    """
    seconds = {}
    for file in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):  # the thread has ended
            seconds[file.parent.name] = int(file.read_text().split()[1]) / 1e9
    return seconds


async def follow(run_id: int, connection: str, period: float) -> str:
    """Wait for a run; return the state that the event tells."""
    trigger = DatabricksJobRunTrigger(
        run_id=run_id,
        databricks_conn_id=connection,
        polling_period_seconds=period,
        life_cycle_state="RUNNING",
    )
    async for event in trigger.run():
        return json.dumps(event.payload, default=str)
    return "no event"


async def follow_all(runs: list[int], period: float, lateness: Lateness) -> list[str]:
    """Wait for runs that end together, and measure meanwhile; return the states."""
    watcher = asyncio.create_task(lateness.watch())
    tasks = []
    for number, run_id in enumerate(runs):
        tasks.append(asyncio.create_task(follow(run_id, "runs", period)))
        if number % 100 == 99:
            await asyncio.sleep(0)
    payloads = await asyncio.gather(*tasks)
    watcher.cancel()
    return payloads


async def drive(wish: dict[str, Any]) -> dict[str, Any]:
    """Follow all runs to their ends."""
    # What a thread imports for the first token is measured apart, since the full garbage collection
    # after it is no part of a triggerer's life.
    await follow(wish["warm_up"], "warm_up", 1)
    importing, lateness = Lateness(), Lateness()
    watcher = asyncio.create_task(importing.watch())
    module = "airflow_jobs_provider.api.auth.sdk.strategies"
    await asyncio.to_thread(require, module, method="oauth", install="[auth]")
    watcher.cancel()
    gc.collect()
    gc.freeze()
    collections = Collections()
    gc.callbacks.append(collections)
    turns = Turns(collections)
    turns.watch()
    cpu = time.process_time()
    payloads = await follow_all(wish["runs"], wish["period"], lateness)
    rounds = [lateness]
    async with aiohttp.ClientSession() as session:
        for _ in range(wish["rounds"]):
            async with session.post(wish["more_runs"]) as response:
                more = await response.json()
            rounds.append(Lateness())
            payloads += await follow_all(more, wish["period"], rounds[-1])
    return {
        "succeeded": sum('"SUCCESS"' in payload for payload in payloads),
        "other": [payload for payload in payloads if '"SUCCESS"' not in payload][:3],
        "longest_turn_ms": 1000 * turns.longest_without_collections,
        "longest_lateness_ms": 1000 * lateness.longest,
        "longest_work_ms": [1000 * one.longest_work for one in rounds],
        "longest_work_in_pages": [one.longest_work_in_pages for one in rounds],
        "lateness_while_importing_ms": 1000 * importing.longest,
        "work_while_importing_ms": 1000 * importing.longest_work,
        "cpu_seconds": time.process_time() - cpu,
    }


if __name__ == "__main__":
    logging.disable(logging.INFO)
    json.dump(asyncio.run(drive(json.load(sys.stdin))), sys.stdout)

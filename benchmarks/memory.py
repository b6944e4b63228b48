"""What one waiting trigger keeps in memory: bytes, and objects that the garbage collector walks.

    python -m benchmarks.memory

A thousand triggers wait in one process, by tracemalloc; first before the first look at their runs,
then when each has been told that its run is RUNNING. What the task and the coroutine cost in which
Airflow runs any trigger is in it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import tempfile
import tracemalloc
from typing import Any

from benchmarks import waits

RUNS = 1000
PERIOD = 2.0


async def measure(address: str) -> list[dict[str, Any]]:
    """Return both measures.

    :param address: of the counting server; its last run has ended.
    """
    from airflow_jobs_provider.triggers.jobs import DatabricksJobRunTrigger

    connection = {"conn_type": "databricks_jobs", "host": address, "password": "a-token"}
    os.environ["AIRFLOW_CONN_BENCH"] = json.dumps(connection)

    async def wait_for(run_id: int, period: float) -> None:
        trigger = DatabricksJobRunTrigger(
            run_id, databricks_conn_id="bench", polling_period_seconds=period
        )
        async for _ in trigger.run():
            pass

    # What is imported and made once is not a trigger's.
    await wait_for(0, 0.1)
    run_ids = range(1, RUNS + 1)

    async def measure_one(name: str, period: float, seconds: float) -> dict[str, Any]:
        gc.collect()
        await asyncio.sleep(1)  # generators of the measure before come to their ends
        gc.collect()
        objects = len(gc.get_objects())
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        tasks = [asyncio.create_task(wait_for(run_id, period)) for run_id in run_ids]
        await asyncio.sleep(seconds)
        gc.collect()
        size = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        kept = len(gc.get_objects()) - objects
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return {"name": name, "bytes": size / RUNS, "objects": kept / RUNS}

    return [
        await measure_one("before the first look at its run", 60.0, 1.0),
        await measure_one("whose run is known to be RUNNING", PERIOD, 1.5 * PERIOD),
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """Write the measures as a Markdown table."""
    lines = ["| a waiting trigger | kB | objects |", "| --- | --- | --- |"]
    lines += [
        f"| {row['name']} | {row['bytes'] / 1000:.1f} | {row['objects']:.0f} |" for row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure and write it as JSON, for the report."""
    with tempfile.TemporaryDirectory() as home, waits.counting_server() as address:
        os.environ["AIRFLOW_HOME"] = home
        waits.ask(f"{address}/set-up", {"runs": RUNS, "first_end": 3600, "last_end": 3600})
        print(json.dumps(asyncio.run(measure(address))))


if __name__ == "__main__":
    main()

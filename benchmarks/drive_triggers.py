"""Wait for many runs with the triggers of one provider, in one event loop, and measure it.

Started by ``waits.py``, once for each provider, with the Python of its environment. Reads
``{"url", "provider", "ends": {run_id: time}, "period", "api_version"}`` from standard input, and
``group`` where the runs are those of the tasks of one run. Writes the measures to standard output,
each as JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import statistics
import sys
import time
from typing import Any

from tests.helpers.loop_measures import Collections, Turns


def make_trigger(provider: str, run_id: int, period: float, group: int | None = None) -> Any:
    """Make the provider's trigger for a run, or for a task of the run ``group``."""
    if provider == "official":
        from airflow.providers.databricks.triggers.databricks import (  # type: ignore[import-not-found]
            DatabricksExecutionTrigger,
        )

        return DatabricksExecutionTrigger(
            run_id=run_id, databricks_conn_id="bench", polling_period_seconds=int(period)
        )
    if group is not None:
        from airflow_jobs_provider.triggers.workflow import DatabricksWorkflowTaskTrigger

        return DatabricksWorkflowTaskTrigger(
            run_id,
            workflow_run_id=group,
            task_key=f"t{run_id}",
            databricks_conn_id="bench",
            polling_period_seconds=period,
        )
    from airflow_jobs_provider.triggers.jobs import DatabricksJobRunTrigger

    return DatabricksJobRunTrigger(
        run_id=run_id,
        databricks_conn_id="bench",
        polling_period_seconds=period,
        life_cycle_state="RUNNING",  # the operator has looked once before it defers
    )


async def drive(wish: dict[str, Any]) -> dict[str, Any]:
    """Run all triggers to their ends."""
    late: list[float] = []
    events: dict[int, int] = {}
    ends = {int(run_id): end for run_id, end in wish["ends"].items()}

    async def wait_for(run_id: int) -> None:
        trigger = make_trigger(wish["provider"], run_id, wish["period"], wish.get("group"))
        async for _ in trigger.run():
            late.append(time.time() - ends[run_id])
            events[run_id] = events.get(run_id, 0) + 1

    # One wait before anything is counted, so that what happens once (imports) is not.
    async for _ in make_trigger(wish["provider"], wish["warm_up"], 1).run():
        pass
    # What Airflow brought into memory is not walked by the garbage collector from now on: that walk
    # is no provider's doing. How long it takes is told apart.
    gc.collect()
    before = time.thread_time()
    gc.collect()
    airflows_collection = time.thread_time() - before
    gc.freeze()
    memory_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    collections = Collections()
    turns = Turns(collections)
    turns.watch()
    gc.callbacks.append(collections)
    cpu_before = time.process_time()
    tasks: list[asyncio.Task[None]] = []
    for n, run_id in enumerate(ends):
        tasks.append(asyncio.create_task(wait_for(run_id)))
        if n % 100 == 99:
            await asyncio.sleep(0)  # the triggerer takes them up in portions, too
    results = await asyncio.gather(*tasks, return_exceptions=True)
    cpu = time.process_time() - cpu_before
    late.sort()
    return {
        "events": len(late),
        "repeated": sum(count - 1 for count in events.values()),
        "failed": sum(isinstance(result, BaseException) for result in results),
        "cpu_seconds": cpu,
        "peak_kb_per_run": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory_before)
        / len(ends),
        "longest_block_ms": 1000 * turns.longest,
        "longest_without_collections_ms": 1000 * turns.longest_without_collections,
        "longest_collection_ms": 1000 * collections.longest,
        "longest_collection_in_threads_ms": 1000 * collections.longest_elsewhere,
        "full_collections_in_threads": collections.full_elsewhere,
        "airflows_collection_ms": 1000 * airflows_collection,
        "late_median": statistics.median(late) if late else None,
        "late_p99": late[int(0.99 * (len(late) - 1))] if late else None,
        "late_worst": late[-1] if late else None,
    }


def main() -> None:
    """Measure once."""
    wish = json.load(sys.stdin)
    host, port = wish["url"].removeprefix("http://").split(":")
    os.environ["AIRFLOW_CONN_BENCH"] = json.dumps(
        {"conn_type": "databricks", "schema": "http", "host": host, "port": int(port)}
        | {"password": "a-token", "extra": {"api_version": wish["api_version"]}}
    )
    import logging

    make_trigger(wish["provider"], 0, wish["period"])
    logging.disable(logging.INFO)
    began = time.time()
    measures = asyncio.run(drive(wish))
    json.dump({**measures, "wall_seconds": time.time() - began}, sys.stdout)


if __name__ == "__main__":
    main()

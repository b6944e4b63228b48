"""Calls methods of the official hook and of the one here, and prints what both return, as JSON.

Run in an environment that has both providers; the connection is ``databricks_default``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from importlib import import_module
from typing import Any

from airflow.providers.common.compat.sdk import AirflowException

from airflow_jobs_provider.hooks.jobs import DatabricksHook

OFFICIAL: Any = import_module("airflow.providers.databricks.hooks.databricks").DatabricksHook
TASK = {
    "task_key": "a",
    "existing_cluster_id": "1201-my-cluster",
    "notebook_task": {"notebook_path": "/greet"},
}
# Of a run: fields that both have, whatever version of the API they ask.
OF_RUN = ("run_id", "job_id", "run_page_url", "start_time")


def outcome(hook: Any, name: str, *arguments: Any, **named: Any) -> Any:
    """Return what a method returns, or that it raises Airflow's exception."""
    try:
        if not name.startswith("a_"):
            return plain(getattr(hook, name)(*arguments, **named))

        async def call() -> Any:
            async with hook:
                return await getattr(hook, name)(*arguments, **named)

        return plain(asyncio.run(call()))
    except AirflowException:
        return "AirflowException"


def plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    if hasattr(value, "to_json"):
        return json.loads(value.to_json())
    return value


def run_fields(run: Any) -> Any:
    """Return the fields of a run to compare."""
    return {name: run[name] for name in OF_RUN} | {"state": run["state"]["life_cycle_state"]}


def main() -> None:
    """Make jobs and runs by turns, and read them with both."""
    official, here = (
        OFFICIAL("databricks_default", 30, 1, 0.1),
        DatabricksHook("databricks_default", 30, 1, 0.1),
    )
    results: dict[str, list[Any]] = {}

    def compare(name: str, *arguments: Any, as_: Callable[[Any], Any] = plain, **named: Any) -> Any:
        pair = [outcome(hook, name, *arguments, **named) for hook in (official, here)]
        shown = [one if one == "AirflowException" else as_(one) for one in pair]
        results[f"{name}{(*arguments, *named.values())}"] = shown
        return pair[1]

    def kind(value: Any) -> str:
        return type(value).__name__

    def job_ids(jobs: Any) -> list[int]:
        return sorted(job["job_id"] for job in jobs)

    jobs = [official.create_job({"name": name, "tasks": [TASK]}) for name in ("one", "two", "two")]
    compare("create_job", {"name": "three", "tasks": [TASK]}, as_=kind)
    for arguments in ((), (1,), (25, True), (25, False, "two"), (25, False, "none")):
        # Both have created a job of the name "three".
        compare("list_jobs", *arguments, as_=job_ids)
    for name in ("one", "two", "none"):
        compare("find_job_id_by_name", name)
    access = {"access_control_list": [{"user_name": "u", "permission_level": "CAN_VIEW"}]}
    compare("update_job_permission", jobs[0], access)
    compare("update_job", str(jobs[0]), {"timeout_seconds": 60})
    compare("reset_job", str(jobs[0]), {"name": "one", "tasks": [TASK], **access})
    compare("run_now", {"job_id": jobs[0]}, as_=kind)
    compare("submit_run", {"tasks": [TASK]}, as_=kind)

    def ended_run() -> int:
        run_id: int = official.run_now({"job_id": jobs[0]})
        while not official.get_run_state(run_id).is_terminal:
            pass  # the workspace ends a run at once
        return run_id

    run_id = ended_run()
    for name in ("get_run", "a_get_run"):
        compare(name, run_id, as_=run_fields)
    for name in (
        "get_job_id",
        "get_run_page_url",
        "a_get_run_page_url",
        "get_run_state",
        "a_get_run_state",
        "get_run_state_str",
        "get_run_state_lifecycle",
        "get_run_state_result",
        "get_run_state_message",
        "cancel_run",
        "get_run_output",
        "a_get_run_output",
    ):
        compare(name, run_id)
        compare(name, 987654321)
    tasks = compare("get_run_tasks", run_id, as_=lambda tasks: [one["run_id"] for one in tasks])
    compare("get_run_output", tasks[0]["run_id"], as_=lambda output: output["notebook_output"])
    compare("repair_run", {"run_id": run_id, "rerun_all_failed_tasks": True}, as_=kind)
    compare("cancel_all_runs", jobs[0])
    results["delete_run"] = [outcome(hook, "delete_run", ended_run()) for hook in (official, here)]
    compare("get_conn", as_=lambda connection: connection.conn_id)
    print(json.dumps(results))  # noqa: T201


if __name__ == "__main__":
    main()

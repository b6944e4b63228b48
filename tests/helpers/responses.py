"""Responses of the Jobs API for the scripted server, and the runs that they show."""

from __future__ import annotations

from typing import Any

from tests.fakes.scripted_server import Step, answer


def each(result: str, message: str = "", **more: Any) -> dict[str, Any]:
    """Make the loop, run 72, as the whole run lists it."""
    nested = {"notebook_task": {"notebook_path": "/one"}, "task_key": "one"}
    loop = {"inputs": "[1, 2, 3]", "concurrency": 2, "task": nested}
    ended = run("TERMINATED", result, message, run_page_url="http://w/72")
    return {**ended, "run_id": 72, "task_key": "each", "for_each_task": loop, **more}


def whole(result: str, *tasks: dict[str, Any], **more: Any) -> Step:
    """Answer the whole run."""
    return answer({**run("TERMINATED", result), "tasks": list(tasks), **more})


def iterations(*results: str, first: int = 0, **more: Any) -> Step:
    """Answer the loop's own run."""
    listed = [
        {**run("TERMINATED", result), "run_id": 800 + n, "task_key": "one", "attempt_number": 0}
        for n, result in enumerate(results, first)
    ]
    return answer({**each("SUCCESS"), "tasks": [each("SUCCESS")], "iterations": listed, **more})


def good(text: str) -> Step:
    """Answer the output of a task or iteration that succeeded."""
    return answer({"metadata": run("TERMINATED", "SUCCESS"), "notebook_output": {"result": text}})


def history(*repairs: int, ended: bool = True) -> dict[str, Any]:
    """Make the part of a run that tells of its repairs."""
    state = {"life_cycle_state": "TERMINATED", "result_state": "FAILED"}
    items: list[dict[str, Any]] = [{"type": "ORIGINAL", "state": state}]
    items += [{"type": "REPAIR", "id": repair, "state": state} for repair in repairs]
    if not ended:
        items[-1]["state"] = {"life_cycle_state": "RUNNING"}
    return {"repair_history": items}


def failed(*repairs: int, **more: Any) -> Any:
    """Answer a failed run that has had these repairs."""
    return answer({**FAILED_RUN, **history(*repairs), **more})


def run(life: str, result: str | None = None, message: str = "", **more: Any) -> dict[str, Any]:
    """Make a run as runs/get answers it."""
    state = {"life_cycle_state": life, "state_message": message}
    if result:
        state["result_state"] = result
    return {"run_id": 7, "job_id": 3, "run_page_url": "http://w/7", "state": state, **more}


LAUNCHED = answer({"run_id": 7})
RUNNING = answer(run("RUNNING"))
SUCCEEDED = answer(run("TERMINATED", "SUCCESS"))
OUTPUT = answer({"metadata": run("TERMINATED", "SUCCESS"), "notebook_output": {"result": "42"}})
FAILED_RUN = run("INTERNAL_ERROR", "FAILED", "Workload failed, see run output for details")
FAILED = answer(FAILED_RUN)
FAILED_OUTPUT = answer(
    {"metadata": FAILED_RUN, "error": "ValueError: no rows", "error_trace": "Traceback: line 1"}
)
GONE = answer({"error_code": "INVALID_PARAMETER_VALUE", "message": "Run 7 does not exist."}, 400)

"""JSON of jobs, runs and outputs in the API's responses (reference: "Data structures")."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from airflow_jobs_provider.api.schema.task_kinds import TASK_KINDS
from airflow_jobs_provider.api.states import RunLifeCycleState, RunResultState
from airflow_jobs_provider.local.engine.model import (
    CLUSTER_FIELDS,
    ENDED,
    RUN_IF,
    Job,
    Output,
    Run,
    key_of_name,
    task_key_of,
)
from airflow_jobs_provider.local.engine.parameters import parameters_of
from airflow_jobs_provider.local.versions import Version, page_token

__all__ = [
    "job_answer",
    "output_answer",
    "run_answer",
    "run_page_url",
    "state_answer",
    "status_answer",
]

_FOR_EACH = "for_each_task"
# From 2.1 on these are a task's, not a job's.
_OF_TASK = (*TASK_KINDS, *CLUSTER_FIELDS)
# Code and type of ``status.termination_details`` by result state. A run without a result state,
# such as one of a task that cannot run here, has an internal error.
_TERMINATION: Mapping[str | None, tuple[str, str]] = {
    RunResultState.SUCCESS: ("SUCCESS", "SUCCESS"),
    RunResultState.SUCCESS_WITH_FAILURES: ("SUCCESS_WITH_FAILURES", "SUCCESS"),
    RunResultState.CANCELED: ("USER_CANCELED", "CLIENT_ERROR"),
    RunResultState.UPSTREAM_CANCELED: ("SKIPPED", "CLIENT_ERROR"),
    RunResultState.UPSTREAM_FAILED: ("SKIPPED", "CLIENT_ERROR"),
    RunResultState.EXCLUDED: ("SKIPPED", "CLIENT_ERROR"),
    RunResultState.TIMEDOUT: ("CANCELED", "CLIENT_ERROR"),
    RunResultState.FAILED: ("RUN_EXECUTION_ERROR", "CLIENT_ERROR"),
}


def run_page_url(base_url: str, run: Run) -> str:
    """Return the URL of a run's page."""
    return f"{base_url}/runs/{run.run_id}"


def job_answer(job: Job, version: Version, *, with_tasks: bool = True) -> dict[str, Any]:
    """Return a job ("Job")."""
    return {
        "job_id": job.job_id,
        "creator_user_name": job.creator_user_name,
        "run_as": job.creator_user_name,
        "settings": _settings(job, version, with_tasks=with_tasks),
        "created_time": job.created_time,
    }


def _settings(job: Job, version: Version, *, with_tasks: bool) -> dict[str, Any]:
    settings = {"name": "Untitled", **job.settings}
    if "schedule" in settings:
        settings["schedule"] = {**settings["schedule"]}
        settings["schedule"].setdefault("pause_status", "UNPAUSED")
    if not version.has_tasks:
        return settings
    settings["format"] = "MULTI_TASK"
    tasks = settings.pop("tasks", None)
    if tasks is None:
        moved = {name: settings.pop(name) for name in _OF_TASK if name in settings}
        tasks = [{"task_key": key_of_name(settings["name"]), **moved}]
    if with_tasks:
        settings["tasks"] = tasks
    return settings


def run_answer(
    run: Run,
    version: Version,
    base_url: str,
    task_runs: Callable[[Run], list[Run]],
    *,
    with_tasks: bool = True,
    first_task: int = 0,
) -> dict[str, Any]:
    """Return a run ("Run").

    :param task_runs: the runs of the single tasks of a run.
    :param first_task: how many of them were answered before, where the version has pages of them.
    """
    answer: dict[str, Any] = {
        "job_id": run.job_id,
        "run_id": run.run_id,
        "creator_user_name": run.creator_user_name,
        "number_in_job": run.number_in_job,
        "original_attempt_run_id": run.original_attempt_run_id,
        "state": state_answer(run),
        "cluster_spec": run.cluster_spec,
        "start_time": run.start_time,
        "end_time": run.end_time,
        "trigger": run.trigger,
        "run_name": run.run_name,
        "run_page_url": run_page_url(base_url, run),
        "run_type": run.run_type,
        "attempt_number": run.attempt_number,
        **_durations(run),
    }
    if run.task:
        answer["task"] = run.task
    if run.overriding_parameters:
        answer["overriding_parameters"] = run.overriding_parameters
    if run.job_parameters and version.has_tasks:
        answer["job_parameters"] = run.job_parameters
    if version.has_tasks:
        answer |= {**run.shown_settings, "status": status_answer(run)}
    instance = _cluster_instance(run)
    if instance:
        answer["cluster_instance"] = instance
    if run.is_of_tasks:
        answer["format"] = "MULTI_TASK"
        if with_tasks:
            tasks, more = task_runs(run), False
            if version.max_tasks is not None:
                end = first_task + version.max_tasks
                tasks, more = tasks[first_task:end], len(tasks) > end
            answer["tasks"] = [
                _task_answer(task, version, base_url, _depends_on(run, task)) for task in tasks
            ]
            if more:
                answer["next_page_token"] = page_token("tasks", end)
    elif version.has_tasks and (run.parent_run_id is None or _FOR_EACH in run.task):
        # A run of one task seen through a later version: the task's run is the run itself.
        answer["format"] = "SINGLE_TASK"
        if with_tasks:
            answer["tasks"] = [_task_answer(run, version, base_url, [])]
            if _FOR_EACH in run.task and version.max_tasks is not None:
                iterations, end = task_runs(run), first_task + version.max_tasks
                answer["iterations"] = [
                    _task_answer(one, version, base_url, []) for one in iterations[first_task:end]
                ]
                if len(iterations) > end:
                    answer["next_page_token"] = page_token("tasks", end)
    if run.parent_run_id is not None:
        answer["parent_run_id"] = run.parent_run_id
        answer["job_run_id"] = run.job_run_id or run.parent_run_id
        answer["task_key"] = run.task_key
    return answer


def _task_answer(
    run: Run, version: Version, base_url: str, depends_on: list[Any]
) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "run_id": run.run_id,
        "task_key": task_key_of(run),
        **run.task,
        **run.cluster_spec,
        "state": state_answer(run),
        "run_page_url": run_page_url(base_url, run),
        "start_time": run.start_time,
        "end_time": run.end_time,
        # Of a run that is its task's run, each repair is another attempt.
        "attempt_number": run.attempt_number + max(0, len(run.history) - 1),
        **{name: value for name, value in _durations(run).items() if name != "run_duration"},
    }
    if version.has_tasks:
        answer |= {
            "run_if": RUN_IF[0],
            **(run.shown_settings if run.parent_run_id is not None else {}),
            "status": status_answer(run),
        }
    instance = _cluster_instance(run)
    if instance:
        answer["cluster_instance"] = instance
    if depends_on:
        answer["depends_on"] = depends_on
    if run.child_run_id is not None:
        answer["run_job_task"] = {**run.task["run_job_task"], "run_id": run.child_run_id}
    if run.condition_outcome is not None:
        answer["condition_task"] = {
            **run.task["condition_task"],
            **parameters_of(run),
            "outcome": run.condition_outcome,
        }
    if run.total_iterations is not None:
        stats = {"task_run_stats": {"total_iterations": run.total_iterations}}
        answer[_FOR_EACH] = {**run.task[_FOR_EACH], "stats": stats}
    return answer


def state_answer(run: Run) -> dict[str, Any]:
    """Return the state of a run ("RunState")."""
    state: dict[str, Any] = {"life_cycle_state": run.life_cycle_state}
    if run.result_state is not None:
        state["result_state"] = run.result_state
    state["user_cancelled_or_timedout"] = run.user_cancelled_or_timedout
    state["state_message"] = run.state_message
    return state


def status_answer(run: Run) -> dict[str, Any]:
    """Return the status of a run ("RunStatus"), which later versions give beside its state."""
    if not run.has_ended:
        return {"state": str(run.life_cycle_state)}
    if run.life_cycle_state == RunLifeCycleState.SKIPPED:
        code, kind = "MAX_CONCURRENT_RUNS_EXCEEDED", "CLIENT_ERROR"
    else:
        code, kind = _TERMINATION.get(run.result_state, ("INTERNAL_ERROR", "INTERNAL_ERROR"))
        if run.termination_code is not None:
            code, kind = run.termination_code, "CLIENT_ERROR"
    details = {"code": code, "type": kind, "message": run.state_message}
    return {"state": str(RunLifeCycleState.TERMINATED), "termination_details": details}


def _durations(run: Run) -> dict[str, int]:
    if run.is_of_tasks:
        total = _total_duration(run)
        parts = (0, 0, 0)
    else:
        parts = (run.setup_duration, run.execution_duration, run.cleanup_duration)
        total = sum(parts) if run.end_time else 0
    names = ("setup_duration", "execution_duration", "cleanup_duration")
    return {**dict(zip(names, parts, strict=True)), "run_duration": total}


def _total_duration(run: Run) -> int:
    """Return the duration of a run of tasks with its repairs, without the time between them."""
    if not run.end_time:
        return 0
    closed = sum(item["end_time"] - item["start_time"] for item in run.history[:-1])
    return int(closed) + run.end_time - run.active_since


def _cluster_instance(run: Run) -> dict[str, str]:
    existing = run.cluster_spec.get("existing_cluster_id")
    if existing is None and (
        run.spark_context_id is None or run.is_of_tasks or "run_job_task" in run.task
    ):
        return {}
    instance = {"cluster_id": existing or f"local-{run.run_id}"}
    if run.spark_context_id is not None:
        instance["spark_context_id"] = run.spark_context_id
    return instance


def _depends_on(run: Run, task_run: Run) -> list[Any]:
    for task in run.tasks:
        if task["task_key"] == task_run.task_key:
            return task.get("depends_on") or []
    return []


def output_answer(run: Run, output: Output, metadata: Mapping[str, Any], version: Version) -> Any:
    """Return a run's output ("Runs get output")."""
    answer: dict[str, Any] = {"metadata": metadata}
    if "notebook_task" in run.task and run.life_cycle_state in ENDED | {
        RunLifeCycleState.TERMINATING
    }:
        notebook: dict[str, Any] = {}
        if output.result is not None:
            notebook = {"result": output.result, "truncated": output.truncated}
        elif output.truncated:
            notebook = {"truncated": True}
        answer["notebook_output"] = notebook
    if output.error is not None:
        answer["error"] = output.error
    if output.error_trace is not None:
        answer["error_trace"] = output.error_trace
    if version.has_tasks:
        if output.sql is not None:
            answer["sql_output"] = _sql_output(run, output.sql)
        if output.info is not None:
            answer["info"] = output.info
        if output.logs is not None:
            answer["logs"] = output.logs
            answer["logs_truncated"] = output.logs_truncated
        if run.child_run_id is not None:
            answer["run_job_output"] = {"run_id": run.child_run_id}
    return answer


def _sql_output(run: Run, sql: Mapping[str, Any]) -> dict[str, Any]:
    """Return the output of the file of a SQL task; the result is that of the last statement."""
    results: Sequence[Mapping[str, Any]] = sql["results"]
    output: dict[str, Any] = {
        "query_text": sql["query_text"],
        "warehouse_id": run.task["sql_task"]["warehouse_id"],
        "sql_statements": [
            {"lookup_key": f"{run.run_id}-{number}"} for number, _ in enumerate(results)
        ],
    }
    if results:
        last = results[-1]
        output["query_result"] = {
            "columns": [{"name": name} for name in last["columns"]],
            "rows": [{"values": [_sql_value(value) for value in row]} for row in last["rows"]],
            "truncated": last["truncated"],
        }
    return {"file_output": output}


def _sql_value(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    return {"string_value": value if isinstance(value, str) else json.dumps(value)}

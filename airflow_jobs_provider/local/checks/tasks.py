"""Several tasks of one job: their keys, and which depends on which."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from airflow_jobs_provider.local.engine.model import RUN_IF
from airflow_jobs_provider.local.errors import invalid

__all__ = ["check_tasks"]


def check_tasks(
    settings: Mapping[str, Any],
    check_one: Callable[[Mapping[str, Any], str], None],
    *,
    partial: bool,
    max_tasks: int,
) -> None:
    """Check the tasks of a job.

    :param check_one: checks a task, and is told where it stands.
    :param partial: whether these are only some of the job's tasks.
    :param max_tasks: how many a job has at most.
    """
    tasks = settings.get("tasks") or []
    if len(tasks) > max_tasks:
        raise invalid(f"tasks must have at most {max_tasks} elements; it has {len(tasks)}")
    clusters = {cluster["job_cluster_key"] for cluster in settings.get("job_clusters") or []}
    environments = {one["environment_key"] for one in settings.get("environments") or []}
    for index, task in enumerate(tasks):
        where = f"tasks[{index}]"
        if not task.get("task_key"):
            raise invalid(f"Missing required field: {where}.task_key")
        if task.get("run_if", "ALL_SUCCESS") not in RUN_IF:
            raise invalid(f"{where}.run_if must be one of {', '.join(RUN_IF)}")
        check_one(task, where)
        environment = task.get("environment_key")
        if environment is not None and environment not in environments and not partial:
            raise invalid(f"{where}.environment_key {environment!r} is not defined in environments")
        cluster = task.get("job_cluster_key")
        if cluster is not None and cluster not in clusters and not partial:
            raise invalid(f"{where}.job_cluster_key {cluster!r} is not defined in job_clusters")
    if len({task["task_key"] for task in tasks}) < len(tasks):
        raise invalid("tasks must have a task_key of its own each")
    if not partial:
        # An update may name some of the tasks only; they are checked again once all are known.
        _check_dependencies(tasks)


def _check_dependencies(tasks: Sequence[Mapping[str, Any]]) -> None:
    keys = {task["task_key"] for task in tasks}
    # Each may depend on tasks that are known to end: what is left over waits in a circle.
    open_tasks = {
        task["task_key"]: {one["task_key"] for one in task.get("depends_on") or []}
        for task in tasks
    }
    while ready := [key for key, needs in open_tasks.items() if not needs & open_tasks.keys()]:
        for key in ready:
            unknown = open_tasks.pop(key) - keys
            if unknown:
                raise invalid(f"Task {key} depends_on unknown task {min(unknown)}")
    kinds = {task["task_key"]: task for task in tasks}
    for task in tasks:
        for one in task.get("depends_on") or []:
            outcome = one.get("outcome")
            if outcome is None:
                continue
            if outcome not in ("true", "false") or "condition_task" not in kinds[one["task_key"]]:
                raise invalid(
                    f"Task {task['task_key']} depends_on the outcome {outcome[:100]!r} of "
                    f"{one['task_key']}; the outcomes true and false are those of a condition_task"
                )
    if open_tasks:
        raise invalid(f"depends_on of these tasks goes in a circle: {', '.join(open_tasks)}")

"""What the fields of a run say about its tasks and its cost, as text for the log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from airflow_jobs_provider.api.states import RunLifeCycleState, RunState, RunStatus
from airflow_jobs_provider.api.text import duration, printable

__all__ = [
    "attempt_number",
    "ended_tasks",
    "latest_attempts",
    "lists_all_tasks",
    "task_kinds",
    "task_summary",
    "usage_summary",
]

Entry: TypeAlias = Mapping[str, Any]

# A line names so many tasks of each kind.
_MAX_NAMES = 10
_RUNNING = "running"
_NOT_STARTED = "not started"
# What a person looks for comes first.
_KINDS = {
    RunStatus.FAILED: "failed",
    RunStatus.TIMED_OUT: "timed out",
    RunStatus.CANCELED: "canceled",
    RunStatus.SUCCEEDED_WITH_FAILURES: "succeeded with failures",
    RunStatus.SUCCEEDED: "succeeded",
    RunStatus.SKIPPED: "skipped",
}
_STARTED = (RunLifeCycleState.RUNNING, RunLifeCycleState.TERMINATING)
# The parts of a run's time (reference: "Run"); queue_duration is of later versions.
_DURATIONS = {
    "queue_duration": "queue",
    "setup_duration": "setup",
    "execution_duration": "execution",
    "cleanup_duration": "cleanup",
}


def latest_attempts(run: Entry) -> dict[str, Entry]:
    """Return the task runs of a run by task key, the highest attempt of each."""
    latest: dict[str, Entry] = {}
    for task in run.get("tasks") or ():
        key = str(task.get("task_key") or task.get("run_id"))
        if key not in latest or attempt_number(task) >= attempt_number(latest[key]):
            latest[key] = task
    return latest


def lists_all_tasks(run: Entry) -> bool:
    """Return whether a run has been read with all its tasks.

    A page of API 2.2 has at most 100 of them.

    :param run: the run.
    """
    return bool(run.get("tasks")) and not (run.get("next_page_token") or run.get("has_more"))


def attempt_number(task: Entry) -> int:
    """Return the number of a run's or task run's attempts before this one."""
    return int(task.get("attempt_number") or 0)


def task_kinds(entry: Entry) -> frozenset[str]:
    """Return the kind of a run's task, such as ``notebook_task``; nothing where it is not listed.

    :param entry: a run of one task, or a task run. Version 2.0 has the kind in ``task``.
    """
    nested = entry.get("task")
    return frozenset(
        name
        for fields in (entry, nested if isinstance(nested, Mapping) else {})
        for name, settings in fields.items()
        if name.endswith("_task") and settings is not None
    )


def ended_tasks(run: Entry) -> frozenset[tuple[str, int]]:
    """Return the key and the attempt of each task that has ended, at its latest attempt.

    :param run: the run; a run of one task has no such tasks.
    """
    tasks = latest_attempts(run)
    if len(tasks) < 2:
        return frozenset()
    return frozenset(
        (key, attempt_number(task))
        for key, task in tasks.items()
        if RunState.from_run(task).is_terminal
    )


def task_summary(run: Entry) -> str:
    """Return how far the tasks of a run are.

    Such as ``3 of 10 tasks ended (30 %): failed: b; succeeded: a, d; running: c``.

    :param run: the run, with its tasks.
    """
    by_kind: dict[str, list[str]] = {kind: [] for kind in (*_KINDS.values(), _RUNNING)}
    tasks = latest_attempts(run)
    ended = 0
    for key, task in tasks.items():
        state = RunState.from_run(task)
        if state.is_terminal:
            ended += 1
            by_kind[_KINDS[state.status]].append(key)
        elif state.life_cycle_state in _STARTED:
            by_kind[_RUNNING].append(key)
    groups = [f"{kind}: {_names(keys)}" for kind, keys in by_kind.items() if keys]
    share = 100 * ended // len(tasks) if tasks else 0
    head = f"{ended} of {len(tasks)} tasks ended ({share} %)"
    return f"{head}: {'; '.join(groups)}" if groups else head


def _names(keys: list[str]) -> str:
    shown = ", ".join(printable(key) for key in keys[:_MAX_NAMES])
    more = len(keys) - _MAX_NAMES
    return f"{shown} and {more} more" if more > 0 else shown


def usage_summary(run: Entry) -> str:
    """Return what decides about the cost of a run that has ended; empty if nothing is known.

    Such as ``cluster 0923-164208-meows279 (new, 2 x i3.xlarge), setup 4 min 20 s, execution 59 min
    49 s, cleanup 31 s, attempt 2``. The fields that the run lacks are left out. The times of a run
    of several tasks are the sums of all attempts of its tasks. They are left out if not all tasks
    were read.

    :param run: the run, or a task run.
    """
    tasks: tuple[Entry, ...] = tuple(run["tasks"]) if lists_all_tasks(run) else ()
    parts = [_clusters(run, tasks), *_durations(run, tasks)]
    if (attempt := attempt_number(run)) > 0:
        parts.append(f"attempt {attempt + 1}")
    # The first entry is the original run.
    if (repairs := len(run.get("repair_history") or ()) - 1) > 0:
        parts.append(f"{repairs} repair{'s' if repairs > 1 else ''}")
    return ", ".join(filter(None, parts))


def _clusters(run: Entry, tasks: tuple[Entry, ...]) -> str:
    used: dict[str, Entry] = {}
    for entry in (run, *tasks):
        cluster_id = (entry.get("cluster_instance") or {}).get("cluster_id")
        if cluster_id:
            used.setdefault(str(cluster_id), entry)
    if len(used) > 1:
        return f"{len(used)} clusters"
    for cluster_id, entry in used.items():
        kind = _cluster_kind({**entry, **(entry.get("cluster_spec") or {})})
        return f"cluster {printable(cluster_id)}{f' ({kind})' if kind else ''}"
    return ""


def _cluster_kind(spec: Entry) -> str:
    if spec.get("existing_cluster_id"):
        return "existing"
    if spec.get("job_cluster_key"):
        return f"job cluster {printable(spec['job_cluster_key'])}"
    cluster = spec.get("new_cluster")
    if not isinstance(cluster, Mapping):
        return ""
    limits = cluster.get("autoscale")
    workers = cluster.get("num_workers")
    if isinstance(limits, Mapping):
        workers = f"{limits.get('min_workers')} to {limits.get('max_workers')}"
    node = cluster.get("node_type_id")
    size = " x ".join(printable(part) for part in (workers, node) if part is not None)
    return f"new, {size}" if size else "new"


def _durations(run: Entry, tasks: tuple[Entry, ...]) -> Iterable[str]:
    entries: tuple[Entry, ...] = (run,)
    # A run of several tasks has no setup, execution and cleanup of its own.
    if not any(run.get(name) for name in _DURATIONS) and tasks:
        entries = tasks
    sums: dict[str, float] = {}
    for entry in entries:
        for name in _DURATIONS:
            if (millis := entry.get(name)) is not None:
                sums[name] = sums.get(name, 0.0) + float(millis)
    if not any(sums.values()):
        return
    for name, label in _DURATIONS.items():
        # Most runs are not queued.
        if name in sums and (sums[name] or name != "queue_duration"):
            yield f"{label} {duration(sums[name] / 1000)}"

"""The settings of a job or a one-time run ("Create", "JobSettings", "Runs submit")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_jobs_provider.api.schema.task_kinds import TASK_KINDS
from airflow_jobs_provider.local.checks.clusters import check_cluster, check_library
from airflow_jobs_provider.local.checks.field_types import (
    at,
    read_structure,
    refuse_later_fields,
    text_bytes,
)
from airflow_jobs_provider.local.checks.later_kinds import check_git_source, check_later_kind
from airflow_jobs_provider.local.checks.notifications import check_notices, check_schedule
from airflow_jobs_provider.local.checks.parameters import check_ascii
from airflow_jobs_provider.local.checks.spark_submit import check_spark_submit
from airflow_jobs_provider.local.checks.tasks import check_tasks
from airflow_jobs_provider.local.engine.model import task_of
from airflow_jobs_provider.local.engine.references import check_references
from airflow_jobs_provider.local.errors import invalid
from airflow_jobs_provider.local.versions import Version

__all__ = ["check_fields_to_remove", "check_settings", "read_queue"]

_MAX_NAME_BYTES = 4096
_MAX_CONCURRENT_RUNS = 1000
# Of the iterations of a for_each_task.
_MAX_CONCURRENCY = 100
_ON_CLUSTERS = ("notebook_task", "spark_jar_task", "spark_python_task", "spark_submit_task")
_COMPUTE = ("existing_cluster_id", "new_cluster")
# What names compute elsewhere, in later versions.
_LATER_COMPUTE = ("job_cluster_key", "environment_key", "environments", "compute")
_WITH_ENTRIES = ("tasks", "job_clusters", "environments")


def check_settings(
    data: Mapping[str, Any], version: Version, *, partial: bool = False
) -> dict[str, Any]:
    """Return the settings of a job or a one-time run, read and found in order.

    :param version: version of the API that they are given in.
    :param partial: whether they only change a job's settings, so that nothing need be there.
    """
    if not version.has_tasks:
        refuse_later_fields(data)
    settings = read_structure(data, "Settings")
    for name in ("name", "run_name"):
        if text_bytes(settings.get(name, "")) > _MAX_NAME_BYTES:
            raise invalid(f"{name} must have at most {_MAX_NAME_BYTES} bytes in UTF-8")
    limit = settings.get("max_concurrent_runs", 1)
    if not 0 <= limit <= _MAX_CONCURRENT_RUNS:
        raise invalid(f"max_concurrent_runs must be from 0 to {_MAX_CONCURRENT_RUNS}: {limit}")
    if "schedule" in settings:
        check_schedule(settings["schedule"])
    if "git_source" in settings:
        settings["git_source"] = check_git_source(settings["git_source"])
    rules = _Rules(version, in_git="git_source" in settings)
    for index, cluster in enumerate(settings.get("job_clusters") or []):
        if "new_cluster" in cluster:
            check_cluster(cluster["new_cluster"], f"job_clusters[{index}].new_cluster", version)
    _check_launched(settings, "", rules, partial=partial)
    check_tasks(
        settings,
        lambda task, where: _check_launched(task, where, rules),
        partial=partial,
        max_tasks=version.max_job_tasks,
    )
    for name, value in (*task_of(settings).items(), ("parameters", settings.get("parameters"))):
        check_references(name, value)
    for index, task in enumerate(settings.get("tasks") or []):
        for name, value in task_of(task).items():
            check_references(f"tasks[{index}].{name}", value)
    return settings


def read_queue(data: Mapping[str, Any]) -> bool | None:
    """Return whether a run is to wait where there is no room; None if the request does not say."""
    if data.get("queue") is None:
        return None
    enabled: bool | None = read_structure(data["queue"], "QueueSettings", "queue").get("enabled")
    return enabled


def check_fields_to_remove(fields: Any) -> list[str]:
    """Return the fields that an update removes: top-level ones, tasks and job clusters."""
    if fields is None:
        return []
    if not isinstance(fields, list) or not all(isinstance(field, str) for field in fields):
        raise invalid("fields_to_remove must be an array of text")
    for index, field in enumerate(fields):
        name, has_entry, entry = field.partition("/")
        nested = "." in name or (has_entry and (name not in _WITH_ENTRIES or not entry))
        if not name or nested:
            raise invalid(
                f"fields_to_remove[{index}] must be a top-level field, or an entry of "
                f"{' or '.join(_WITH_ENTRIES)}; removing nested fields is not supported"
            )
    return fields


@dataclass(frozen=True, slots=True)
class _Rules:
    """What the checks of a task depend on: the version, and whether its code is in Git."""

    version: Version
    in_git: bool


def _check_launched(
    settings: Mapping[str, Any], where: str, rules: _Rules, *, partial: bool = False
) -> None:
    """Check what a task has in common with the settings of a job of one task."""
    if settings.get("timeout_seconds", 0) < 0:
        raise invalid(f"{at(where, 'timeout_seconds')} must not be negative")
    if settings.get("max_retries", 0) < -1:
        raise invalid(f"{at(where, 'max_retries')} must be -1 (without end), 0 (never) or more")
    check_notices(settings, where, rules.version)
    if "new_cluster" in settings:
        check_cluster(settings["new_cluster"], at(where, "new_cluster"), rules.version)
    for index, library in enumerate(settings.get("libraries") or []):
        check_library(library, at(where, f"libraries[{index}]"), rules.version)
    kind = _kind_of_task(settings, where, partial=partial)
    if all(settings.get(name) for name in _COMPUTE):
        raise invalid(
            f"Only one of {' and '.join(at(where, name) for name in _COMPUTE)} may be set"
        )
    if kind == "notebook_task":
        _check_notebook(settings[kind], at(where, kind), rules)
    elif kind == "spark_submit_task":
        check_spark_submit(settings, where)
    elif kind == "for_each_task":
        inner = at(where, "for_each_task.task")
        if not 1 <= settings[kind].get("concurrency", 1) <= _MAX_CONCURRENCY:
            name = at(where, "for_each_task.concurrency")
            raise invalid(f"{name} must be from 1 to {_MAX_CONCURRENCY}")
        if kind in settings[kind]["task"]:
            raise invalid(f"{inner} cannot be a for_each_task itself")
        _check_launched(settings[kind]["task"], inner, rules)
    check_later_kind(kind, settings, where)
    # In later versions a notebook runs on serverless compute where no cluster is named.
    without = rules.version.has_tasks and kind == "notebook_task"
    named = any(settings.get(name) for name in (*_COMPUTE, *_LATER_COMPUTE))
    if kind in _ON_CLUSTERS and not (partial or without or named):
        names = " and ".join(at(where, name) for name in _COMPUTE)
        raise invalid(f"One of {names} is required for a {kind}")


def _kind_of_task(settings: Mapping[str, Any], where: str, *, partial: bool) -> str | None:
    """Return the one kind of task there is ("JobTask"); None where there are several tasks."""
    kinds = [*task_of(settings), *(["tasks"] if settings.get("tasks") else [])]
    if len(kinds) > 1:
        raise invalid(
            f"Only one task may be specified; found {', '.join(at(where, k) for k in kinds)}"
        )
    if not kinds and not partial:
        names = ", ".join(at(where, kind) for kind in TASK_KINDS)
        raise invalid(f"One of {names} is required")
    return kinds[0] if kinds and kinds[0] != "tasks" else None


def _check_notebook(task: Mapping[str, Any], where: str, rules: _Rules) -> None:
    source = str(task.get("source") or ("GIT" if rules.in_git else "WORKSPACE"))
    path = task["notebook_path"]
    if not path.startswith("/") and source.upper() != "GIT":
        raise invalid(f"{where}.notebook_path must begin with a slash: {path[:100]!r}")
    if rules.version.has_tasks:
        return
    for name, value in (task.get("base_parameters") or {}).items():
        check_ascii(f"{where}.base_parameters.{name}", value)

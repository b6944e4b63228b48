"""Dynamic value references in parameters, such as ``{{job.run_id}}`` or ``{{tasks.a.values.n}}``.

A reference is replaced when its task starts. The service refuses a reference that a known
namespace does not have, such as ``{{job.naem}}``, when a job or run is created. Everything else
that cannot be replaced stays as it is: other text in braces, and values that do not exist.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from airflow_jobs_provider.api.states import RunResultState
from airflow_jobs_provider.local.engine.model import Run, task_key_of
from airflow_jobs_provider.local.engine.store import Store
from airflow_jobs_provider.local.errors import invalid

__all__ = ["References", "check_references"]

_PART = r"(?:`[^`]+`|[A-Za-z0-9_-]+)"
_REFERENCE = re.compile(rf"\{{\{{\s*({_PART}(?:\.{_PART})*)\s*\}}\}}")
_SPLIT = re.compile(_PART)
_ANY = "*"
_TIMES: Mapping[str, Callable[[datetime], Any]] = {
    "iso_date": lambda time: time.date().isoformat(),
    "iso_datetime": lambda time: time.replace(tzinfo=None).isoformat(timespec="milliseconds"),
    "iso_weekday": lambda time: time.isoweekday(),
    "is_weekday": lambda time: str(time.isoweekday() <= 5).lower(),
    "year": lambda time: time.year,
    "month": lambda time: time.month,
    "day": lambda time: time.day,
    "hour": lambda time: time.hour,
    "minute": lambda time: time.minute,
    "second": lambda time: time.second,
    "timestamp_ms": lambda time: round(time.timestamp() * 1000),
}
# What each namespace has; ``*`` is any name.
_KNOWN: tuple[tuple[str, ...], ...] = (
    ("job", "id"),
    ("job", "name"),
    ("job", "run_id"),
    ("job", "repair_count"),
    *(("job", "start_time", argument) for argument in _TIMES),
    ("job", "parameters", _ANY),
    ("job", "trigger", "type"),
    ("job", "trigger", "file_arrival", "location"),
    *(("job", "trigger", "time", argument) for argument in _TIMES),
    ("task", "name"),
    ("task", "run_id"),
    ("task", "execution_count"),
    ("task", "notebook_path"),
    *(("tasks", _ANY, name) for name in ("run_id", "result_state", "error_code")),
    *(("tasks", _ANY, name) for name in ("execution_count", "notebook_path")),
    ("tasks", _ANY, "values", _ANY),
    ("tasks", _ANY, "output", _ANY),
    ("tasks", _ANY, "output", _ANY, _ANY),
    ("workspace", "id"),
    ("workspace", "url"),
)
_NAMESPACES = {known[0] for known in _KNOWN}
# References of earlier years; they have no namespace.
_OF_OLD = {
    "job_id": ("job", "id"),
    "run_id": ("task", "run_id"),
    "parent_run_id": ("job", "run_id"),
    "task_key": ("task", "name"),
    "start_date": ("job", "start_time", "iso_date"),
    "start_time": ("job", "start_time", "timestamp_ms"),
}
_RESULTS: Mapping[str | None, str] = {
    RunResultState.SUCCESS: "success",
    RunResultState.SUCCESS_WITH_FAILURES: "success",
    RunResultState.EXCLUDED: "excluded",
    RunResultState.CANCELED: "canceled",
    RunResultState.TIMEDOUT: "timedout",
    RunResultState.UPSTREAM_FAILED: "upstream_failed",
    RunResultState.UPSTREAM_CANCELED: "upstream_canceled",
}


def check_references(where: str, value: Any) -> None:
    """Refuse references that no known namespace has.

    :param where: the field, for the message.
    :param value: its value: texts in any structure.
    :raises ApiError: one of the texts has such a reference.
    """
    for text in _texts(value):
        for match in _REFERENCE.finditer(text):
            parts = _parts(match[1])
            if parts[0] in _NAMESPACES and len(parts) > 1 and not _is_known(parts):
                raise invalid(f"Invalid reference {match[0]} in {where}: it is not supported")


class References:
    """Replaces the references in the parameters of a run.

    :param run: the run of the job, of a task, or of an iteration.
    :param store: has the other runs.
    :param workspace_id: the workspace's number.
    :param workspace_url: the workspace's URL.
    """

    def __init__(self, run: Run, store: Store, workspace_id: int, workspace_url: str) -> None:
        self._run = run
        self._store = store
        self._workspace = {"id": workspace_id, "url": workspace_url}
        self._job_run = store.run(run.job_run_id) or run if run.job_run_id else run

    def fill(self, value: Any) -> Any:
        """Return texts in any structure with their references replaced."""
        if isinstance(value, str):
            return _REFERENCE.sub(self._replaced, value)
        if isinstance(value, Mapping):
            return {name: self.fill(one) for name, one in value.items()}
        if isinstance(value, list):
            return [self.fill(one) for one in value]
        return value

    def _replaced(self, match: re.Match[str]) -> str:
        parts = _parts(match[1])
        found = self._value(_OF_OLD.get(".".join(parts), parts))
        if found is None:
            return match[0]
        return found if isinstance(found, str) else json.dumps(found)

    def _value(self, parts: tuple[str, ...]) -> Any:
        match parts:
            case ("job", *rest):
                return self._of_job(tuple(rest))
            case ("task", name):
                return _of_task(self._run, name)
            case ("tasks", key, "values", name):
                task_run = self._task_run(key)
                return None if task_run is None else task_run.task_values.get(name)
            case ("tasks", key, "output", *rest):
                task_run = self._task_run(key)
                return None if task_run is None else self._of_sql(task_run, rest)
            case ("tasks", key, name):
                task_run = self._task_run(key)
                return None if task_run is None else _of_task(task_run, name)
            case ("workspace", name):
                return self._workspace.get(name)
            case ("task_retry_count",):
                return self._run.attempt_number
            case ("input", *rest) if self._run.input is not None:
                return _of_input(self._run.input, rest)
        return None

    def _of_sql(self, task_run: Run, parts: list[str]) -> Any:
        """Return the rows, or a value of the first one, that a SQL task's last statement gave."""
        sql = self._store.output(task_run.run_id).sql
        if sql is None or not sql["results"]:
            return None
        last = sql["results"][-1]
        rows = [dict(zip(last["columns"], row, strict=True)) for row in last["rows"]]
        match parts:
            case ["rows"]:
                return rows
            case ["first_row", name] if rows:
                return rows[0].get(name)
        return None

    def _of_job(self, parts: tuple[str, ...]) -> Any:
        run = self._job_run
        match parts:
            case ("id",):
                return run.job_id
            case ("name",):
                return run.run_name
            case ("run_id",):
                return run.run_id
            case ("repair_count",):
                return max(0, len(run.history) - 1)
            case ("start_time", argument) if argument in _TIMES:
                return _TIMES[argument](datetime.fromtimestamp(run.start_time / 1000, UTC))
            case ("parameters", name):
                values = {one["name"]: one["value"] for one in self._run.job_parameters}
                return values.get(name)
            case ("trigger", "type"):
                return "run_job_task" if run.started_by_run_id is not None else "onetime"
        return None

    def _task_run(self, key: str) -> Run | None:
        run_id = self._job_run.task_run_ids.get(key)
        return None if run_id is None else self._store.run(run_id)


def _of_task(run: Run, name: str) -> Any:
    match name:
        case "name":
            return task_key_of(run)
        case "run_id":
            return run.run_id
        case "execution_count":
            return run.attempt_number + 1
        case "notebook_path":
            return (run.task.get("notebook_task") or {}).get("notebook_path")
        case "result_state" if run.has_ended:
            return _RESULTS.get(run.result_state, "failed")
        case "error_code" if run.has_ended:
            return "" if run.succeeded else str(run.result_state or "INTERNAL_ERROR")
    return None


def _of_input(text: str, parts: list[str]) -> Any:
    value = json.loads(text)
    for part in parts:
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return value


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part.strip("`") for part in _SPLIT.findall(path))


def _is_known(parts: tuple[str, ...]) -> bool:
    return any(
        len(known) == len(parts)
        and all(name in (_ANY, part) for name, part in zip(known, parts, strict=True))
        for known in _KNOWN
    )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)

"""Keep what this version stores of deferred tasks, as test data for later versions.

    .venv/bin/python -m scripts.serialized_triggers            at each release: write the file
    .venv/bin/python -m scripts.serialized_triggers --check    is the file of this version complete?

Airflow stores the trigger of a deferred task, and with what the task will be resumed. After an
upgrade the new version makes the trigger from that. So each release adds a file to
``tests/data/serialized_triggers``, and ``tests/package/test_serialized_triggers.py`` lets the
current code finish the tasks of all files.

The tasks are executed against the fake service until they defer. Runs on Airflow 3.3, where tasks
can also start in the triggerer.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import pkgutil
import shutil
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import import_module
from inspect import isabstract
from os import environ
from pathlib import Path
from tempfile import mkdtemp
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from scripts.airflow_env import ROOT, airflow_environment
from tests.fakes.fake_service import UNTIL_ENDED, FakeService

__all__ = [
    "EVENT_TRIGGERS",
    "FOLDER",
    "GROUP_STARTS_IN_TRIGGERER",
    "JOB_ID",
    "STARTS_IN_TRIGGERER",
    "TASKS",
    "connect",
    "defer",
    "imported",
    "launch_before",
    "main",
    "run_to_event",
    "task_context",
]

FOLDER = ROOT / "tests" / "data" / "serialized_triggers"
JOB_ID = 11
_OPERATORS = "airflow_jobs_provider.operators.jobs"
_NOTEBOOK = {"existing_cluster_id": "a-cluster", "notebook_task": {"notebook_path": "/etl"}}
_WAIT = {"deferrable": True, "polling_period_seconds": 0.02}
_LIMITS = {
    "queued_timeout_seconds": 600,
    "databricks_retry_limit": 4,
    "databricks_retry_delay": 2,
    "max_output_bytes": 99,
}

# The operator's class and arguments, as in a DAG file.
TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "submit": (f"{_OPERATORS}.DatabricksSubmitRunOperator", {**_NOTEBOOK, **_WAIT}),
    "submit, limits": (
        f"{_OPERATORS}.DatabricksSubmitRunOperator",
        {**_NOTEBOOK, **_WAIT, **_LIMITS},
    ),
    "submit, end_from_trigger": (
        f"{_OPERATORS}.DatabricksSubmitRunOperator",
        {**_NOTEBOOK, **_WAIT, "end_from_trigger": True},
    ),
    "submit, several tasks": (
        f"{_OPERATORS}.DatabricksSubmitRunOperator",
        {**_WAIT, "tasks": [{"task_key": key, **_NOTEBOOK} for key in ("a", "b")]},
    ),
    "run now": (f"{_OPERATORS}.DatabricksRunNowOperator", {"job_id": JOB_ID, **_WAIT}),
    "run now, repair_run": (
        f"{_OPERATORS}.DatabricksRunNowOperator",
        {"job_id": JOB_ID, "repair_run": True, **_WAIT},
    ),
    "notebook": (
        f"{_OPERATORS}.DatabricksNotebookOperator",
        {
            "existing_cluster_id": "a-cluster",
            "notebook_path": "/etl",
            "source": "WORKSPACE",
            **_WAIT,
        },
    ),
    "task": (f"{_OPERATORS}.DatabricksTaskOperator", {"task_config": _NOTEBOOK, **_WAIT}),
    "sensor": (
        "airflow_jobs_provider.sensors.jobs.DatabricksJobRunSensor",
        {"run_id": 1001, "deferrable": True, "poke_interval": 0.02},
    ),
    "sensor of a job": (
        "airflow_jobs_provider.sensors.jobs.DatabricksJobRunSensor",
        {
            "job_id": JOB_ID,
            "started_since": "2026-01-01",
            "deferrable": True,
            "poke_interval": 0.02,
        },
    ),
    "sensor of a task": (
        "airflow_jobs_provider.sensors.jobs.DatabricksJobRunSensor",
        {"run_id": 1001, "task_key": "a", "deferrable": True, "poke_interval": 0.02},
    ),
}
STARTS_IN_TRIGGERER: dict[str, tuple[str, dict[str, Any]]] = {
    "submit, start_from_trigger": (
        f"{_OPERATORS}.DatabricksSubmitRunOperator",
        {
            **_NOTEBOOK,
            "polling_period_seconds": 0.02,
            "start_from_trigger": True,
            "end_from_trigger": True,
        },
    ),
}

# Tasks of the group of ``tests/helpers/group_in_triggerer``.
GROUP_STARTS_IN_TRIGGERER = {
    "launch of a group, start_from_trigger": "etl.launch",
    "member of a group, start_from_trigger": "etl.load",
}


# Of an AssetWatcher. Airflow stores them, and the position under a key that is made from them.
EVENT_TRIGGERS: dict[str, dict[str, Any]] = {
    "events of a job": {"job_id": JOB_ID, "states": ["SUCCESS", "FAILED"]},
    "events of jobs with tags": {"tags": {"team": "sales"}, "polling_period_seconds": 60},
    "events of all runs": {"all_runs": True, "look_back_seconds": 3600},
}


def imported(path: str) -> Any:
    """Return the class with an import path."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


class _TaskInstance:
    """What the operators ask of a task instance; it keeps what is pushed."""

    dag_id, run_id, map_index, try_number, max_tries = "sales", "scheduled__2026-01-01", -1, 1, 1

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        self.start_date = datetime.now(UTC)
        self.xcoms: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = value

    def xcom_pull(self, *, key: str, **_task: Any) -> Any:
        return self.xcoms.get(key)


def task_context(task_id: str = "etl") -> Any:
    """Return the context of the first of a task's two attempts."""
    task = SimpleNamespace(retries=1)
    return {"ti": _TaskInstance(task_id), "params": {}, "dag_run": None, "task": task}


def connect(service: FakeService) -> None:
    """Make the service the workspace of the default connection."""
    environ["AIRFLOW_CONN_DATABRICKS_DEFAULT"] = service.connection


def launch_before(name: str, service: FakeService) -> None:
    """Launch the run that a task waits for without launching it; other tasks have none."""
    endpoint = "run-now"
    request: dict[str, Any] = {"job_id": JOB_ID}
    if not name.startswith("sensor"):
        return
    if "task_key" in TASKS[name][1]:
        endpoint, request = "runs/submit", {"tasks": [{"task_key": "a"}, {"task_key": "b"}]}
    headers = {"Authorization": f"Bearer {json.loads(service.connection)['password']}"}
    url = f"{service.url}/api/2.1/jobs/{endpoint}"
    requests.post(url, json=request, headers=headers, timeout=10).raise_for_status()


def defer(operator: Any, context: Any) -> dict[str, Any]:
    """Execute an operator until it defers; return what Airflow stores of it."""
    from airflow.providers.common.compat.sdk import TaskDeferred

    try:
        operator.execute(context)
    except TaskDeferred as deferred:
        classpath, kwargs = deferred.trigger.serialize()
        return {
            "classpath": classpath,
            "kwargs": kwargs,
            "next_method": deferred.method_name,
            "next_kwargs": deferred.kwargs or {},
        }
    raise AssertionError(f"{operator} does not defer")


def run_to_event(trigger: Any) -> Any:
    """Run a trigger to its one event; return the payload."""

    async def collect() -> list[Any]:
        return [event.payload async for event in trigger.run()]

    (payload,) = asyncio.run(collect())
    return payload


def _stored_of(name: str) -> dict[str, Any]:
    """Return the stored form of one of TASKS, with the event and the output that came of it."""
    path, arguments = TASKS[name]
    with FakeService(UNTIL_ENDED) as service:
        connect(service)
        launch_before(name, service)
        operator, context = imported(path)(task_id="etl", **arguments), task_context()
        stored = defer(operator, context)
        (run,) = service.runs.values()
        service.end(run)
        event = run_to_event(imported(stored["classpath"])(**stored["kwargs"]))
        resume = getattr(operator, stored["next_method"])
        result = resume(context, event, **stored["next_kwargs"])
    return {
        "operator": path,
        "arguments": arguments,
        **stored,
        "idempotency_token": run.token,
        "event": event,
        "result": result,
    }


def _started_in_triggerer(name: str) -> dict[str, Any]:
    from airflow.providers.common.compat.sdk import DAG

    path, arguments = STARTS_IN_TRIGGERER[name]
    with DAG("sales", schedule=None):
        start = imported(path)(task_id="etl", **arguments).start_trigger_args
    return {
        "operator": path,
        "arguments": arguments,
        "classpath": start.trigger_cls,
        "kwargs": start.trigger_kwargs,
        "next_method": start.next_method,
        "next_kwargs": start.next_kwargs or {},
    }


def _started_in_group(name: str) -> dict[str, Any]:
    """Return with what Airflow starts a task of a group."""
    from tests.helpers.group_in_triggerer import group_dag

    task: Any = group_dag().get_task(GROUP_STARTS_IN_TRIGGERER[name])
    start = task.start_trigger_args
    return {
        "classpath": start.trigger_cls,
        "kwargs": start.trigger_kwargs,
        "next_method": start.next_method,
        "next_kwargs": start.next_kwargs or {},
    }


def _member_of_group() -> dict[str, Any]:
    """Return the stored form of a task of a group, which waits for its task of the group's run."""
    from tests.fakes.scripted_server import ScriptedServer
    from tests.helpers.workflow_group import RERUN, Airflow, whole

    monkeypatch, server = pytest.MonkeyPatch(), ScriptedServer()
    try:
        connection = {"conn_type": "databricks_jobs", "host": server.url, "password": "any"}
        environ["AIRFLOW_CONN_DATABRICKS_DEFAULT"] = json.dumps(connection)
        airflow = Airflow(monkeypatch, deferrable=True)
        airflow.record("a", reported=50, max_tries=0, is_alone=False)
        server.will(whole("RUNNING", *RERUN))
        executes = SimpleNamespace(execute=lambda _context: airflow.execute(2, 1))
        return defer(executes, None)
    finally:
        server.close()
        monkeypatch.undo()


def _event_trigger(name: str) -> dict[str, Any]:
    from airflow_jobs_provider.triggers.polling.watch_position import WatchPosition

    path = "airflow_jobs_provider.triggers.jobs.DatabricksJobRunEventTrigger"
    trigger = imported(path)(**EVENT_TRIGGERS[name])
    classpath, kwargs = trigger.serialize()
    position = WatchPosition(2_000, 1_000, active=frozenset({7}), reported={8: 2_500})
    return {
        "classpath": classpath,
        "kwargs": kwargs,
        "position_key": trigger.position_key,
        "position": position.as_json(),
    }


def stored_today() -> dict[str, Any]:
    """Return what the current code stores of each task."""
    from airflow import __version__ as airflow_version

    from airflow_jobs_provider import __version__

    tasks = {name: _stored_of(name) for name in TASKS}
    tasks |= {name: _started_in_triggerer(name) for name in STARTS_IN_TRIGGERER}
    tasks |= {name: _started_in_group(name) for name in GROUP_STARTS_IN_TRIGGERER}
    tasks["member of a group"] = _member_of_group()
    events = {name: _event_trigger(name) for name in EVENT_TRIGGERS}
    return {
        "version": __version__,
        "airflow": airflow_version,
        "tasks": tasks,
        "event_triggers": events,
    }


def _trigger_classes() -> set[str]:
    """Return the class paths of all triggers but those that are base classes only."""
    for package in ("operators", "triggers"):
        path = f"airflow_jobs_provider.{package}"
        for module in pkgutil.iter_modules(import_module(path).__path__, f"{path}."):
            import_module(module.name)
    bases = {
        imported("airflow_jobs_provider.triggers.base.DatabricksJobsBaseTrigger"),
        imported("airflow_jobs_provider.operators.request_trigger.RequestTrigger"),
        imported("airflow_jobs_provider.airflow_compat.event_triggers.AssetEventTrigger"),
    }
    return {
        f"{one.__module__}.{one.__qualname__}"
        for base in bases
        for one in _subclasses(base)
        if not isabstract(one)
    }


def _subclasses(kind: type) -> Iterator[type]:
    child: type
    for child in kind.__subclasses__():
        yield child
        yield from _subclasses(child)


def _form(stored: dict[str, Any]) -> dict[str, Any]:
    """Return class paths, and names of arguments: what differs from one version to the next."""
    return {
        name: [
            one["classpath"],
            sorted(one["kwargs"]),
            one.get("next_method"),
            sorted(one.get("next_kwargs", ())),
            one.get("position_key"),
            sorted(one.get("position", ())),
        ]
        for name, one in (stored["tasks"] | stored.get("event_triggers", {})).items()
    }


def main(arguments: list[str]) -> None:
    """Write the file of this version, or check it."""
    # Airflow is not imported yet. A plugin with listeners would start the tasks on workers.
    home = Path(mkdtemp())
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    environ.update(airflow_environment(home, home, connection=None))
    stored = json.loads(json.dumps(stored_today(), allow_nan=False))
    kept = stored["tasks"] | stored["event_triggers"]
    classes = {one["classpath"] for one in kept.values()}
    if missing := _trigger_classes() - classes:
        sys.exit(f"Error: no task of this script defers to {', '.join(sorted(missing))}")
    file = FOLDER / f"{stored['version']}.json"
    if arguments == ["--check"]:
        if not file.exists() or _form(json.loads(file.read_text())) != _form(stored):
            sys.exit(
                f"Error: {file.relative_to(ROOT)} is not what this version stores of deferred "
                "tasks. Before a release run: python -m scripts.serialized_triggers"
            )
        return
    file.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n")
    print(f"{file.relative_to(ROOT)}: {len(kept)} triggers")


if __name__ == "__main__":
    main(sys.argv[1:])

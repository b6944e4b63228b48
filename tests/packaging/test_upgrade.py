"""Tasks that an earlier version's wheel has deferred, finished by the current code.

UPGRADE_FROM names the commit or tag to upgrade from; default the latest release.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from scripts.airflow_env import ROOT, airflow_environment
from scripts.serialized_triggers import JOB_ID, defer, imported, task_context
from tests.fakes.fake_service import UNTIL_ENDED, FakeService
from tests.helpers.earlier_version import earlier_commit, unpack_wheel

pytestmark = pytest.mark.slow

NOTEBOOK = {"existing_cluster_id": "a-cluster", "notebook_task": {"notebook_path": "/etl"}}
WAIT = {"deferrable": True, "polling_period_seconds": 0.02}
OPERATORS = "airflow_jobs_provider.operators.jobs"
TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "submit": (f"{OPERATORS}.DatabricksSubmitRunOperator", {**NOTEBOOK, **WAIT}),
    "notebook": (
        f"{OPERATORS}.DatabricksNotebookOperator",
        {
            "existing_cluster_id": "a-cluster",
            "notebook_path": "/etl",
            "source": "WORKSPACE",
            **WAIT,
        },
    ),
    "run_now": (f"{OPERATORS}.DatabricksRunNowOperator", {"job_id": JOB_ID, **WAIT}),
}
DEFER = """
import json, sys
import airflow_jobs_provider
from scripts.serialized_triggers import defer, imported, task_context

tasks = json.load(sys.stdin)
stored = {
    name: defer(imported(path)(task_id=name, **arguments), task_context(task_id=name))
    for name, (path, arguments) in tasks.items()
}
json.dump({"file": airflow_jobs_provider.__file__, "tasks": stored}, open(sys.argv[1], "w"))
"""


@dataclass
class Upgrade:
    """What the earlier version left: runs that go on, and deferred tasks."""

    service: FakeService
    stored: dict[str, Any]


@pytest.fixture(scope="module")
def upgrade(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upgrade]:
    """Let the wheel of the earlier version launch runs and defer, in a process of its own."""
    folder = tmp_path_factory.mktemp("earlier")
    wheel = unpack_wheel(earlier_commit(), folder)
    result = folder / "stored.json"
    with FakeService(UNTIL_ENDED) as service:
        env = airflow_environment(folder, folder, connection=service.connection)
        env["PYTHONPATH"] = f"{wheel}{os.pathsep}{ROOT}"
        subprocess.run(
            [sys.executable, "-P", "-c", DEFER, str(result)],
            input=json.dumps(TASKS).encode(),
            env=env,
            cwd=folder,
            check=True,
        )
        left = json.loads(result.read_text())
        assert Path(left["file"]).is_relative_to(wheel)
        yield Upgrade(service, left["tasks"])


@pytest.fixture(autouse=True)
def connection(upgrade: Upgrade, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connect this process, which has the current code, to the same workspace."""
    monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", upgrade.service.connection)


def operator_of(name: str) -> Any:
    """Make the task's operator from the DAG file."""
    path, arguments = TASKS[name]
    return imported(path)(task_id=name, **arguments)


def test_a_worker_that_is_executed_again_finds_the_run(upgrade: Upgrade) -> None:
    """The earlier version launched; its worker died; the current code sends the same token."""
    runs = {**upgrade.service.runs}
    for name, stored in upgrade.stored.items():
        again = defer(operator_of(name), task_context(task_id=name))
        assert again["kwargs"]["run_id"] == stored["kwargs"]["run_id"]
    assert upgrade.service.runs == runs
    assert {run.launches for run in runs.values()} == {2}


def test_deferred_tasks_are_finished(upgrade: Upgrade) -> None:
    """All triggers run in one triggerer; each task is resumed once, with its run's output."""
    service, stored = upgrade.service, upgrade.stored

    async def first_event(one: dict[str, Any]) -> Any:
        trigger = imported(one["classpath"])(**one["kwargs"])
        return [event.payload async for event in trigger.run()]

    async def triggerer() -> list[Any]:
        waits = [asyncio.create_task(first_event(one)) for one in stored.values()]
        looks = {run_id: run.looks for run_id, run in service.runs.items()}
        async with asyncio.timeout(30):
            while any(  # noqa: ASYNC110 - the service is in threads
                run.looks <= looks[run_id] for run_id, run in service.runs.items()
            ):
                await asyncio.sleep(0.01)
        assert not any(wait.done() for wait in waits)
        for run in service.live:
            service.end(run)
        return await asyncio.gather(*waits)

    results = {}
    for name, (event,) in zip(stored, asyncio.run(triggerer()), strict=True):
        resume = getattr(operator_of(name), stored[name]["next_method"])
        payload = json.loads(json.dumps(event))
        results[name] = resume(task_context(task_id=name), payload, **stored[name]["next_kwargs"])
    assert results == {name: f"output of {one['kwargs']['run_id']}" for name, one in stored.items()}
    assert len(service.runs) == len(TASKS)
    assert service.count("runs/cancel") == 0

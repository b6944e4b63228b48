"""Tasks of a group that are cleared together, each in a thread, against the local workspace.

Airflow's part (states and XComs) is kept in memory, as a scheduler and its workers would leave it.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_jobs_provider.airflow_compat.lines import airflow_line, airflow_version
from airflow_jobs_provider.airflow_compat.workflow_records import LaterAttempt
from airflow_jobs_provider.api.auth import Token
from airflow_jobs_provider.api.client import JobsClient
from airflow_jobs_provider.api.endpoints import list_runs
from airflow_jobs_provider.api.run_summary import latest_attempts
from airflow_jobs_provider.api.workflows.follow import whole_run
from airflow_jobs_provider.api.workflows.repair import repairs_of
from airflow_jobs_provider.local.workspace import LocalWorkspace
from airflow_jobs_provider.operators.jobs import DatabricksNotebookOperator
from airflow_jobs_provider.operators.workflow import DatabricksWorkflowTaskGroup

KEYS = ("a", "b", "c", "d", "e", "f")
CLEARED = ("a", "b", "c", "d")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalWorkspace]:
    """A workspace in which each run ends well at once."""
    root = tmp_path_factory.mktemp("root")
    Path(root / "n.py").write_text("# Databricks notebook source\n")
    with LocalWorkspace(root, state_dir=tmp_path_factory.mktemp("s"), dry_run=True) as running:
        yield running


@pytest.fixture
def connected(workspace: LocalWorkspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection to the workspace; tasks look at each other more often than each second."""
    sleep = staticmethod(lambda seconds: time.sleep(min(seconds, 0.05)))
    monkeypatch.setattr(JobsClient, "_default_sleep", sleep)
    connection = {"conn_type": "databricks_jobs", "host": workspace.url}
    connection["password"] = workspace.token
    monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", json.dumps(connection))


class Airflow:
    """A DAG run with a group: states, XComs and attempts of its tasks."""

    def __init__(
        self, dag_id: str, monkeypatch: pytest.MonkeyPatch, keys: Sequence[str] = KEYS
    ) -> None:
        with DAG(dag_id, schedule=None), DatabricksWorkflowTaskGroup(group_id="g") as self.group:
            for key in keys:
                DatabricksNotebookOperator(
                    task_id=key,
                    notebook_path="/n",
                    databricks_task_key=key,
                    existing_cluster_id="local",
                    polling_period_seconds=0.05,
                )
        self.dag_id = dag_id
        self.members = {member.task_id: member for member in self.group.members()}
        self.states: dict[str, str | None] = dict.fromkeys(self.members)
        self.attempts = dict.fromkeys([*self.members, "g.launch"], 0)
        self.max_tries = dict.fromkeys([*self.members, "g.launch"], 0)
        self.xcoms: dict[tuple[str, str], Any] = {}
        line = airflow_line()
        monkeypatch.setattr(line, "task_states", lambda _one, ids: {i: self.states[i] for i in ids})
        monkeypatch.setattr(
            line, "read_xcom", lambda _one, task_id, key: self.xcoms.get((task_id, key))
        )
        monkeypatch.setattr(
            line,
            "write_xcom",
            lambda _one, task_id, key, value: self.xcoms.update({(task_id, key): value}),
        )
        monkeypatch.setattr(line, "later_attempt", self._later_attempt)

    def _later_attempt(self, _one: Any, task_id: str, **known: Any) -> LaterAttempt:
        has_begun = self.xcoms.get((task_id, "run_id")) != known["reported"]
        return LaterAttempt(has_begun, self.max_tries[task_id] != known["max_tries"])

    def begin(self, task_id: str) -> Any:
        """Begin an attempt, as Airflow does: its state is running, and its XComs are deleted."""
        self.states[task_id] = "running"
        self.attempts[task_id] += 1
        for key in [key for key in list(self.xcoms) if key[0] == task_id]:
            if task_id != "g.launch":
                del self.xcoms[key]
        operator = self.group.launch_task if task_id == "g.launch" else self.members[task_id]
        ti = SimpleNamespace(
            dag_id=self.dag_id,
            run_id="a_run",
            task_id=task_id,
            map_index=-1,
            try_number=self.attempts[task_id],
            max_tries=self.max_tries[task_id],
            start_date=None,
            task=operator,
            xcom_push=lambda key, value: self.xcoms.update({(task_id, key): value}),
            xcom_pull=lambda *, task_ids, key, map_indexes: (  # noqa: ARG005
                self.xcoms.get((task_ids, key))
            ),
        )
        return {"ti": ti, "params": {}, "dag_run": None, "task": operator}

    def execute(self, task_id: str, delay: float = 0.0) -> None:
        """Execute an attempt to its end, on a worker that has time for it after so many seconds."""
        time.sleep(delay)
        context = self.begin(task_id)
        self.xcoms[task_id, "return_value"] = context["task"].execute(context)
        self.states[task_id] = "success"

    def clear(self, *task_ids: str) -> None:
        """Clear tasks that have ended."""
        for task_id in task_ids:
            self.states[task_id] = None
            self.max_tries[task_id] = self.attempts[task_id]


def together(tasks: list[threading.Thread]) -> None:
    """Run threads to their end."""
    for thread in tasks:
        thread.start()
    for thread in tasks:
        thread.join(30)
        assert not thread.is_alive()


@pytest.mark.skipif(airflow_version() < (3, 0), reason="operators are for the main thread only")
@pytest.mark.parametrize("dies", [False, True])
@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))]
)
@pytest.mark.usefixtures("connected")
def test_tasks_that_are_cleared_together_are_one_repair(
    seed: int, dies: bool, workspace: LocalWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever their processes start, and also where one dies before it has told anything."""
    airflow = Airflow(f"seed_{seed}_{dies}", monkeypatch)
    airflow.execute("g.launch")
    for task_id in airflow.members:
        airflow.execute(task_id)
    cleared, chance = [f"g.{key}" for key in CLEARED], random.Random(seed)
    airflow.clear(*cleared)
    chance.shuffle(cleared)
    victim = cleared.pop() if dies else None
    if victim is not None:
        airflow.begin(victim)  # and its process dies
    delays = [0.0, *(chance.uniform(0.0, 1.0) for _ in cleared[1:])]
    together(
        [
            threading.Thread(target=airflow.execute, args=one)
            for one in zip(cleared, delays, strict=True)
        ]
    )
    if victim is not None:
        airflow.states[victim] = "up_for_retry"
        airflow.execute(victim)
    assert set(airflow.states.values()) == {"success"}
    run = only_run(airflow, workspace)
    assert len(repairs_of(run)) == 1
    assert len(repair_requests(run, workspace)) == 1
    assert attempts_of(run) == {key: 2 if key in CLEARED else 1 for key in KEYS}


@pytest.mark.skipif(airflow_version() < (3, 0), reason="operators are for the main thread only")
@pytest.mark.usefixtures("connected")
def test_tasks_that_find_the_end_of_the_run_at_the_same_moment(
    workspace: LocalWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them requests the repair; the others wait for it and request none."""
    airflow = Airflow("same_moment", monkeypatch)
    airflow.execute("g.launch")
    for task_id in airflow.members:
        airflow.execute(task_id)
    cleared = [f"g.{key}" for key in CLEARED]
    airflow.clear(*cleared)
    # Each has read that the run has ended before any of them learns of the others.
    all_have_read, have_waited = threading.Barrier(len(cleared), timeout=20), threading.local()
    line = airflow_line()
    task_states = line.task_states

    def wait_and_tell(attempt: Any, task_ids: Sequence[str]) -> dict[str, str | None]:
        if not hasattr(have_waited, "once"):
            have_waited.once = True
            all_have_read.wait()
        return task_states(attempt, task_ids)

    monkeypatch.setattr(line, "task_states", wait_and_tell)
    together([threading.Thread(target=airflow.execute, args=(one,)) for one in cleared])
    assert set(airflow.states.values()) == {"success"}
    run = only_run(airflow, workspace)
    assert repair_requests(run, workspace) == [list(CLEARED)]
    assert attempts_of(run) == {key: 2 if key in CLEARED else 1 for key in KEYS}


@pytest.mark.slow
@pytest.mark.skipif(airflow_version() < (3, 0), reason="operators are for the main thread only")
@pytest.mark.usefixtures("connected")
def test_tasks_of_a_group_of_two_hundred_are_cleared(
    workspace: LocalWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One repair runs them again, on whatever page of the run's tasks they are."""
    keys = [f"n{number}" for number in range(200)]
    cleared = ["g.n3", "g.n150", "g.n199"]
    airflow = Airflow("large", monkeypatch, keys)
    airflow.execute("g.launch")
    airflow.states = dict.fromkeys(airflow.members, "success")
    for task_id in cleared:
        airflow.execute(task_id)
    assert len({airflow.xcoms[task_id, "run_id"] for task_id in cleared}) == len(cleared)
    airflow.clear(*cleared)
    together([threading.Thread(target=airflow.execute, args=(one,)) for one in cleared])
    run = only_run(airflow, workspace)
    assert len(repairs_of(run)) == 1
    assert attempts_of(run) == {key: 2 if f"g.{key}" in cleared else 1 for key in keys}


def only_run(airflow: Airflow, workspace: LocalWorkspace) -> Any:
    """Return the run of the group; nothing else was launched."""
    with JobsClient(workspace.url, Token(workspace.token)) as client:
        (run,) = client.send(list_runs(job_id=airflow.xcoms["g.launch", "job_id"])).items
        return client.run(whole_run(run["run_id"], api_version="2.2", include_history=True))


def repair_requests(run: Any, workspace: LocalWorkspace) -> list[list[str]]:
    """Return the tasks that each request to repair a run names, the refused ones included."""
    asked = [one.data for one in workspace.simulation.log.requests if one.endpoint == "runs/repair"]
    return [sorted(body["rerun_tasks"]) for body in asked if body["run_id"] == run["run_id"]]


def attempts_of(run: Any) -> dict[str, int]:
    """Return how often each task of a run was started."""
    return {key: task["attempt_number"] + 1 for key, task in latest_attempts(run).items()}

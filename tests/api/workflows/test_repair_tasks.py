"""Running tasks of a run again: against the local workspace, by several callers at once."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from airflow_jobs_provider.api.auth import Token
from airflow_jobs_provider.api.calls import Call
from airflow_jobs_provider.api.client import JobsClient
from airflow_jobs_provider.api.endpoints import (
    delete_job,
    delete_run,
    get_run,
    run_now,
    update_job,
)
from airflow_jobs_provider.api.errors import BadRequestError
from airflow_jobs_provider.api.run_summary import latest_attempts
from airflow_jobs_provider.api.states import RunState
from airflow_jobs_provider.api.workflows.follow import whole_run
from airflow_jobs_provider.api.workflows.job_definitions import ensure_job
from airflow_jobs_provider.api.workflows.repair import (
    RunNotRepairableError,
    repair_tasks,
    repairs_of,
)
from airflow_jobs_provider.local.workspace import LocalWorkspace
from tests.helpers.workflow_driver import execute_together

KEYS = ("a", "b", "c")
TASKS = [{"task_key": key, "notebook_task": {"notebook_path": "/n"}} for key in KEYS]
SETTINGS = {"name": "three", "max_concurrent_runs": 5, "tasks": TASKS}
CHANGED = [{**one, "notebook_task": {"notebook_path": "/other"}} for one in TASKS]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobsClient]:
    """A client of a workspace in which each run ends well at once."""
    root = tmp_path_factory.mktemp("root")
    Path(root / "n.py").write_text("# Databricks notebook source\n")
    state = tmp_path_factory.mktemp("s")
    with (
        LocalWorkspace(root, state_dir=state, dry_run=True) as workspace,
        JobsClient(workspace.url, Token(workspace.token)) as one,
    ):
        yield one


@pytest.fixture
def ended(client: JobsClient) -> Any:
    """A run of three tasks that has ended."""
    steps = ensure_job(SETTINGS, nonce="ab", log=logging.getLogger("jobs"))
    job_id = client.run(steps, wait=lambda _seconds: None)
    run_id = client.send(run_now({"job_id": job_id, "notebook_params": {"day": "1"}}))
    return until_ended(client, run_id)


def until_ended(client: JobsClient, run_id: int) -> Any:
    """Read a run until it has ended."""
    while True:
        run: Any = client.run(whole_run(run_id, api_version="2.2", include_history=True))
        if RunState.from_run(run).is_terminal:
            return run


def repairing(run: Any, key: str, *, together: tuple[str, ...] = ()) -> Any:
    """Make the workflow with which a task is run again."""
    latest = latest_attempts(run)[key]["run_id"]
    return repair_tasks(
        run["run_id"],
        key,
        after=latest,
        choose=lambda _run: together,
        settings=SETTINGS,
        polling_period_seconds=0.1,
    )


def attempts(client: JobsClient, run: Any) -> dict[str, int]:
    """Return how often each task was run, once the run has ended."""
    run = until_ended(client, run["run_id"])
    return {key: int(task["attempt_number"]) + 1 for key, task in latest_attempts(run).items()}


def test_exactly_the_chosen_tasks_run_again(client: JobsClient, ended: Any) -> None:
    """In one repair, with the parameters of the run; the third task is untouched."""
    run = client.run(repairing(ended, "a", together=("a", "b")))
    assert latest_attempts(run)["a"]["run_id"] != latest_attempts(ended)["a"]["run_id"]
    assert attempts(client, ended) == {"a": 2, "b": 2, "c": 1}
    run = until_ended(client, ended["run_id"])
    assert len(repairs_of(run)) == 1
    assert run["overriding_parameters"] == {"notebook_params": {"day": "1"}}


def test_a_task_that_was_run_again_meanwhile_is_not_repaired(
    client: JobsClient, ended: Any
) -> None:
    """The caller gets the run as it is."""
    client.run(repairing(ended, "a", together=("b",)))
    until_ended(client, ended["run_id"])
    client.run(repairing(ended, "b"))
    assert attempts(client, ended) == {"a": 2, "b": 2, "c": 1}


@pytest.mark.parametrize("seed", range(6))
def test_two_tasks_at_the_same_moment(client: JobsClient, ended: Any, seed: int) -> None:
    """Whatever the order of their requests, each task runs again once."""
    several = [repairing(ended, key, together=("a", "b")) for key in ("a", "b")]
    execute_together(client.send, several, seed)
    assert attempts(client, ended) == {"a": 2, "b": 2, "c": 1}


def test_a_repair_whose_response_is_lost_is_not_made_twice(client: JobsClient, ended: Any) -> None:
    """The same request once more is refused; the repair is found in the history."""

    def send(call: Call[Any], sender: Any) -> Any:
        if call.path == "runs/repair":
            sender(call)
            until_ended(client, ended["run_id"])
        return sender(call)

    (run,) = execute_together(partial(send, sender=client.send), [repairing(ended, "a")], 0)
    assert len(repairs_of(run)) == 1
    assert attempts(client, ended) == {"a": 2, "b": 1, "c": 1}


def test_a_refusal_is_raised(client: JobsClient, ended: Any) -> None:
    """Such as for a run that does not exist any more."""
    client.send(delete_run(ended["run_id"]))
    with pytest.raises(BadRequestError):
        client.send(get_run(ended["run_id"]))
    with pytest.raises(BadRequestError):
        client.run(repairing(ended, "a"))


@pytest.fixture
def own_job(client: JobsClient, ended: Any) -> Iterator[Any]:
    """A run whose job the test changes; the job is deleted at the end."""
    yield ended
    client.send(delete_job(ended["job_id"]))


def test_a_job_that_was_changed_is_not_repaired(client: JobsClient, own_job: Any) -> None:
    """The repair would run something else."""
    client.send(update_job(own_job["job_id"], {"tasks": CHANGED}))
    with pytest.raises(RunNotRepairableError, match="was changed since the run was launched"):
        client.run(repairing(own_job, "a"))
    assert attempts(client, own_job) == {"a": 1, "b": 1, "c": 1}


def test_a_job_that_is_changed_at_the_moment_of_the_repair(
    client: JobsClient, own_job: Any
) -> None:
    """The repair has run other tasks, and is canceled."""
    sent: list[Call[Any]] = []

    def send(call: Call[Any]) -> Any:
        if call.path == "runs/repair":
            client.send(update_job(own_job["job_id"], {"tasks": CHANGED}))
        sent.append(call)
        return client.send(call)

    with pytest.raises(RunNotRepairableError, match="the repair is canceled"):
        execute_together(send, [repairing(own_job, "a")], 0)
    assert sent[-1].path == "runs/cancel"
    assert sent[-1].parameters == {"run_id": own_job["run_id"]}


def test_a_job_that_is_changed_after_the_repair(client: JobsClient, own_job: Any) -> None:
    """The tasks run as they were; nothing is canceled."""

    def send(call: Call[Any]) -> Any:
        answered = client.send(call)
        if call.path == "runs/repair":
            client.send(update_job(own_job["job_id"], {"tasks": CHANGED}))
        return answered

    execute_together(send, [repairing(own_job, "a")], 0)
    assert attempts(client, own_job) == {"a": 2, "b": 1, "c": 1}

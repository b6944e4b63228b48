"""Keeping the jobs of a name: against the local workspace, by several callers at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_jobs_provider.api.auth import Token
from airflow_jobs_provider.api.calls import Call
from airflow_jobs_provider.api.client import JobsClient
from airflow_jobs_provider.api.endpoints import (
    create_job,
    delete_job,
    list_jobs,
    reset_job,
    run_now,
    update_job,
)
from airflow_jobs_provider.api.errors import NotFoundError
from airflow_jobs_provider.api.workflows.base import Workflow
from airflow_jobs_provider.api.workflows.follow import whole_run
from airflow_jobs_provider.api.workflows.job_definitions import (
    definition_digest,
    ensure_job,
    has_settings,
    has_tasks,
    is_defined_as,
    job_change,
    whole_job,
)
from airflow_jobs_provider.api.workflows.progress import Log
from airflow_jobs_provider.local.workspace import LocalWorkspace
from tests.helpers.workflow_driver import execute_together

NAME = "sales.etl"


class Lines:
    """A log that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, msg: str, /, *args: Any) -> None:
        """Keep a line."""
        self.lines.append(msg % args)

    warning = error = info


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalWorkspace]:
    """A workspace in which each run ends well at once."""
    root = tmp_path_factory.mktemp("root")
    Path(root / "n.py").write_text("# Databricks notebook source\n")
    with LocalWorkspace(root, state_dir=tmp_path_factory.mktemp("s"), dry_run=True) as running:
        yield running


@pytest.fixture
def client(workspace: LocalWorkspace) -> Iterator[JobsClient]:
    """A client; at the end there is no job."""
    with JobsClient(workspace.url, Token(workspace.token)) as one:
        yield one
        for job in one.send(list_jobs()).items:
            one.send(delete_job(job["job_id"]))


def settings(day: int, tasks: int = 1) -> dict[str, Any]:
    """Make the settings of a job; those of two days differ."""
    notebook = {"notebook_path": "/n", "base_parameters": {"day": day}}
    return {
        "name": NAME,
        "max_concurrent_runs": 5,
        "tasks": [{"task_key": f"t{n}", "notebook_task": notebook} for n in range(tasks)],
    }


def ensured(client: JobsClient, wanted: dict[str, Any], log: Log | None = None) -> int:
    """Ensure a job without waiting."""
    steps = ensure_job(wanted, nonce="ab", log=log or Lines())
    return client.run(steps, wait=lambda _seconds: None)


def jobs(client: JobsClient) -> list[int]:
    """Return the ids of all jobs."""
    return [job["job_id"] for job in client.send(list_jobs()).items]


def test_a_job_is_created_once_and_reset_only_if_it_has_changed(client: JobsClient) -> None:
    """The second caller sends no change; a user's change of the settings is undone."""
    log = Lines()
    job_id = ensured(client, settings(1), log)
    assert ensured(client, settings(1), log) == job_id
    assert log.lines == [f"Created job {job_id}, '{NAME}'."]
    changed = settings(1)
    changed["tasks"][0]["notebook_task"] = {"notebook_path": "/other"}
    client.send(update_job(job_id, {"tasks": changed["tasks"]}))
    assert ensured(client, settings(1), log) == job_id
    assert "its settings were changed" in log.lines[-1]
    assert ensured(client, settings(2), log) == job_id
    assert "its definition has changed" in log.lines[-1]
    assert jobs(client) == [job_id]


def test_a_second_job_that_somebody_else_has_deleted(client: JobsClient) -> None:
    """Two callers create the job at the same moment: the later one is deleted, by whomever."""
    steps: Any = ensure_job(settings(1), nonce="ab", log=Lines())
    sent, first = [], 0
    step = next(steps)
    while True:
        sent.append(step.path)
        if step.path == "create":
            first = ensured(client, settings(1))
        if step.path == "delete":
            client.send(step)
        try:
            try:
                answer = client.send(step)
            except NotFoundError as error:
                step = steps.throw(error)
            else:
                step = steps.send(answer)
        except StopIteration as end:
            job_id = end.value
            break
    assert job_id == first
    assert sent.count("delete") == 1
    assert jobs(client) == [first]


def test_a_job_of_two_hundred_tasks(client: JobsClient) -> None:
    """All pages of its tasks are compared."""
    job_id = ensured(client, settings(1, tasks=200))
    job = client.run(whole_job(job_id))
    assert len(job["settings"]["tasks"]) == 200
    assert has_settings(job, settings(1, tasks=200))
    changed = settings(1, tasks=200)
    changed["tasks"][150]["notebook_task"] = {"notebook_path": "/other"}
    assert not has_settings(job, changed)
    log = Lines()
    assert ensured(client, settings(1, tasks=200), log) == job_id
    assert log.lines == []


def test_a_description_of_the_users_own_stays(client: JobsClient) -> None:
    """The digest of the definition is its last line."""
    wanted = {**settings(1), "description": "The sales of a day."}
    job: Any = client.run(whole_job(ensured(client, wanted)))
    assert job["settings"]["description"].startswith("The sales of a day.\n")
    assert is_defined_as(job, definition_digest(wanted))


def test_a_job_without_a_digest_is_taken_over(client: JobsClient) -> None:
    """As one that the official provider has created."""
    job_id = ensured(client, settings(1))
    client.send(reset_job(job_id, settings(1)))
    assert ensured(client, settings(2)) == job_id


def test_empty_settings_that_the_service_leaves_out() -> None:
    """They are no change of the job, at any depth."""
    job: Any = {"job_id": 1, "settings": {"name": NAME}}
    no_alert = {"email_notifications": {"no_alert_for_skipped_runs": False}}
    assert has_settings(job, {"name": NAME, **no_alert})
    assert not has_settings(job, {"name": NAME, "email_notifications": {"on_start": ["a@b.c"]}})


def test_callers_with_other_definitions_take_different_jobs(client: JobsClient) -> None:
    """Each claims one job of its own, so that many callers need no more rounds than few."""
    for day in range(4):
        client.send(create_job(settings(day)))
    claims = 0

    def send(call: Call[Any]) -> Any:
        nonlocal claims
        claims += call.path == "update"
        return client.send(call)

    several = [launching(settings(day + 10), f"{day:x}") for day in range(4)]
    execute_together(send, several, seed=0)
    assert claims == 4
    assert len(jobs(client)) == 4


def test_a_run_tells_its_definition(client: JobsClient) -> None:
    """Also where the service writes numbers as text, and adds settings."""
    wanted = settings(1, tasks=3)
    run_id = client.send(run_now({"job_id": ensured(client, wanted)}))
    run = client.run(whole_run(run_id, api_version="2.2"))
    assert has_tasks(run, wanted)
    assert not has_tasks(run, settings(2, tasks=3))
    assert not has_tasks(run, settings(1, tasks=4))


def description(client: JobsClient, job_id: int) -> str:
    """Return the description of a job."""
    job: Any = client.run(whole_job(job_id))
    return str(job["settings"]["description"])


def claimed(client: JobsClient, wanted: dict[str, Any], *, at: float) -> None:
    """Claim a job for a definition, and die before it is reset."""
    steps = ensure_job(wanted, nonce="dead", log=Lines(), clock=lambda: at)
    step = next(steps)
    while isinstance(step, Call):
        step = steps.send(client.send(step))
    steps.close()


def test_a_caller_that_has_died_after_its_claim(client: JobsClient) -> None:
    """Once the claim has expired, the job has its old definition, and the description it had."""
    job_id = ensured(client, settings(1))
    before: Any = client.run(whole_job(job_id))
    claimed(client, settings(2), at=1000.0)
    assert "airflow claim" in description(client, job_id)
    # Its members may repair a run of it meanwhile.
    assert client.run(job_change(job_id, settings(1))) is None
    log = Lines()
    steps = ensure_job(settings(1), nonce="ab", log=log, clock=lambda: 1031.0)
    assert client.run(steps, wait=lambda _seconds: None) == job_id
    assert log.lines == []
    after: Any = client.run(whole_job(job_id))
    assert after["settings"] == before["settings"]
    assert jobs(client) == [job_id]


def test_a_job_that_is_claimed_is_not_used(client: JobsClient) -> None:
    """It is about to be reset. After the death of its caller, another one resets it."""
    job_id = ensured(client, settings(1))
    claimed(client, settings(2), at=1000.0)
    steps = ensure_job(settings(1), nonce="ab", log=Lines(), clock=lambda: 1010.0)
    assert client.run(steps, wait=lambda _seconds: None) != job_id
    steps = ensure_job(settings(2), nonce="ab", log=Lines(), clock=lambda: 1031.0)
    taken = client.run(steps, wait=lambda _seconds: None)
    assert "claim" not in description(client, taken)
    assert len(jobs(client)) == 2


def test_a_deleted_job_has_changed(client: JobsClient) -> None:
    """A repair would have no settings."""
    job_id = ensured(client, settings(1))
    client.send(delete_job(job_id))
    change = client.run(job_change(job_id, settings(1)))
    assert change == f"job {job_id} does not exist any more"


def launching(wanted: dict[str, Any], nonce: str) -> Workflow[int]:
    """Do what the launching task of a group does."""
    job_id = yield from ensure_job(wanted, nonce=nonce, log=Lines())
    run_id: int = yield run_now({"job_id": job_id})
    return run_id


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 12))]
)
@pytest.mark.parametrize("days", [(1, 1, 1), (1, 2, 3)])
@pytest.mark.parametrize("exists", [False, True])
def test_callers_at_the_same_moment(
    client: JobsClient, seed: int, days: tuple[int, ...], exists: bool
) -> None:
    """Each run has the definition of its caller; one definition ends in one job."""
    if exists:
        ensured(client, settings(9))
    several = [launching(settings(day), f"{index:x}") for index, day in enumerate(days)]
    run_ids = execute_together(client.send, several, seed)
    for day, run_id in zip(days, run_ids, strict=True):
        (task,) = client.run(whole_run(run_id, api_version="2.2"))["tasks"]
        assert task["notebook_task"]["base_parameters"] == {"day": str(day)}
    if len(set(days)) == 1:
        assert len(jobs(client)) == 1

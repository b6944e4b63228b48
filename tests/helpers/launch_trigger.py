"""A task that starts in the triggerer, its triggerer, and what may happen to it."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, BaseOperator, XComArg

from airflow_jobs_provider.operators.jobs import DatabricksSubmitRunOperator
from tests.fakes.fake_service import UNTIL_ENDED, FakeService
from tests.helpers.start_from_trigger import operator
from tests.helpers.triggerer import RUN_ID, START, Attempt, Triggerer, task_runner


def start(service: FakeService, monkeypatch: pytest.MonkeyPatch, **arguments: Any) -> Triggerer:
    """Make a DAG with one task that starts in the triggerer, and the triggerer."""
    with DAG("sales", schedule=None, catchup=False) as dag:
        other = BaseOperator(task_id="other")
        for name, value in arguments.items():
            if value == "of another task":
                arguments[name] = XComArg(other, "p")
        operator(**arguments)
    return triggerer_of(dag, service, monkeypatch)


def mapped_dag(instances: int, dag_id: str = "sales", task_id: str = "etl") -> DAG:
    """Make a DAG with one mapped task that starts and ends in the triggerer.

    The paths of its notebooks are the DAG's id and the index.
    """
    with DAG(dag_id, schedule=None, catchup=False) as dag:
        DatabricksSubmitRunOperator.partial(
            task_id=task_id,
            existing_cluster_id="c",
            start_from_trigger=True,
            end_from_trigger=True,
            polling_period_seconds=1,
        ).expand(notebook_task=[{"notebook_path": f"/{dag_id}/{n}"} for n in range(instances)])
    return dag


def triggerer_of(
    dag: Any,
    service: FakeService,
    monkeypatch: pytest.MonkeyPatch,
    task_id: str = "etl",
    kind: type[Triggerer] = Triggerer,
) -> Triggerer:
    """Make the triggerer of a DAG of which a task starts there."""
    monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", service.connection)
    triggerer = kind(dag, service, task_id)
    # It has run for so long without a pause.
    monkeypatch.setattr("airflow_jobs_provider.triggers.outdated.PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", triggerer, raising=False)
    return triggerer


def pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the clock tell that the triggerer was paused for two minutes."""
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 120)


def succeeded(event: Any) -> bool:
    """Whether an event ends the task as successful."""
    return type(event).__name__ == "TaskSuccessEvent"


def messages(triggerer: Triggerer) -> list[str]:
    """Return what the trigger has asked of Airflow about XComs, in order."""
    handled = [moment for moment in triggerer.moments if moment.endswith(" handled")]
    return [one.removesuffix(" handled") for one in handled if "XCom " in one]


def until_launched(triggerer: Triggerer, service: FakeService, attempt: Attempt) -> None:
    """Start a task, and kill the triggerer while it follows the run, which goes on."""
    service.plans.append(UNTIL_ENDED)
    service.at("runs/list", service.count("runs/list") + 1, triggerer.kill)
    service.at("runs/get", service.count("runs/get") + 2, triggerer.kill)
    assert triggerer.start(attempt) is None
    triggerer.is_dead = False  # another one is there


def worker_context(triggerer: Triggerer, try_number: int = 1) -> Any:
    """Make the context of a worker that goes on with the first attempt, or one after a clear."""
    ti = SimpleNamespace(
        dag_id="sales",
        run_id=RUN_ID,
        task_id="etl",
        map_index=-1,
        try_number=try_number,
        max_tries=try_number + 1,
        start_date=None,
        xcom_push=lambda key, value: triggerer.xcoms.update({("etl", key): value}),
        xcom_pull=lambda key, **_: triggerer.xcoms.get(("etl", key)),
    )
    dag_run = SimpleNamespace(start_date=START)
    return {"ti": ti, "task": SimpleNamespace(retries=2), "dag_run": dag_run, "params": {}}

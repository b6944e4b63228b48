"""The sensor that waits for one task of a run, in each of its modes."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException

from airflow_jobs_provider.exceptions import DatabricksRunFailedError
from tests.fakes.fake_service import FakeService
from tests.helpers.sensors import Sense, tasks

pytestmark = pytest.mark.usefixtures("triggerer_keeps_dags")


def test_a_task_of_a_run(sense: Sense, service: FakeService, context: Any) -> None:
    """The task's own end counts, while the run goes on. Lists have no tasks."""
    service.start(7, tasks=tasks(("load", 71, 0, None), ("train", 72, 0, None)))

    def load_ends() -> None:
        service.runs[7].more["tasks"] = tasks(("load", 71, 0, "SUCCESS"), ("train", 72, 0, None))

    service.at("runs/get", 3, load_ends)
    assert sense(run_id=7, task_key="load") == "output of load"
    assert context["ti"].xcoms == {"run_id": 71, "run_page_url": "http://w/7"}
    assert service.count("runs/list") == 0
    assert [query["run_id"] for query in service.asked("runs/get-output")] == ["71"]


def test_a_task_at_its_latest_attempt(sense: Sense, service: FakeService) -> None:
    """An attempt that failed is followed by the next one, which the run lists beside it."""
    first, second = ("load", 71, 0, "FAILED"), ("load", 73, 1, None)
    service.start(7, tasks=tasks(first, second))

    def second_ends() -> None:
        service.runs[7].more["tasks"] = tasks(("load", 73, 1, "SUCCESS"), first)

    service.at("runs/get", 3, second_ends)
    assert sense(run_id=7, task_key="load") == "output of load"


def test_a_failed_task(sense: Sense, service: FakeService) -> None:
    """The exception has the task's key and its error."""
    service.start(7, tasks=tasks(("load", 71, 0, "FAILED"), ("train", 72, 0, None)))
    with pytest.raises(DatabricksRunFailedError) as caught:
        sense(run_id=7, task_key="load")
    assert str(caught.value).splitlines() == [
        "Task 'load' (run 71) failed (TERMINATED/FAILED)",
        "error of load",
        "See http://w/7",
    ]
    assert caught.value.task_key == "load"


def test_an_unknown_task(sense: Sense, service: FakeService) -> None:
    """The sensor fails and names the tasks that the run has."""
    service.start(7, tasks=tasks(("load", 71, 0, None)))
    with pytest.raises(AirflowException, match="run 7 has no task 'laod'; its tasks: 'load'"):
        sense(run_id=7, task_key="laod")


def test_a_run_without_tasks(sense: Sense, service: FakeService) -> None:
    """The sensor waits for its tasks until the run has ended."""
    service.start(7)
    service.at("runs/get", 3, lambda: service.end(7))
    with pytest.raises(AirflowException, match="run 7 has no task 'load'; its tasks: none"):
        sense(run_id=7, task_key="load")
    assert service.count("runs/get") == 3


def test_a_task_that_never_ends(sense: Sense, service: FakeService) -> None:
    """It ended with its run, and with the run's result."""
    service.start(7, tasks=tasks(("load", 71, 0, None)))
    service.end(7, "CANCELED")
    with pytest.raises(DatabricksRunFailedError, match="was canceled"):
        sense(run_id=7, task_key="load")


def test_a_task_of_a_jobs_run(sense: Sense, service: FakeService) -> None:
    """Job and task together: the run is found, then its task is waited for."""
    service.start(7, ago=500, tasks=tasks(("load", 71, 0, "SUCCESS"), ("train", 72, 0, None)))
    assert sense(job_id=3, task_key="load") == "output of load"

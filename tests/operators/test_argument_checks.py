"""Arguments that are not templated are checked when the DAG is parsed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
import tenacity
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, conf

from airflow_jobs_provider.api.errors import InvalidRequestError
from airflow_jobs_provider.operators.jobs import (
    DatabricksCancelRunsOperator,
    DatabricksCreateJobsOperator,
    DatabricksDeleteRunOperator,
    DatabricksExportRunOperator,
    DatabricksRunNowOperator,
    DatabricksSubmitRunOperator,
)
from airflow_jobs_provider.sensors.jobs import DatabricksJobRunSensor

NOTEBOOK: dict[str, Any] = {
    "existing_cluster_id": "1201-my-cluster",
    "notebook_task": {"notebook_path": "/etl"},
}
# What each task needs.
TASKS: dict[Any, dict[str, Any]] = {
    DatabricksSubmitRunOperator: NOTEBOOK,
    DatabricksRunNowOperator: {"job_id": 3},
    DatabricksCreateJobsOperator: {"name": "n", **NOTEBOOK},
    DatabricksCancelRunsOperator: {"run_id": 7},
    DatabricksDeleteRunOperator: {"run_id": 7},
    DatabricksExportRunOperator: {"run_id": 7, "path": "/p"},
    DatabricksJobRunSensor: {"run_id": 7},
}
RUNS: tuple[Any, ...] = (DatabricksSubmitRunOperator, DatabricksRunNowOperator)
WAITS: tuple[Any, ...] = (*RUNS, DatabricksJobRunSensor)
RECURSIVE: list[Any] = []
RECURSIVE.append(RECURSIVE)


def make(kind: Any, **arguments: Any) -> Any:
    """Make a task with what it needs."""
    return kind(task_id="t", **{**TASKS[kind], **arguments})


@pytest.mark.parametrize(
    "value", ["1", "", -1, True, float("nan"), float("inf"), 10**400, [1], "{{ x }}"]
)
def test_seconds_that_are_none(value: Any) -> None:
    """Text, negative numbers, and what no clock counts; the error names argument and bounds."""
    rule = "must be a number of seconds"
    for kind in (*RUNS, DatabricksCancelRunsOperator):
        for wrong in (value, 0, timedelta(0), timedelta(seconds=-1)):
            with pytest.raises(
                InvalidRequestError, match=f"^polling_period_seconds {rule} above 0"
            ):
                make(kind, polling_period_seconds=wrong)
    for kind in RUNS:
        with pytest.raises(InvalidRequestError, match=f"^queued_timeout_seconds {rule} above 0"):
            make(kind, queued_timeout_seconds=value)
    for kind in TASKS:
        with pytest.raises(InvalidRequestError, match=f"^databricks_retry_delay {rule} from 0"):
            make(kind, databricks_retry_delay=value)


def test_seconds_as_timedelta() -> None:
    """A timedelta is as good as a number, wherever seconds are."""
    minutes = timedelta(minutes=2)
    for kind in RUNS:
        one = make(kind, polling_period_seconds=minutes, queued_timeout_seconds=minutes)
        assert (one.polling_period_seconds, one.queued_timeout_seconds) == (120, 120)
    for kind in TASKS:
        assert make(kind, databricks_retry_delay=minutes).databricks_retry_delay == 120
        assert make(kind, databricks_retry_delay=0).databricks_retry_delay == 0
    assert make(DatabricksCancelRunsOperator, polling_period_seconds=minutes) is not None
    of_request: tuple[Any, ...] = (DatabricksSubmitRunOperator, DatabricksCreateJobsOperator)
    for kind in of_request:
        more = timedelta(seconds=60, milliseconds=1)
        assert make(kind, timeout_seconds=more).request()["timeout_seconds"] == 61
        assert make(kind, json={"timeout_seconds": minutes}).request()["timeout_seconds"] == 120


@pytest.mark.parametrize("value", ["100", 1.5, True, -1, 2**63, [1], "{{ x }}"])
def test_whole_numbers_that_are_none(value: Any) -> None:
    """Text, fractions, what is too small or too large."""
    for kind, name, least in (
        *[(kind, "max_output_bytes", 1) for kind in WAITS],
        *[(kind, "databricks_retry_limit", 1) for kind in TASKS],
        (DatabricksRunNowOperator, "max_repairs", 0),
    ):
        with pytest.raises(
            InvalidRequestError, match=f"^{name} must be a whole number from {least} to"
        ):
            make(kind, **{name: value})
        assert getattr(make(kind, **{name: 7}), name) == 7


@pytest.mark.parametrize("value", ["False", "", 0, 1, [], "{{ x }}"])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *[(kind, "validate") for kind in TASKS],
        *[(kind, "deferrable") for kind in WAITS],
        *[(kind, "end_from_trigger") for kind in WAITS],
        *[(kind, "fail_on_partial_success") for kind in WAITS],
        *[(kind, "wait_for_termination") for kind in (*RUNS, DatabricksCancelRunsOperator)],
        *[(kind, "forward_dag_params") for kind in (*RUNS, DatabricksCreateJobsOperator)],
        *[(kind, name) for kind in RUNS for name in ("reattach", "cancel_on_kill")],
        *[(DatabricksRunNowOperator, name) for name in ("cancel_previous_runs", "repair_run")],
        (DatabricksJobRunSensor, "start_from_trigger"),
    ],
)
def test_flags_that_are_none(kind: Any, name: str, value: Any) -> None:
    """Only True and False are: the text "False" would count as true."""
    with pytest.raises(InvalidRequestError, match=f"^{name} must be True or False"):
        make(kind, **{name: value})


@pytest.mark.parametrize("value", [None, "", 5, ["databricks_default"]])
def test_a_connection_that_is_none(value: Any) -> None:
    """In the constructor; where it is a template, before the connection is looked up."""
    for kind in TASKS:
        with pytest.raises(
            InvalidRequestError, match="databricks_conn_id must be text that is not em"
        ):
            make(kind, databricks_conn_id=value)


@pytest.mark.parametrize("value", ["retry", 5, [("stop", 1)], {1: 2}])
def test_retry_args_that_are_none(value: Any) -> None:
    """They are arguments by name."""
    for kind in TASKS:
        with pytest.raises(InvalidRequestError, match="databricks_retry_args must be a dict"):
            make(kind, databricks_retry_args=value)


@contextmanager
def deferrable_by_default(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let Airflow's configuration say that operators defer."""
    with monkeypatch.context() as patch:
        patch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "True")
        assert conf.getboolean("operators", "default_deferrable")
        yield


@pytest.mark.parametrize(
    "args",
    [
        {"stop": tenacity.stop_after_attempt(3)},
        {"reraise": True, "wait": tenacity.wait_fixed(1)},
        {"before_sleep": print},
        {"stop": float("nan")},
        {"stop": RECURSIVE},
        {"stop": timedelta(seconds=1)},
    ],
)
def test_what_airflow_cannot_store(args: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that defers would launch a run and then fail; it is refused when it is made."""
    message = r"^databricks_retry_args\['(stop|wait|before_sleep)'\] must be JSON with deferrable"
    for kind in WAITS:
        with pytest.raises(InvalidRequestError, match=message):
            make(kind, databricks_retry_args=args, deferrable=True)
        with deferrable_by_default(monkeypatch):
            with pytest.raises(InvalidRequestError, match=message):
                make(kind, databricks_retry_args=args)
            assert not make(kind, databricks_retry_args=args, deferrable=False).deferrable
    with pytest.raises(InvalidRequestError, match=message):
        make(DatabricksJobRunSensor, databricks_retry_args=args, start_from_trigger=True)
    for kind in RUNS:  # what does not wait does not defer
        make(kind, databricks_retry_args=args, deferrable=True, wait_for_termination=False)
    make(DatabricksCreateJobsOperator, databricks_retry_args=args)


def test_what_airflow_cannot_store_of_mapped_tasks() -> None:
    """Refused when the DAG is parsed, although Airflow makes the tasks later."""
    args = {"stop": tenacity.stop_after_attempt(3)}
    for kind in RUNS:
        with pytest.raises(InvalidRequestError, match=r"must be JSON with deferrable"):
            kind.partial(task_id="t", deferrable=True, databricks_retry_args=args)
        passes: dict[str, dict[str, Any]] = {
            "blocking": {"databricks_retry_args": args},
            "stored": {"deferrable": True, "databricks_retry_args": {"reraise": True}},
        }
        with DAG("d", schedule=None):
            for task_id, more in passes.items():
                kind.partial(task_id=task_id, **more).expand(json=[{}])


def test_what_airflow_can_store() -> None:
    """JSON passes, also in a task that defers."""
    for kind in WAITS:
        args = {"reraise": True}
        assert make(kind, databricks_retry_args=args, deferrable=True).databricks_retry_args == args


@pytest.mark.parametrize(
    ("kind", "shared", "mapped", "reason"),
    [
        (
            DatabricksRunNowOperator,
            {"job_id": 1},
            {"job_name": "nightly"},
            "exactly one of job_id and job_name must be given; 2 are given",
        ),
        (
            DatabricksRunNowOperator,
            {"job_id": 1},
            {"polling_period_seconds": "often"},
            "polling_period_seconds must be a number of seconds",
        ),
        (
            DatabricksCancelRunsOperator,
            {},
            {"run_id": "seven"},
            "run_id must be",
        ),
        (
            DatabricksJobRunSensor,
            {"run_id": 7},
            {"job_id": 1},
            "exactly one of run_id, job_id and job_name must be given; 2 are given",
        ),
        (
            DatabricksJobRunSensor,
            {"run_id": 7},
            {"started_since": "2026-01-01"},
            "started_since is for job_id and job_name",
        ),
    ],
)
def test_a_mapped_task_that_cannot_succeed_fails_without_a_retry(
    kind: Any, shared: dict[str, Any], mapped: dict[str, Any], reason: str
) -> None:
    """Airflow makes its operator on the worker. The next try would get the same arguments."""
    with DAG("d", schedule=None):
        task = kind.partial(task_id="t", **shared).expand(**{n: [v] for n, v in mapped.items()})
    with pytest.raises(AirflowFailException, match=reason) as refused:
        task.unmap(mapped)
    assert isinstance(refused.value, InvalidRequestError)
    # A task that is not mapped is an error when the DAG is parsed.
    with pytest.raises(InvalidRequestError, match=reason) as refused_when_parsed:
        kind(task_id="t", **shared, **mapped)
    assert not isinstance(refused_when_parsed.value, AirflowFailException)


class Subclass(DatabricksRunNowOperator):
    """A user's subclass with an argument of its own."""

    def __init__(self, *, job: int, **kwargs: Any) -> None:
        super().__init__(job_id=job, **kwargs)


def test_a_mapped_task_of_a_users_subclass_fails_without_a_retry() -> None:
    """What the subclass itself raises is its own matter."""
    with DAG("d", schedule=None):
        task: Any = Subclass.partial(task_id="t").expand(job=[1, "one"])
    assert task.unmap({"job": 1}).job_id == 1
    with pytest.raises(AirflowFailException, match="job_id must be"):
        task.unmap({"job": "one"})

"""Mapped tasks that died without a word: their runs are canceled as those of other tasks are.

Airflow's DAG processor, which calls them back, has no operator then but a MappedOperator, whose
constructor was never called.
"""

from __future__ import annotations

import json
import os
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG
from airflow.serialization import serialized_objects

from airflow_jobs_provider.airflow_compat.lines import airflow_line
from airflow_jobs_provider.airflow_compat.lines.airflow_3_0 import Airflow30
from airflow_jobs_provider.airflow_compat.orphaned_runs import cancel_orphaned_run
from airflow_jobs_provider.exceptions import DatabricksRunFailedError
from airflow_jobs_provider.operators.jobs import (
    DatabricksRunNowOperator,
    DatabricksSubmitRunOperator,
)
from tests.fakes.scripted_server import ScriptedServer
from tests.helpers.responses import FAILED, FAILED_OUTPUT, LAUNCHED, RUNNING
from tests.helpers.tasks import Logged, canceled_after, fail_for_good

NOTEBOOKS = [{"notebook_path": "/1"}, {"notebook_path": "/2"}]
CLUSTER: Any = {"existing_cluster_id": "1201-my-cluster", "polling_period_seconds": 0.01}


def mapped(default_args: Any = None, **arguments: Any) -> Any:
    """Map a task over two notebooks."""
    with DAG("sales", schedule=None, default_args=default_args or {}):
        partial = DatabricksSubmitRunOperator.partial(task_id="etl", **CLUSTER, **arguments)
        return partial.expand(notebook_task=NOTEBOOKS)


def mapped_by_dicts(**second: Any) -> Any:
    """Map a task over two notebooks, the second one with more arguments than that."""
    with DAG("sales", schedule=None):
        return DatabricksSubmitRunOperator.partial(task_id="etl", **CLUSTER).expand_kwargs(
            [{"notebook_task": NOTEBOOKS[0]}, {"notebook_task": NOTEBOOKS[1], **second}]
        )


def unmapped(task: Any, map_index: int = 0) -> Any:
    """Return what a worker executes."""
    return task.unmap({"notebook_task": NOTEBOOKS[map_index]})


@pytest.fixture
def second(context: Any) -> Any:
    """The context of the second of two mapped tasks, which has launched run 7."""
    context["ti"].map_index = 1
    context["ti"].xcoms["run_id"] = 7
    context["run_id"] = context["ti"].run_id
    return context


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch, context: Any) -> str:
    """The only connection that there is."""
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", os.environ["AIRFLOW_CONN_DATABRICKS_DEFAULT"])
    monkeypatch.delenv("AIRFLOW_CONN_DATABRICKS_DEFAULT")
    context["name"] = "other"
    return "other"


def test_the_run_of_a_dead_mapped_task_is_canceled(second: Any, server: ScriptedServer) -> None:
    """The run that the XCom of this map index names is canceled, and the task stays as it was."""
    task = mapped()
    fail_for_good(task, second)
    assert canceled_after(0, server) == [7]
    assert second["task"] is task


@pytest.mark.parametrize("conn_id", ["other", "{{ name }}"])
@pytest.mark.parametrize("given_by", ["partial", "the DAG's default_args", "expand"])
def test_the_mapped_connection_cancels_it(
    second: Any, server: ScriptedServer, other: str, given_by: str, conn_id: str
) -> None:
    """Wherever that comes from; in another workspace the same id is another run's."""
    arguments = {"databricks_conn_id": conn_id}
    task = {
        "partial": lambda: mapped(**arguments),
        "the DAG's default_args": lambda: mapped(default_args=arguments),
        "expand": lambda: mapped_by_dicts(**arguments),
    }[given_by]()
    fail_for_good(task, second)
    assert canceled_after(0, server) == [7]


@pytest.mark.parametrize("name", ["cancel_on_kill", "wait_for_termination"])
def test_cancel_on_kill_false_keeps_the_run_of_a_mapped_task(
    second: Any, server: ScriptedServer, name: str
) -> None:
    """It does, whether it says so for all map indexes or for this one."""
    no = {name: False}
    for task in (mapped(default_args=no), mapped_by_dicts(**no)):
        fail_for_good(task, second)
    assert server.requests == []
    assert not mapped(**no).on_failure_callback
    second["ti"].map_index = 0
    fail_for_good(mapped_by_dicts(**no), second)
    assert canceled_after(0, server) == [7]


def test_a_mapped_task_without_a_launched_run_cancels_nothing(
    second: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the XCom there is nothing to cancel, and so nothing to be unmapped."""
    del second["ti"].xcoms["run_id"]
    task = mapped()
    monkeypatch.setattr(type(task), "unmap", None)
    fail_for_good(task, second)
    assert server.requests == []


def test_the_dag_processor_of_airflow_3_0_is_not_asked_for_an_xcom(
    second: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    """That of Airflow 3.0, which would survive the mapped arguments no better: a warning."""
    monkeypatch.setattr(airflow_line(), "can_read_xcoms", Airflow30().can_read_xcoms)
    processor = SimpleNamespace(ToManager=object)
    monkeypatch.setitem(sys.modules, "airflow.dag_processing.processor", processor)
    task = mapped()
    monkeypatch.setattr(type(task), "unmap", None)
    fail_for_good(task, second)
    assert server.requests == []
    assert "may still run: its id cannot be read here" in logged()


def test_an_ended_run_of_a_mapped_task_is_no_error(second: Any, server: ScriptedServer) -> None:
    """On a worker the executed task is asked, which knows that."""
    server.will(LAUNCHED, RUNNING, FAILED, FAILED_OUTPUT)
    task = mapped()
    second["ti"].task = executed = unmapped(task)
    with pytest.raises(DatabricksRunFailedError):
        executed.execute(second)
    asked = len(server.requests)
    fail_for_good(task, second)
    assert canceled_after(asked, server) == []


def test_the_callback_is_added_once_before_the_users_own() -> None:
    """Both before and after a task is unmapped, and also where it is the DAG's default."""

    def theirs(context: Any) -> None: ...

    for given, kept in ((theirs, [theirs]), ([theirs, theirs], [theirs, theirs]), (None, [])):
        arguments = {"on_failure_callback": given}
        for task in (mapped(**arguments), mapped(default_args=arguments)):
            assert list(task.on_failure_callback) == [cancel_orphaned_run, *kept]
            assert list(unmapped(task).on_failure_callback) == [cancel_orphaned_run, *kept]
        assert arguments == {"on_failure_callback": given}


class OfACompany(DatabricksRunNowOperator):
    """An operator with a partial of its own, as users may have them."""

    @classmethod
    def partial(cls, **arguments: Any) -> Any:
        """Map it, always in the same pool."""
        return super().partial(pool="company", **arguments)


def test_partial_of_subclasses() -> None:
    """Each to its own class, with or without a partial of its own."""

    class Plain(DatabricksRunNowOperator): ...

    for kind in (OfACompany, Plain, DatabricksRunNowOperator):
        task: Any = kind.partial(task_id="each").expand(job_id=[1, 2])
        assert task.operator_class is kind
        assert task.on_failure_callback == [cancel_orphaned_run]
    assert OfACompany.partial(task_id="each").expand(job_id=[1]).pool == "company"


def test_partial_refuses_unknown_arguments() -> None:
    """As the constructor does."""
    with pytest.raises(TypeError, match="unexpected keyword argument 'jobid'"):
        DatabricksRunNowOperator.partial(task_id="each", jobid=1)


def test_a_dag_with_mapped_tasks_is_serialized_alike_each_time() -> None:
    """Airflow's scheduler works with the stored form, and takes another one for a new version."""
    module: Any = serialized_objects
    kind = module.DagSerialization if hasattr(module, "DagSerialization") else module.SerializedDAG
    stored = [json.dumps(kind.to_dict(mapped().dag)["dag"]["tasks"]) for _ in range(2)]
    assert stored[0] == stored[1]
    assert " at 0x" not in stored[0]
    again = kind.from_dict(kind.to_dict(mapped().dag)).get_task("etl")
    assert getattr(again, "has_on_failure_callback", None) or again.on_failure_callback

"""Sensors that start in the triggerer, and those that end there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    DAG,
    Param,
    TaskDeferred,
)
from airflow.triggers.base import BaseTrigger, TaskSuccessEvent

from airflow_jobs_provider.airflow_compat import start_in_triggerer, trigger_timeout
from airflow_jobs_provider.airflow_compat.lines.airflow_2_11 import Airflow211
from airflow_jobs_provider.airflow_compat.lines.airflow_3_0 import Airflow30
from airflow_jobs_provider.airflow_compat.lines.base import AirflowLine
from airflow_jobs_provider.operators.jobs import DatabricksRunNowOperator
from airflow_jobs_provider.sensors.jobs import DatabricksJobRunSensor
from airflow_jobs_provider.triggers.sensor import DatabricksJobRunSensorTrigger
from tests.fakes.fake_service import FakeService
from tests.helpers.sensors import sensor
from tests.helpers.tasks import InTriggerer, fired, nothing, submit, xcoms_of

pytestmark = pytest.mark.usefixtures("triggerer_keeps_dags")


def test_start_from_trigger(service: FakeService) -> None:
    """What Airflow stores of it makes a trigger that ends the task, with no worker at all."""
    one = sensor(job_id=3, start_from_trigger=True, end_from_trigger=True, timeout=60)
    assert one.deferrable
    arguments = one.start_trigger_args
    assert arguments is not None
    assert arguments.timeout == timedelta(seconds=60)
    assert hasattr(one, arguments.next_method)
    kwargs = json.loads(json.dumps(arguments.trigger_kwargs))
    trigger = DatabricksJobRunSensorTrigger(**kwargs)
    assert trigger.serialize()[0] == arguments.trigger_cls
    service.at("runs/list", 2, lambda: service.start(7))
    service.at("runs/get", 2, lambda: service.end(7))
    assert xcoms_of(fired(trigger)) == {
        "return_value": "output of 7",
        "run_id": 7,
        "run_page_url": "http://w/7",
    }


@pytest.mark.parametrize("told_by", ["Airflow 2", "Airflow 3"])
@pytest.mark.parametrize("execution_timeout", [None, timedelta(seconds=40)])
def test_start_from_trigger_after_a_takeover(
    told_by: str,
    execution_timeout: timedelta | None,
    service: FakeService,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It waits for the run that was there when the task began, though a newer one has started."""
    one = sensor(job_id=3, start_from_trigger=True, timeout=60, execution_timeout=execution_timeout)
    arguments = one.start_trigger_args
    assert arguments is not None
    trigger = DatabricksJobRunSensorTrigger(**arguments.trigger_kwargs or {})
    service.start(7, ago=500)
    service.start(8, ago=5)
    service.at("runs/get", 2, lambda: service.end(7))
    # The task began 20 s ago, so this is when Airflow will have it time out.
    end = datetime.now(UTC) + timedelta(seconds=20 if execution_timeout else 40)
    line: AirflowLine = Airflow211() if told_by == "Airflow 2" else Airflow30()
    monkeypatch.setattr(trigger_timeout, "airflow_line", lambda: line)
    if told_by == "Airflow 2":
        task_instance: Any = InTriggerer()
        task_instance.trigger_timeout = end.replace(tzinfo=None)
        event = fired(trigger, task_instance)
    else:
        event = fired(trigger, timeout_after=end)
    assert event.payload["run"]["run_id"] == 7


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What Airflow is told to delete of a task's XComs; in Airflow 2 it is all of them."""
    keys: list[str] = []

    def delete(**place: Any) -> None:
        keys.append(str(place.pop("key", "all")))
        assert set(place) == {"dag_id", "task_id", "run_id", "map_index"}

    try:
        from airflow.sdk.execution_time.xcom import XCom
    except ImportError:
        monkeypatch.setattr("airflow.models.xcom.XCom.clear", delete)
    else:
        monkeypatch.setattr(XCom, "delete", delete)
        monkeypatch.setattr(XCom, "set", lambda *_, **__: None)
        before = {"load": "9 rows", "run_id": "a task of that key"}
        monkeypatch.setattr(XCom, "get_one", lambda **_: before)
    return keys


@pytest.mark.parametrize("try_number", [1, 2])
@pytest.mark.parametrize("ends_in", ["the triggerer", "a worker"])
def test_a_cleared_task_has_no_old_output(
    ends_in: str, try_number: int, service: FakeService, context: Any, forgotten: list[str]
) -> None:
    """Where no worker starts a task, Airflow keeps its XComs from before it was cleared.

    A first attempt has none.
    """
    task_instance: Any = InTriggerer()
    task_instance.try_number = context["ti"].try_number = try_number
    service.start(7)
    service.end(7)
    one = sensor(run_id=7, start_from_trigger=True, end_from_trigger=ends_in == "the triggerer")
    arguments = one.start_trigger_args
    assert arguments is not None
    trigger = DatabricksJobRunSensorTrigger(**arguments.trigger_kwargs or {})
    event = fired(trigger, task_instance)
    if ends_in == "a worker":
        assert forgotten == []
        kwargs = {"event": event.payload}
        assert one.resume_execution(arguments.next_method, kwargs, context) == "output of 7"
    expected = (["return_value", "output_truncated", "task_run_ids"], ["all"])
    assert forgotten in (expected if try_number > 1 else [[]])


@pytest.mark.parametrize("ends_in", ["the triggerer", "a worker"])
def test_a_cleared_task_has_no_old_outputs_of_tasks(
    ends_in: str,
    service: FakeService,
    context: Any,
    forgotten: list[str],
) -> None:
    """What multiple_outputs pushed before is told by the whole; the run's id is left."""
    service.start(7)
    service.end(7)
    one = sensor(
        run_id=7,
        start_from_trigger=True,
        end_from_trigger=ends_in == "the triggerer",
        multiple_outputs=True,
    )
    arguments = one.start_trigger_args
    assert arguments is not None
    trigger = DatabricksJobRunSensorTrigger(**arguments.trigger_kwargs or {})
    event = fired(trigger, InTriggerer())
    if ends_in == "a worker":
        kwargs = {"event": event.payload}
        assert one.resume_execution(arguments.next_method, kwargs, context) == "output of 7"
    expected = (["return_value", "output_truncated", "task_run_ids", "load"], ["all"])
    assert forgotten in expected


def test_a_task_that_a_worker_started_deletes_no_output(
    service: FakeService, context: Any, forgotten: list[str]
) -> None:
    """Airflow has deleted its XComs."""
    service.start(7)
    one = sensor(run_id=7, deferrable=True, end_from_trigger=True)
    with pytest.raises(TaskDeferred) as deferred:
        one.execute(context)
    service.end(7)
    event = fired(deferred.value.trigger, InTriggerer())
    assert isinstance(event, TaskSuccessEvent)
    kwargs = {"event": {"run": service.runs[7].as_answer()}}
    assert one.resume_execution("execute_complete", kwargs, context) == "output of 7"
    assert forgotten == []


def test_no_start_trigger_args_by_default() -> None:
    """Nor has the class any, which Airflow asks for mapped tasks; a worker starts those."""
    assert sensor(run_id=7, deferrable=True).start_trigger_args is None
    assert DatabricksJobRunSensor.start_trigger_args is None


def test_a_worker_ends_a_task_with_outlets() -> None:
    """Outlets may be added after the sensor was made."""
    one = sensor(run_id=7, start_from_trigger=True, end_from_trigger=True)
    for outlets in ([], ["something"]):
        one.outlets = outlets
        arguments = one.start_trigger_args
        assert arguments is not None
        assert arguments.trigger_kwargs is not None
        assert arguments.trigger_kwargs.get("end_from_trigger", False) is not bool(outlets)


@pytest.mark.parametrize("name", ["pre_execute", "on_execute_callback"])
def test_start_from_trigger_refuses_what_needs_a_worker(name: str) -> None:
    """Airflow would ignore it."""
    with pytest.raises(ValueError, match=f"start_from_trigger would leave out {name}"):
        sensor(run_id=7, start_from_trigger=True, **{name: nothing})


def test_start_from_trigger_with_required_params() -> None:
    """Airflow 3.3 would end the triggerer, and older ones make no params there."""
    arguments: dict[str, Any] = {
        "start_from_trigger": True,
        "params": {"day": Param(type="string")},
    }
    if hasattr(BaseTrigger, "render_template_fields"):
        with pytest.raises(ValueError, match=r"params without a default .* day"):
            sensor(run_id=7, **arguments)
    else:
        assert sensor(run_id=7, **arguments).start_trigger_args is not None


def test_start_from_trigger_with_templates() -> None:
    """Airflow 3.3 renders them in the triggerer."""
    arguments: dict[str, Any] = {"run_id": "{{ var.value.run_id }}", "start_from_trigger": True}
    if hasattr(BaseTrigger, "render_template_fields"):
        kwargs = sensor(**arguments).start_trigger_args
        assert kwargs is not None
        assert (kwargs.trigger_kwargs or {})["run_id"] == "{{ var.value.run_id }}"
        return
    with pytest.raises(ValueError, match=r"run_id: Airflow .* renders that on a worker only"):
        sensor(**arguments)
    with pytest.raises(ValueError, match="started_since"):
        DatabricksJobRunSensor(task_id="wait", job_id=3, start_from_trigger=True)


def test_as_template() -> None:
    """The output of a task that is not mapped, by its map index, since else no answer comes."""
    with DAG("d", schedule=None):
        launch: Any = submit(wait_for_termination=False)
        mapped: Any = DatabricksRunNowOperator.partial(task_id="each").expand(job_id=[1, 2])
    assert (
        start_in_triggerer.as_template("run_id", launch.output["run_id"])
        == "{{ ti.xcom_pull(task_ids='etl', key='run_id', map_indexes=-1) }}"
    )
    for value in (mapped.output, launch.output.map(str)):
        with pytest.raises(ValueError, match="in run_id: the triggerer can read the output"):
            start_in_triggerer.as_template("run_id", value)
    with pytest.raises(ValueError, match="xcom_pull in run_id: the triggerer gets no answer"):
        start_in_triggerer.as_template("run_id", "{{ ti.xcom_pull('etl') }}")


def test_mapped_sensors_start_on_a_worker() -> None:
    """So they may have templates."""
    mapped: Any = DatabricksJobRunSensor.partial(
        task_id="wait", start_from_trigger=True, databricks_conn_id="{{ x }}"
    )
    assert mapped.expand(run_id=[7, 8]).start_trigger_args is None
    DatabricksJobRunSensor(
        task_id="wait",
        run_id="{{ x }}",
        start_from_trigger=True,
        _airflow_from_mapped=True,  # type: ignore[call-arg]
    )


def test_an_argument_without_effect_is_logged(
    service: FakeService, logged: Callable[[], str], caplog: pytest.LogCaptureFixture
) -> None:
    """By the trigger, where no worker has a part in the task."""
    caplog.set_level("INFO")
    service.start(7)
    service.end(7)
    one = sensor(run_id=7, start_from_trigger=True, end_from_trigger=True, silent_fail=True)
    arguments = one.start_trigger_args
    assert arguments is not None
    fired(DatabricksJobRunSensorTrigger(**arguments.trigger_kwargs or {}))
    log = logged()
    assert "silent_fail has no effect: the triggerer waits for the run." in log
    assert set(re.findall(r"(\S+) has no effect", log)) == {"silent_fail"}


renders = pytest.mark.skipif(
    not hasattr(BaseTrigger, "render_template_fields"), reason="Airflow before 3.3 renders nothing"
)


@renders
def test_a_worker_goes_on_with_a_task_that_was_changed(service: FakeService, context: Any) -> None:
    """It does not start in the triggerer any more: Airflow does not render its trigger."""
    service.start(7)
    service.end(7)
    one = sensor(run_id="{{ dag_run.conf['run'] }}", start_from_trigger=True)
    arguments = one.start_trigger_args
    assert arguments is not None
    event = fired(DatabricksJobRunSensorTrigger(**arguments.trigger_kwargs or {}))
    reason = "a task that does not start in the triggerer any more"
    assert event.payload == {"start_on_worker": reason}
    changed = sensor(run_id=7)
    kwargs = {"event": event.payload}
    assert changed.resume_execution(arguments.next_method, kwargs, context) == "output of 7"


@renders
@pytest.mark.parametrize(
    ("run_id", "used"),
    [
        ("{{ run_of(ds) }}", "run_of"),
        ("{{ dag_run.conf['run'] | half }}", "half"),
        ("{{ dag_run.conf['run'] | int }}", None),
    ],
)
def test_macros_and_filters_of_a_dag(run_id: str, used: str | None) -> None:
    """The triggerer has the DAG without them."""
    with DAG(
        "d", schedule=None, user_defined_macros={"run_of": len}, user_defined_filters={"half": len}
    ):
        if used is None:
            assert sensor(run_id=run_id, start_from_trigger=True).start_trigger_args is not None
            return
        with pytest.raises(ValueError, match=f"start_from_trigger with {used} in run_id"):
            sensor(run_id=run_id, start_from_trigger=True)


@renders
def test_an_undefined_name_is_an_error_as_on_a_worker(service: FakeService) -> None:
    """It is not rendered to nothing."""
    from jinja2 import UndefinedError

    from tests.helpers.triggerer import Attempt, Triggerer

    with DAG("sales", schedule=None, catchup=False) as dag:
        sensor(run_id="{{ nothing }}", start_from_trigger=True)
    with pytest.raises(UndefinedError, match="'nothing' is undefined"):
        Triggerer(dag, service, "wait").trigger(Attempt())

"""The end of a task: in the triggerer, with its XComs, or back on a worker."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from importlib import import_module
from typing import Any

import pytest
from airflow.listeners import hookimpl
from airflow.providers.common.compat.sdk import DAG, TaskGroup, task_group
from airflow.triggers.base import TaskSuccessEvent, TriggerEvent

from airflow_jobs_provider.airflow_compat import completion_reasons
from airflow_jobs_provider.airflow_compat.lines import airflow_line, airflow_version
from airflow_jobs_provider.api.retry import no_waiting
from airflow_jobs_provider.exceptions import DatabricksRunFailedError
from airflow_jobs_provider.operators.jobs import (
    DatabricksRunNowOperator,
    DatabricksSubmitRunOperator,
)
from airflow_jobs_provider.triggers import wait
from airflow_jobs_provider.triggers.jobs import DatabricksJobRunTrigger
from tests.fakes.scripted_server import ScriptedServer, answer
from tests.helpers.responses import (
    FAILED,
    FAILED_OUTPUT,
    GONE,
    LAUNCHED,
    OUTPUT,
    RUNNING,
    SUCCEEDED,
    run,
)
from tests.helpers.tasks import (
    InTriggerer,
    Logged,
    deferred_by,
    ending_trigger,
    events,
    fired,
    nothing,
    paths,
    run_now,
    sensor,
    stored_from_trigger,
    submit,
    xcoms_of,
)

pytestmark = pytest.mark.usefixtures("triggerer_keeps_dags")


@pytest.mark.parametrize("kind", ["submit", "run now", "sensor"])
def test_the_trigger_ends_the_task(kind: str, context: Any, server: ScriptedServer) -> None:
    """A run that ended well ends its task there, with its output as the return value."""
    arguments: dict[str, Any] = {"deferrable": True, "end_from_trigger": True}
    if kind == "sensor":
        server.will(RUNNING)
        deferred = deferred_by(sensor(**arguments), context)
    else:
        server.will(LAUNCHED, RUNNING)
        operator = submit(**arguments) if kind == "submit" else run_now(job_id=3, **arguments)
        deferred = deferred_by(operator, context)
    server.will(RUNNING, SUCCEEDED, OUTPUT)
    # The sensor's worker has pushed nothing before, since it may have found no run.
    found = {"run_id": 7, "run_page_url": "http://w/7"} if kind == "sensor" else {}
    assert xcoms_of(fired(deferred.trigger)) == {"return_value": "42", **found}
    assert paths(server)[-2:] == ["runs/get", "runs/get-output"]


def test_a_failed_run_resumes_the_task_on_a_worker(context: Any, server: ScriptedServer) -> None:
    """The ordinary event, so that the task fails with its reason and uses its retries."""
    server.will(LAUNCHED, RUNNING)
    deferred = deferred_by(submit(deferrable=True, end_from_trigger=True), context)
    server.will(FAILED)
    event = fired(deferred.trigger)
    assert not isinstance(event, TaskSuccessEvent)
    server.will(FAILED_OUTPUT)
    with pytest.raises(DatabricksRunFailedError, match="no rows"):
        submit().execute_complete(context, event.payload, **deferred.kwargs or {})


def test_other_events_resume_the_task_on_a_worker(context: Any, server: ScriptedServer) -> None:
    """A run that is gone, or that was given up, is no success."""
    trigger = ending_trigger()
    server.will(RUNNING, GONE)
    assert "does not exist" in fired(trigger).payload["error"]
    trigger.queued_timeout_seconds = 0.05
    server.will(*[answer(run("PENDING"))] * 1000)
    assert fired(trigger).payload["timed_out"] == "queued_timeout_seconds"


def test_unreadable_output_is_no_failure_in_the_triggerer(
    context: Any, server: ScriptedServer, logged: Logged
) -> None:
    """The run succeeded, so the task does; the log has a warning."""
    server.will(SUCCEEDED, GONE)
    assert xcoms_of(fired(ending_trigger())) is None
    assert "The output of run 7 cannot be read" in logged()


def test_reading_the_output_times_out(
    context: Any,
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    logged: Logged,
) -> None:
    """A service that answers everything but the output does not hold the task for ever."""
    monkeypatch.setattr(wait, "_OUTPUT_SECONDS", 0.2)
    server.will(SUCCEEDED, *[answer({}, 500)] * 1000)
    trigger = DatabricksJobRunTrigger(
        7, polling_period_seconds=0.01, end_from_trigger=True, retry_delay=0.01
    )
    assert xcoms_of(fired(trigger)) is None
    assert "cannot be read: no answer for 0 s" in logged()
    assert paths(server).count("runs/get-output") > 1


def test_refused_output_is_a_warning_without_a_retry(
    context: Any,
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    logged: Logged,
) -> None:
    """As on a worker: the run was followed to its end, so the credentials are good."""
    monkeypatch.setattr(wait, "_OUTPUT_SECONDS", 5)
    refusal = {"error_code": "PERMISSION_DENIED", "message": "not for you"}
    server.will(SUCCEEDED, answer(refusal, 403))
    assert xcoms_of(fired(ending_trigger())) is None
    assert "cannot be read: runs/get-output: the service answered 403" in logged()
    assert paths(server).count("runs/get-output") == 1


def test_a_connection_deleted_meanwhile_is_no_failure(
    context: Any,
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    logged: Logged,
) -> None:
    """Whatever keeps the trigger from the output, the run has succeeded."""
    good = run("TERMINATED", "SUCCESS")
    trigger = ending_trigger(databricks_conn_id="no_such_connection")

    async def waited() -> dict[str, Any]:
        return {"run": good}

    monkeypatch.setattr(trigger, "_wait", waited)
    trigger.trigger_id = 5

    async def collect() -> list[TriggerEvent]:
        return [event async for event in trigger.run()]

    (event,) = asyncio.run(collect())
    assert xcoms_of(event) is None
    assert "no_such_connection" in logged()


def test_outside_a_triggerer_a_worker_ends_the_task(context: Any, server: ScriptedServer) -> None:
    """dag.test() runs the trigger itself, and knows nothing of tasks that end so."""
    server.will(SUCCEEDED)
    (event,) = events(ending_trigger())
    server.will(OUTPUT)
    assert submit().execute_complete(context, event) == "42"


def test_max_output_bytes_in_the_triggerer(context: Any, server: ScriptedServer) -> None:
    """max_output_bytes cuts the XCom at a whole character, and output_truncated says so."""
    server.will(LAUNCHED, RUNNING)
    operator = submit(deferrable=True, end_from_trigger=True, max_output_bytes=2)
    trigger = deferred_by(operator, context).trigger
    server.will(SUCCEEDED, answer({"notebook_output": {"result": "häuser"}}))
    assert xcoms_of(fired(trigger)) == {"return_value": "h", "output_truncated": True}


def test_max_output_bytes_of_the_sensor_in_the_triggerer(
    context: Any, server: ScriptedServer
) -> None:
    """On a worker, too."""
    server.will(SUCCEEDED, answer({"notebook_output": {"result": "häuser"}}))
    assert sensor(deferrable=True, max_output_bytes=2).execute(context) == "h"
    assert context["ti"].xcoms["output_truncated"] is True


def test_outputs_of_several_tasks_are_a_dict_in_the_triggerer(
    context: Any, server: ScriptedServer
) -> None:
    """Each task's output is read, by key."""
    good = run("TERMINATED", "SUCCESS")
    tasks = [{**good, "task_key": key, "run_id": 8 + n} for n, key in enumerate("ab")]
    server.will(answer({**good, "tasks": tasks}))
    server.will(*(answer({"metadata": good, "notebook_output": {"result": r}}) for r in "12"))
    event = fired(ending_trigger())
    assert xcoms_of(event) == {
        "return_value": {"a": "1", "b": "2"},
        "task_run_ids": {"a": 8, "b": 9},
    }


@pytest.mark.parametrize("where", ["worker", "triggerer"])
def test_unreadable_output_of_one_task_keeps_the_others(
    where: str, context: Any, server: ScriptedServer, logged: Logged
) -> None:
    """Be it refused or not to be had: what was read is returned, and the log names the task."""
    good = run("TERMINATED", "SUCCESS")
    tasks = [{**good, "task_key": key, "run_id": 71 + n} for n, key in enumerate("abcd")]
    read = [answer({"metadata": good, "notebook_output": {"result": text}}) for text in "13"]
    whole = answer({**good, "tasks": tasks})
    server.will(*([LAUNCHED] if where == "worker" else []), whole)
    server.will(read[0], answer({}, 403), read[1], *[answer({}, 503)] * 50)
    with no_waiting():
        if where == "worker":
            value = submit().execute(context)
        else:
            value = (xcoms_of(fired(ending_trigger())) or {})["return_value"]
    assert value == {"a": "1", "b": None, "c": "3", "d": None}
    lines = logged()
    assert "The output of run 72 (task b) cannot be read" in lines
    assert "The output of run 74 (task d) cannot be read" in lines


def test_no_xcoms_without_do_xcom_push(context: Any, server: ScriptedServer) -> None:
    """do_xcom_push=False: nothing is read, nothing pushed."""
    server.will(LAUNCHED, RUNNING)
    operator = submit(deferrable=True, end_from_trigger=True, do_xcom_push=False)
    trigger = deferred_by(operator, context).trigger
    server.will(SUCCEEDED)
    assert xcoms_of(fired(trigger)) is None
    assert "runs/get-output" not in paths(server)


class WithPostExecute(DatabricksSubmitRunOperator):
    """An operator that does something of its own at the end."""

    def post_execute(self, context: Any, result: Any = None) -> None:
        """Do it."""


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"on_success_callback": nothing}, "on_success_callback"),
        ({"post_execute": nothing}, "post_execute"),
        ({"map_index_template": "{{ x }}"}, "map_index_template"),
    ],
)
def test_a_worker_ends_a_task_with_callbacks_or_hooks(
    arguments: dict[str, Any],
    what: str,
    context: Any,
    server: ScriptedServer,
    logged: Logged,
) -> None:
    """Airflow would leave it out without a word; the log says why a worker ends the task."""
    operator = submit(deferrable=True, end_from_trigger=True, **arguments)
    server.will(LAUNCHED, RUNNING)
    trigger = deferred_by(operator, context).trigger
    assert isinstance(trigger, DatabricksJobRunTrigger)
    assert not trigger.end_from_trigger
    assert f"because of: {what}" in logged()


def test_a_worker_ends_a_task_with_outlets_or_overridden_hooks() -> None:
    """An asset's event and an overridden post_execute are a worker's business."""
    operator = submit(deferrable=True, end_from_trigger=True)
    assert completion_reasons.worker_completion_reasons(operator) == []
    operator.outlets = ["something"]
    assert completion_reasons.worker_completion_reasons(operator) == ["outlets"]
    custom = WithPostExecute(task_id="etl", json={"run_name": "{{ x }}"})
    assert completion_reasons.worker_completion_reasons(custom) == ["post_execute"]


def test_a_worker_ends_a_task_that_others_expand_over() -> None:
    """Airflow expands them to as many as a worker counted."""
    with DAG("expanding", schedule=None):
        expanded_over = submit()
        DatabricksRunNowOperator.partial(task_id="each").expand(job_id=expanded_over.output)
    with DAG("not_expanding", schedule=None):
        used = submit()
        DatabricksRunNowOperator(task_id="one", job_id=used.output)
    assert completion_reasons.worker_completion_reasons(expanded_over) == [
        "tasks that expand over its output"
    ]
    assert completion_reasons.worker_completion_reasons(used) == []


@pytest.mark.parametrize("nested", [False, True])
def test_a_worker_ends_a_task_that_a_group_expands_over(nested: bool) -> None:
    """So it is where the tasks that follow are in a group within that group."""
    with DAG("expanding", schedule=None):
        expanded_over, used = (
            DatabricksRunNowOperator(task_id=name, job_id=1) for name in ("expanded_over", "used")
        )

        @task_group
        def each(job_id: Any) -> None:
            with TaskGroup("inner") if nested else nullcontext():
                DatabricksRunNowOperator(task_id="run", job_id=job_id)

        each.expand(job_id=expanded_over.output)

        @task_group
        def once(job_id: Any) -> None:
            DatabricksRunNowOperator(task_id="run", job_id=job_id)

        once(used.output)
    assert completion_reasons.worker_completion_reasons(expanded_over) == [
        "tasks that expand over its output"
    ]
    assert completion_reasons.worker_completion_reasons(used) == []


def test_xcoms_are_stored_before_the_event(
    context: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow 3 writes those of the event as JSON twice over; Airflow 2 after the success."""
    stored = stored_from_trigger(monkeypatch)
    server.will(SUCCEEDED, OUTPUT)
    assert xcoms_of(fired(ending_trigger(), InTriggerer())) is None
    assert stored == [("return_value", "42", "sales", "etl", "scheduled__2026-01-01", 3)]


def test_a_worker_ends_a_task_whose_xcoms_are_not_stored(
    context: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    """A worker tries it once more, and fails the task where that does not work either."""
    stored_from_trigger(monkeypatch, RuntimeError("no answer from Airflow"))
    server.will(SUCCEEDED, OUTPUT)
    event = fired(ending_trigger(), InTriggerer())
    assert event.payload["run"]["state"]["result_state"] == "SUCCESS"
    assert "no answer from Airflow" in logged()


@pytest.mark.parametrize(
    ("version", "reasons"),
    [("2.11.2", []), ("3.0.6", ["Airflow 3.0 (apache/airflow#55315)"]), ("3.1.0", [])],
)
def test_a_worker_ends_every_task_on_airflow_3_0(
    version: str, reasons: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes all DAGs of a file for gone a minute after a trigger has ended one of its tasks."""
    monkeypatch.undo()
    monkeypatch.setattr("airflow.__version__", version)
    monkeypatch.setattr(completion_reasons, "airflow_line", airflow_line.__wrapped__)
    assert completion_reasons.worker_completion_reasons(submit()) == reasons


class Listener:
    """A plugin's listener, as OpenLineage has one."""

    @hookimpl
    def before_stopping(self, component: Any) -> None:
        """Do it."""


@pytest.fixture
def listeners() -> Iterator[None]:
    """A listener in each of Airflow's managers."""
    managers = []
    for module in ("airflow.listeners.listener", "airflow.sdk.listener"):
        with suppress(ImportError):
            managers.append(import_module(module).get_listener_manager())
    listener = Listener()
    for manager in managers:
        manager.add_listener(listener)
    yield
    for manager in managers:
        manager.pm.unregister(listener)


@pytest.mark.usefixtures("listeners")
def test_a_worker_ends_a_task_where_plugins_have_listeners() -> None:
    """Airflow takes the DAG, and would tell them nothing of a task that its trigger ended."""
    try:
        dagbag = import_module("airflow.dag_processing.dagbag")
    except ImportError:  # Airflow before 3.2
        dagbag = import_module("airflow.models.dagbag")
    with DAG("listened_to", schedule=None) as dag:
        task = submit(deferrable=True, end_from_trigger=True)
    bag = dagbag.DagBag(os.devnull, collect_dags=False)
    bag.bag_dag(dag, *([dag] if airflow_version() < (3, 0) else []))
    assert list(bag.dags) == ["listened_to"]
    assert completion_reasons.worker_completion_reasons(task) == ["listeners"]

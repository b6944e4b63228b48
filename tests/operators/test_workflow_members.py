"""What the tasks of a workflow group send when they are executed, answer by answer.

Airflow's part (states and XComs of other tasks) is kept in memory here; it is real in
tests/end_to_end/test_workflow_user_actions.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowSkipException,
    TaskDeferred,
)

from airflow_jobs_provider.airflow_compat.run_successor import Successor
from airflow_jobs_provider.airflow_compat.workflow_records import KEY_PREFIX
from airflow_jobs_provider.exceptions import DatabricksRunFailedError
from airflow_jobs_provider.operators import cancel_on_kill
from airflow_jobs_provider.operators.workflow_launch import DEFINITION_KEY, WAS_CLEARED_KEY
from airflow_jobs_provider.triggers.events import run_payload
from airflow_jobs_provider.triggers.jobs import DatabricksJobRunTrigger
from airflow_jobs_provider.triggers.workflow import DatabricksWorkflowTaskTrigger
from tests.fakes.scripted_server import ScriptedServer, answer
from tests.helpers.responses import FAILED_OUTPUT, OUTPUT, run
from tests.helpers.tasks import fired
from tests.helpers.workflow_group import FAILED, REPAIRED, RERUN, Airflow, sent, task, whole


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_kill_before_the_task_run_is_known(
    deferrable: bool, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, context: Any
) -> None:
    """Airflow 3 lets the process go on; it cancels the task run as soon as it knows it."""
    monkeypatch.setattr(cancel_on_kill, "find_successor", lambda _attempt: Successor.NONE)
    airflow = Airflow(monkeypatch, deferrable=deferrable)
    operator = airflow.group.members()[0]

    def kill_and_answer(connection: Any) -> None:
        operator.on_kill()
        whole("RUNNING", task("a", 100, "RUNNING"))(connection)

    server.will(kill_and_answer, answer({}))
    with pytest.raises(AirflowException, match="the task was killed"):
        airflow.execute()
    assert sent(server, "runs/cancel") == [{"run_id": 100}]


def test_a_retry_waits_for_the_end_of_the_run(
    cleared: Airflow, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the triggerer, where a kill cancels nothing: the run is not this task's own."""
    airflow = Airflow(monkeypatch, deferrable=True)
    airflow.record("a", reported=100, max_tries=1)
    server.will(whole("RUNNING", *FAILED[:2], task("c", 102, "RUNNING")))
    with pytest.raises(TaskDeferred) as deferred:
        airflow.execute(2, 1)
    trigger = deferred.value.trigger
    assert isinstance(trigger, DatabricksJobRunTrigger)
    assert (trigger.run_id, trigger.cancel_on_kill) == (7, False)
    # So that the repair of another task serves this one, too.
    assert airflow.recorded("a")["wants_rerun_of"] == 100


@pytest.mark.parametrize("is_dag_test", [False, True])
def test_a_retry_runs_the_task_again_after_the_end_of_the_run(
    is_dag_test: bool, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, context: Any
) -> None:
    """Also in ``dag.test()``, which passes nothing but the event."""
    airflow = Airflow(monkeypatch, deferrable=True)
    airflow.record("a", reported=100, max_tries=1)
    server.will(whole("RUNNING", *FAILED[:2], task("c", 102, "RUNNING")))
    with pytest.raises(TaskDeferred) as deferred:
        airflow.execute(2, 1)
    if is_dag_test:
        deferred.value.kwargs = {}
    ended, rerun = whole("TERMINATED", *FAILED), whole("RUNNING", *RERUN, repairs=1)
    server.will(ended, *airflow.repair(), rerun)
    event = {"run": {**run("TERMINATED", "FAILED"), "run_id": 7}}
    with pytest.raises(TaskDeferred) as again:
        airflow.execute(2, 1, resume=(deferred.value, event))
    assert getattr(again.value.trigger, "run_id", None) == 200
    assert len(sent(server, "runs/repair")) == 1


def test_a_task_alone_has_the_parameters_of_the_job(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, context: Any
) -> None:
    """Those of the group, of its job and its own, in the order in which the service takes them."""
    airflow = Airflow(
        monkeypatch,
        notebook_params={"own": "1", "day": "own"},
        group={
            "notebook_params": {"group": "2"},
            "extra_job_params": {"parameters": [{"name": "day", "default": "{{ 40 + 2 }}"}]},
        },
    )
    airflow.record("a", reported=100, is_alone=True)
    ended_alone = answer({**run("TERMINATED", "SUCCESS"), "run_id": 9})
    server.will(answer({"run_id": 9}), ended_alone, OUTPUT)
    airflow.execute(2, 1)
    (submitted,) = sent(server, "runs/submit")
    parameters = submitted["tasks"][0]["notebook_task"]["base_parameters"]
    assert parameters == {"own": "1", "group": "2", "day": "42"}


def test_a_run_that_does_not_exist_any_more(
    cleared: Airflow, server: ScriptedServer, logged: Any
) -> None:
    """The task runs alone when it is cleared; a first attempt fails."""
    message = "Run 7 does not exist."
    gone = answer({"error_code": "INVALID_PARAMETER_VALUE", "message": message}, 400)
    server.will(gone)
    with pytest.raises(AirflowException, match=message):
        cleared.execute()
    alone = [answer({"run_id": 9}), answer({**run("TERMINATED", "SUCCESS"), "run_id": 9}), OUTPUT]
    server.will(gone, *alone)
    assert cleared.execute(2, 1) == "42"
    assert message in logged()
    assert cleared.recorded("a")["is_alone"] is True


@pytest.mark.parametrize("is_alone", [False, True])
def test_a_deferred_task_is_resumed(
    is_alone: bool, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, context: Any
) -> None:
    """In the group with its own task run, alone with its own run; each in another process."""
    airflow = Airflow(monkeypatch, deferrable=True)
    airflow.record("a", reported=50, max_tries=0, is_alone=is_alone)
    if is_alone:
        server.will(answer({"run_id": 200}), answer({**run("RUNNING"), "run_id": 200}))
    else:
        server.will(whole("RUNNING", *RERUN))
    with pytest.raises(TaskDeferred) as deferred:
        airflow.execute(2, 1)
    assert getattr(deferred.value.trigger, "run_id", None) == 200
    again = Airflow(monkeypatch, deferrable=True)
    server.will(OUTPUT)
    event = {"run": {**run("TERMINATED", "SUCCESS"), "run_id": 200}}
    assert again.execute(2, 1, resume=(deferred.value, event)) == "42"
    # Airflow pushes the XCom of each of these links at the end of the process.
    pushed = [link.name for link in again.group.members()[0].operator_extra_links]
    assert "See Databricks Job Run" not in pushed


def test_the_log_names_the_run_that_a_deferred_task_waits_for(
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    logged: Callable[[], str],
    context: Any,
) -> None:
    """The log of the worker process alone leads to the task run."""
    airflow = Airflow(monkeypatch, deferrable=True)
    server.will(whole("RUNNING", {**task("a", 100, "RUNNING"), "run_page_url": "https://a/100"}))
    with pytest.raises(TaskDeferred):
        airflow.execute()
    assert "Deferring: the triggerer waits for run 100, see https://a/100" in logged()


def test_a_task_is_cleared_while_its_run_is_active(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, context: Any
) -> None:
    """The attempt cancels the run: no trigger may have noticed the clear. Then it runs again."""
    airflow = Airflow(monkeypatch, deferrable=True)
    server.will(whole("RUNNING", task("a", 100, "RUNNING")), answer({}))
    with pytest.raises(TaskDeferred) as deferred:
        airflow.execute(2, 1)
    assert sent(server, "runs/cancel") == [{"run_id": 100}]
    assert isinstance(deferred.value.trigger, DatabricksJobRunTrigger)
    assert airflow.recorded("a")["wants_rerun_of"] == 100


def test_an_attempt_after_a_clear_records_which_run_it_follows(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, context: Any
) -> None:
    """Cleared once more, the next attempt knows that this run is not to be followed."""
    airflow = Airflow(monkeypatch, deferrable=True)
    airflow.record("a", reported=100, max_tries=0, try_number=1)
    going_on = whole("RUNNING", task("a", 100, "TERMINATED", "FAILED"), task("a", 200, "RUNNING"))
    server.will(going_on)
    with pytest.raises(TaskDeferred):
        airflow.execute(2, 1)
    assert airflow.recorded("a")["follows"] == 200
    server.will(going_on, answer({}))
    with pytest.raises(TaskDeferred):
        airflow.execute(3, 2)
    assert sent(server, "runs/cancel") == [{"run_id": 200}]


def test_the_first_attempt_records_that_it_follows_a_run_of_a_repair(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, context: Any
) -> None:
    """Cleared, the next attempt cancels it, but not one that another repair has started for it."""
    followed = Airflow(monkeypatch, deferrable=True)
    server.will(whole("RUNNING", *FAILED, task("b", 201, "RUNNING")))
    with pytest.raises(TaskDeferred):
        followed.execute(1, 0, key="b")
    assert followed.recorded("b")["follows"] == 201
    server.will(whole("RUNNING", *FAILED, task("b", 201, "RUNNING")), answer({}))
    with pytest.raises(TaskDeferred):
        followed.execute(2, 1, key="b")
    assert sent(server, "runs/cancel") == [{"run_id": 201}]

    other = Airflow(monkeypatch, deferrable=True)
    server.will(whole("RUNNING", *FAILED, task("b", 201, "RUNNING")))
    with pytest.raises(TaskDeferred) as deferred:
        other.execute(2, 1, key="b")
    assert isinstance(deferred.value.trigger, DatabricksWorkflowTaskTrigger)
    assert len(sent(server, "runs/cancel")) == 1


def test_the_xcoms_are_those_of_the_retry_by_the_service(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, context: Any
) -> None:
    """The service has retried the task while it was deferred."""
    airflow = Airflow(monkeypatch, deferrable=True, max_retries=1)
    server.will(whole("RUNNING", task("a", 100, "RUNNING")))
    with pytest.raises(TaskDeferred) as deferred:
        airflow.execute()
    assert airflow.xcoms["etl.a", "run_id"] == 100
    server.will(OUTPUT)
    retried = {**task("a", 200, "TERMINATED", "SUCCESS"), "run_page_url": "http://w/200"}
    assert airflow.execute(resume=(deferred.value, run_payload(retried))) == "42"
    assert airflow.xcoms["etl.a", "run_id"] == 200
    assert airflow.xcoms["etl.a", "run_page_url"] == "http://w/200"


def test_the_service_retries_a_task_that_was_cleared_while_it_ran(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, context: Any
) -> None:
    """The run that the clear has canceled is none of the service's attempts."""
    airflow = Airflow(monkeypatch, keys=("a",), deferrable=True, max_retries=1)
    server.will(whole("RUNNING", task("a", 100, "RUNNING")), answer({}))
    with pytest.raises(TaskDeferred) as deferred:
        airflow.execute(2, 1)
    assert sent(server, "runs/cancel") == [{"run_id": 100}]
    canceled = task("a", 100, "TERMINATED", "CANCELED")
    ended = whole("TERMINATED", canceled)
    again = whole("RUNNING", canceled, task("a", 200, "RUNNING"), repairs=1)
    server.will(ended, ended, airflow.job, REPAIRED, again, airflow.job, again)
    with pytest.raises(TaskDeferred) as repaired:
        airflow.execute(2, 1, resume=(deferred.value, run_payload(run("TERMINATED", "FAILED"))))
    assert len(sent(server, "runs/repair")) == 1
    failed = (canceled, task("a", 200, "TERMINATED", "FAILED"))
    retried = (*failed, task("a", 300, "TERMINATED", "SUCCESS"))
    server.will(whole("RUNNING", *failed), whole("TERMINATED", *retried))
    assert fired(repaired.value.trigger).payload["run"]["run_id"] == 300


@pytest.mark.usefixtures("triggerer_keeps_dags")
@pytest.mark.parametrize("max_retries", [0, 2])
def test_a_task_that_ends_in_the_triggerer(
    max_retries: int,
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    context: Any,
    logged: Any,
) -> None:
    """What no worker can record is recorded before: a clear runs the task again."""
    airflow = Airflow(monkeypatch, deferrable=True, end_from_trigger=True, max_retries=max_retries)
    server.will(whole("RUNNING", task("a", 100, "RUNNING")))
    with pytest.raises(TaskDeferred) as deferred:
        airflow.execute()
    trigger = deferred.value.trigger
    assert isinstance(trigger, DatabricksWorkflowTaskTrigger)
    assert trigger.end_from_trigger is (max_retries == 0)
    if max_retries:
        assert "because of: max_retries" in logged()
        return
    assert airflow.recorded("a")["reported"] == 100
    # Cleared after its end, then while it runs.
    done = (task("a", 100, "TERMINATED", "SUCCESS"), *FAILED[1:])
    ended, again = whole("TERMINATED", *done), whole("RUNNING", *done, task("a", 200, "RUNNING"))
    server.will(ended, ended, airflow.job, REPAIRED, again, airflow.job, again)
    with pytest.raises(TaskDeferred):
        airflow.execute(2, 1)
    assert len(sent(server, "runs/repair")) == 1
    server.will(again, answer({}))
    with pytest.raises(TaskDeferred):
        airflow.execute(3, 2)
    assert sent(server, "runs/cancel") == [{"run_id": 200}]


def test_a_task_that_the_official_provider_deferred(
    cleared: Airflow, server: ScriptedServer
) -> None:
    """Its end is recorded, so that a clear does not report the same run once more."""
    cleared.record("a")
    state = json.dumps({"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"})
    event = {"run_id": 100, "run_page_url": "http://w/100", "run_state": state}
    deferred = SimpleNamespace(method_name="execute_complete", kwargs={})
    server.will(answer(task("a", 100, "TERMINATED", "SUCCESS")), OUTPUT)
    assert cleared.execute(resume=(deferred, event)) == "42"
    assert cleared.recorded("a")["reported"] == 100
    assert cleared.xcoms["etl.a", "run_id"] == 100


def test_a_task_that_the_official_provider_has_ended(
    cleared: Airflow, server: ScriptedServer, logged: Any
) -> None:
    """Neither it nor the launch has recorded anything. After a clear it runs alone."""
    cleared.record("a")
    del cleared.xcoms["etl.launch", DEFINITION_KEY]
    alone = [answer({"run_id": 9}), answer({**run("TERMINATED", "SUCCESS"), "run_id": 9}), OUTPUT]
    server.will(whole("TERMINATED", task("a", 100, "TERMINATED", "SUCCESS")), *alone)
    assert cleared.execute(2, 1) == "42"
    assert len(sent(server, "runs/submit")) == 1
    assert "it was not launched by this provider" in logged()


def test_a_task_that_is_excluded_is_skipped(cleared: Airflow, server: ScriptedServer) -> None:
    """Its first run; the end is recorded, as any other."""
    cleared.xcoms.pop(("etl.launch", f"{KEY_PREFIX}etl.a"))
    excluded = whole("TERMINATED", task("a", 100, "TERMINATED", "EXCLUDED"))
    server.will(excluded)
    with pytest.raises(AirflowSkipException):
        cleared.execute()
    assert cleared.recorded("a")["reported"] == 100


@pytest.mark.parametrize(("retries", "waits"), [(0, False), (2, True)])
def test_a_failed_attempt_that_the_service_may_retry(
    retries: int,
    waits: bool,
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    context: Any,
) -> None:
    """A task waits for the next attempt in the triggerer, too."""
    airflow = Airflow(monkeypatch, deferrable=True, max_retries=retries)
    going_on = whole("RUNNING", task("a", 100, "TERMINATED", "FAILED"))
    server.will(going_on, FAILED_OUTPUT)
    with pytest.raises(TaskDeferred if waits else DatabricksRunFailedError):
        airflow.execute()


def test_the_first_attempt_after_the_launching_task_was_cleared(
    cleared: Airflow, server: ScriptedServer
) -> None:
    """The attempts before belong to an earlier run: this one reports the failure."""
    cleared.record("a")
    cleared.xcoms["etl.launch", WAS_CLEARED_KEY] = True
    ended = whole("TERMINATED", *FAILED)
    server.will(ended, FAILED_OUTPUT)
    with pytest.raises(DatabricksRunFailedError):
        cleared.execute(2, 1)
    assert cleared.recorded("a")["reported"] == 100


def test_a_task_whose_launching_task_was_skipped(cleared: Airflow) -> None:
    """It is skipped, too, where its trigger rule lets it start."""
    del cleared.xcoms["etl.launch", "return_value"]
    cleared.states["etl.launch"] = "skipped"
    with pytest.raises(AirflowSkipException, match=r"'etl\.launch' was skipped"):
        cleared.execute()


def test_without_a_launched_run(cleared: Airflow) -> None:
    """The task says which task has launched none."""
    del cleared.xcoms["etl.launch", "return_value"]
    cleared.states["etl.launch"] = "failed"
    with pytest.raises(AirflowException, match=r"'etl\.launch' has launched no run"):
        cleared.execute()

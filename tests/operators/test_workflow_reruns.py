"""What a task of a workflow group sends to run again: one repair for all that are to run again."""

from __future__ import annotations

import itertools
import os
import signal
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowTaskTimeout

from airflow_jobs_provider.airflow_compat.lines import airflow_line
from airflow_jobs_provider.airflow_compat.run_successor import Successor
from airflow_jobs_provider.airflow_compat.workflow_records import (
    KEY_PREFIX,
    UNKNOWN_ATTEMPT,
    LaterAttempt,
)
from airflow_jobs_provider.api.retry import no_waiting
from airflow_jobs_provider.exceptions import DatabricksRunFailedError
from airflow_jobs_provider.operators import cancel_on_kill, workflow_rerun
from tests.fakes.scripted_server import ScriptedServer, answer
from tests.helpers.responses import FAILED_OUTPUT, OUTPUT, run
from tests.helpers.workflow_group import (
    DONE,
    FAILED,
    REPAIRED,
    RERUN,
    Airflow,
    sent,
    task,
    whole,
)


def test_tasks_that_are_cleared_together_are_one_repair(
    cleared: Airflow, server: ScriptedServer
) -> None:
    """The first one that starts repairs the run for both, and reports its own new run."""
    server.will(
        whole("TERMINATED", *FAILED),
        *cleared.repair(),
        whole("RUNNING", *RERUN, repairs=1),
        whole("RUNNING", *DONE, repairs=1),
        OUTPUT,
    )
    assert cleared.execute(2, 1) == "42"
    (repair,) = sent(server, "runs/repair")
    assert repair == {"run_id": 7, "rerun_tasks": ["a", "b"]}
    assert cleared.recorded("a")["reported"] == 200
    assert cleared.xcoms["etl.a", "run_id"] == 200


def test_the_tags_of_a_group_whose_connection_is_a_template(
    context: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launching task has no connection in the process of another task. The tags need none."""
    connection = "{{ 'databricks_default' }}"
    group = {"databricks_conn_id": connection, "billing_tags": True}
    airflow = Airflow(monkeypatch, group=group, workspace_url=server.url)
    airflow.states |= {"etl.a": "running", "etl.b": None}
    for key, run_id in zip("abc", (100, 101, 102), strict=True):
        airflow.record(key, reported=run_id, max_tries=0)
    # Airflow has rendered the template of the task that it executes.
    airflow.group.members()[0].databricks_conn_id = "databricks_default"
    server.will(
        whole("TERMINATED", *FAILED),
        *airflow.repair(),
        whole("RUNNING", *RERUN, repairs=1),
        whole("RUNNING", *DONE, repairs=1),
        OUTPUT,
    )
    assert airflow.execute(2, 1) == "42"
    assert len(sent(server, "runs/repair")) == 1


def test_the_second_task_finds_the_repair(cleared: Airflow, server: ScriptedServer) -> None:
    """It was running already, or has ended: nothing is repaired."""
    server.will(whole("TERMINATED", *DONE, repairs=1), OUTPUT)
    assert cleared.execute(2, 1) == "42"
    assert sent(server, "runs/repair") == []


@pytest.mark.parametrize("reads", [1, 3])
def test_another_task_was_faster(reads: int, cleared: Airflow, server: ScriptedServer) -> None:
    """The service refuses the second repair, and shows the first a little later."""
    refused = {"error_code": "INVALID_STATE", "message": "Run 7 is active."}
    server.will(
        whole("TERMINATED", *FAILED),
        whole("TERMINATED", *FAILED),
        cleared.job,
        answer(refused, 400),
        *[whole("TERMINATED", *FAILED)] * (reads - 1),
        whole("RUNNING", *RERUN, repairs=1),
        whole("RUNNING", *DONE, repairs=1),
        OUTPUT,
    )
    assert cleared.execute(2, 1) == "42"
    assert len(sent(server, "runs/repair")) == 1


def test_the_next_repair_names_the_latest(cleared: Airflow, server: ScriptedServer) -> None:
    """As the service requires."""
    cleared.states["etl.b"] = "success"
    server.will(
        whole("TERMINATED", *FAILED, repairs=2),
        *cleared.repair(repairs=2),
        whole("RUNNING", *DONE),
        OUTPUT,
    )
    cleared.execute(2, 1)
    assert sent(server, "runs/repair") == [
        {"run_id": 7, "rerun_tasks": ["a"], "latest_repair_id": 2}
    ]


@pytest.mark.parametrize(
    ("state", "record", "is_included"),
    [
        (None, {"reported": 101}, True),
        ("deferred", {"reported": 101, "wants_rerun_of": 101}, True),
        ("running", {}, False),
        ("failed", {"reported": 101}, False),
    ],
)
def test_which_other_task_runs_again(
    state: str | None,
    record: dict[str, Any],
    is_included: bool,
    cleared: Airflow,
    server: ScriptedServer,
) -> None:
    """See the table of test_workflow_next_step.py."""
    cleared.states["etl.b"] = state
    cleared.record("b", **record)
    server.will(
        whole("TERMINATED", *FAILED),
        *cleared.repair(),
        whole("RUNNING", *DONE),
        OUTPUT,
    )
    cleared.execute(2, 1)
    (repair,) = sent(server, "runs/repair")
    assert repair["rerun_tasks"] == (["a", "b"] if is_included else ["a"])


@pytest.mark.parametrize(
    ("before", "later", "after", "is_included"),
    [
        # The process of its next attempt has died before it recorded anything.
        pytest.param({"reported": 101}, LaterAttempt(True, False), None, True, id="restarted"),
        # It has failed, and its process ends; then Airflow retries it, or not.
        pytest.param({"reported": 101}, UNKNOWN_ATTEMPT, "up_for_retry", True, id="retried"),
        pytest.param({"reported": 101}, UNKNOWN_ATTEMPT, "failed", False, id="failed"),
        # It has not reported its failure yet.
        pytest.param({}, UNKNOWN_ATTEMPT, "up_for_retry", True, id="reports, and is retried"),
        pytest.param({}, UNKNOWN_ATTEMPT, "failed", False, id="reports, and has failed"),
    ],
)
def test_another_task_that_is_running_is_waited_for(
    before: dict[str, Any],
    later: LaterAttempt,
    after: str | None,
    is_included: bool,
    cleared: Airflow,
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One repair is made for both, where Airflow runs both again."""
    monkeypatch.setattr(workflow_rerun, "SETTLE_SECONDS", 60.0)
    cleared.states["etl.b"] = "running"
    cleared.record("b", **before)
    cleared.later["etl.b"] = later

    def change() -> None:
        cleared.states["etl.b"] = after
        cleared.record("b", reported=101)

    asked = itertools.count()
    cleared.before_states = lambda: change() if next(asked) == 1 else None
    server.will(whole("TERMINATED", *FAILED), *cleared.repair(), whole("RUNNING", *DONE), OUTPUT)
    with no_waiting():
        cleared.execute(2, 1)
    (repair,) = sent(server, "runs/repair")
    assert repair["rerun_tasks"] == (["a", "b"] if is_included else ["a"])


def test_a_queued_task_that_reports_its_success_meanwhile_is_untouched(
    cleared: Airflow, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was queued to resume after its event, and has reported before its record is read."""
    monkeypatch.setattr(workflow_rerun, "SETTLE_SECONDS", 60.0)
    cleared.states["etl.b"] = "success"
    cleared.states["etl.c"] = "queued"
    cleared.record("c", reported=102)
    asked = itertools.count()

    def change() -> None:
        if next(asked) == 1:
            cleared.states["etl.c"] = "success"

    cleared.before_states = change
    server.will(whole("TERMINATED", *FAILED), *cleared.repair(), whole("RUNNING", *DONE), OUTPUT)
    with no_waiting():
        cleared.execute(2, 1)
    (repair,) = sent(server, "runs/repair")
    assert repair["rerun_tasks"] == ["a"]


def test_what_is_asked_while_a_task_does_not_start(
    cleared: Airflow, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its record is read once, not each second: no process of it can write any."""
    monkeypatch.setattr(workflow_rerun, "SETTLE_SECONDS", 60.0)
    cleared.states["etl.b"] = "queued"
    cleared.record("b")
    line, read = airflow_line(), list[str]()
    read_xcom = line.read_xcom

    def count(attempt: Any, task_id: str, key: str) -> Any:
        read.append(key)
        return read_xcom(attempt, task_id, key)

    monkeypatch.setattr(line, "read_xcom", count)
    asked = itertools.count()

    def change() -> None:
        if next(asked) == 7:
            cleared.states["etl.b"] = "running"
            cleared.record("b", wants_rerun_of=101)

    cleared.before_states = change
    server.will(whole("TERMINATED", *FAILED), *cleared.repair(), whole("RUNNING", *DONE), OUTPUT)
    with no_waiting():
        cleared.execute(2, 1)
    assert next(asked) == 8
    assert read.count(f"{KEY_PREFIX}etl.b") == 2
    (repair,) = sent(server, "runs/repair")
    assert repair["rerun_tasks"] == ["a", "b"]


def test_the_service_retries_of_another_task(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, context: Any
) -> None:
    """Its second attempt may be one of them; without them a repair has run it already."""
    for max_retries, keys in ((None, ["a"]), (1, ["a", "b"])):
        airflow = Airflow(monkeypatch, max_retries=max_retries)
        airflow.states |= {"etl.a": "running", "etl.b": "up_for_retry"}
        airflow.record("a", reported=100, try_number=1)
        tasks = (FAILED[0], task("b", 201, "TERMINATED", "FAILED"))
        ended = whole("TERMINATED", *tasks)
        again = whole("TERMINATED", *tasks, task("a", 200, "TERMINATED", "SUCCESS"), repairs=1)
        server.will(ended, ended, airflow.job, REPAIRED, again, airflow.job, again, OUTPUT)
        assert airflow.execute(2, 1) == "42"
        assert sent(server, "runs/repair")[-1]["rerun_tasks"] == keys


def test_a_job_that_changes_while_the_others_are_asked(
    cleared: Airflow, server: ScriptedServer, logged: Any
) -> None:
    """It is read right before the repair, which is not made."""
    read_before: list[Any] = []
    cleared.before_states = lambda: read_before.append(sent(server, "jobs/get"))
    ended = whole("TERMINATED", *FAILED)
    alone = [answer({"run_id": 9}), answer({**run("TERMINATED", "SUCCESS"), "run_id": 9}), OUTPUT]
    server.will(ended, ended, cleared.changed_job, *alone)
    assert cleared.execute(2, 1) == "42"
    assert read_before
    assert not any(read_before)
    assert sent(server, "runs/repair") == []
    assert "job 3 was changed" in logged()


@pytest.mark.parametrize("runs_other", [True, False])
def test_a_job_that_changes_while_the_run_is_repaired(
    runs_other: bool, cleared: Airflow, server: ScriptedServer
) -> None:
    """The repair is canceled where the tasks are others, and the task runs alone."""
    ended = whole("TERMINATED", *FAILED)
    again = [
        {**one, **cleared.defined(one["task_key"], "/other" if runs_other else None)}
        for one in RERUN
    ]
    server.will(ended, ended, cleared.job, REPAIRED, whole("RUNNING", *again, repairs=1))
    server.will(cleared.changed_job)
    if runs_other:
        ended_alone = answer({**run("TERMINATED", "SUCCESS"), "run_id": 9})
        server.will(answer({}), answer({"run_id": 9}), ended_alone, OUTPUT)
    else:
        server.will(whole("RUNNING", *DONE, repairs=1), OUTPUT)
    assert cleared.execute(2, 1) == "42"
    assert sent(server, "runs/cancel") == ([{"run_id": 7}] if runs_other else [])
    assert len(sent(server, "runs/submit")) == int(runs_other)


@pytest.mark.parametrize(
    ("rule", "result_of_a", "is_alone"),
    [
        ("all_success", "FAILED", True),
        ("none_failed", "CANCELED", True),
        ("one_success", "TIMEDOUT", True),
        ("all_done", "FAILED", False),
        ("all_success", "SUCCESS", False),
    ],
)
def test_a_task_before_it_that_was_marked_successful(
    rule: str,
    result_of_a: str,
    is_alone: bool,
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    context: Any,
    logged: Any,
) -> None:
    """Databricks would not run the task after it, since that one has failed there."""
    airflow = Airflow(monkeypatch, trigger_rule=rule, chained=True)
    airflow.states["etl.b"] = "running"
    airflow.record("a", reported=100)
    before = (
        task("a", 100, "TERMINATED", result_of_a),
        task("b", 101, "TERMINATED", "UPSTREAM_FAILED"),
    )
    again = (*before, task("b", 201, "TERMINATED", "SUCCESS"))
    ended, repaired = whole("TERMINATED", *before), whole("TERMINATED", *again, repairs=1)
    server.will(ended, ended)
    if is_alone:
        ended_alone = answer({**run("TERMINATED", "SUCCESS"), "run_id": 9})
        server.will(answer({"run_id": 9}), ended_alone, OUTPUT)
    else:
        server.will(airflow.job, REPAIRED, repaired, airflow.job, repaired, OUTPUT)
    assert airflow.execute(1, 0, key="b") == "42"
    assert len(sent(server, "runs/repair")) == int(not is_alone)
    assert ("the task 'a' before it has not succeeded in the run" in logged()) is is_alone


def test_a_repair_leaves_out_what_it_could_not_run(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, context: Any
) -> None:
    """A task behind one that was marked successful would not run again."""
    airflow = Airflow(monkeypatch, chained=True)
    airflow.states |= {"etl.a": "success", "etl.b": None, "etl.c": "running"}
    airflow.record("a", reported=100)
    airflow.record("c", reported=102)
    not_run = task("b", 101, "TERMINATED", "UPSTREAM_FAILED")
    before = (FAILED[0], not_run, task("c", 102, "TERMINATED", "FAILED"))
    again = whole("TERMINATED", *before, task("c", 202, "TERMINATED", "SUCCESS"), repairs=1)
    ended = whole("TERMINATED", *before)
    server.will(ended, ended, airflow.job, REPAIRED, again, airflow.job, again, OUTPUT)
    assert airflow.execute(2, 1, key="c") == "42"
    (repair,) = sent(server, "runs/repair")
    assert repair["rerun_tasks"] == ["c"]


class TerminatedError(BaseException):
    """What Airflow 2.11 raises in a task's process at SIGTERM: AirflowTaskTerminated."""


@pytest.mark.parametrize("kind", [TerminatedError, AirflowTaskTimeout])
def test_a_process_that_is_told_to_end_while_it_repairs(
    kind: type[BaseException],
    cleared: Airflow,
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The task's new run is canceled, also where the response to the repair never comes."""
    monkeypatch.setattr(cancel_on_kill, "find_successor", lambda _attempt: Successor.NONE)
    operator = cleared.group.members()[0]

    def tell(*_: object) -> None:
        if kind is TerminatedError:  # At the end of execution_timeout Airflow 3 calls it later.
            operator.on_kill()
        raise kind

    def repair_and_tell(connection: Any) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        REPAIRED(connection)

    ended, again = whole("TERMINATED", *FAILED), whole("RUNNING", *RERUN, repairs=1)
    server.will(ended, ended, cleared.job, repair_and_tell, again, answer({}))
    handler = signal.signal(signal.SIGUSR1, tell)
    try:
        with pytest.raises(kind):
            cleared.execute(2, 1)
    finally:
        signal.signal(signal.SIGUSR1, handler)
    assert sent(server, "runs/cancel") == [{"run_id": 200}]


def test_a_kill_right_after_the_repair(
    cleared: Airflow, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow 3 lets the process go on; it cancels the task's new run, and ends."""
    monkeypatch.setattr(cancel_on_kill, "find_successor", lambda _attempt: Successor.NONE)
    operator, again = cleared.group.members()[0], whole("RUNNING", *RERUN, repairs=1)

    def job_and_kill(connection: Any) -> None:
        operator.on_kill()
        cleared.job(connection)

    ended = whole("TERMINATED", *FAILED)
    server.will(ended, ended, cleared.job, REPAIRED, again, job_and_kill, again, answer({}))
    with pytest.raises(AirflowException, match="the task was killed"):
        cleared.execute(2, 1)
    assert sent(server, "runs/cancel") == [{"run_id": 200}]


@pytest.mark.parametrize(
    ("max_tries", "record"),
    [
        pytest.param(1, {}, id="cleared"),
        pytest.param(0, {}, id="retried"),
        pytest.param(2, {"reported": 50, "try_number": 1}, id="cleared after a report"),
    ],
)
def test_an_attempt_that_never_started(
    max_tries: int, record: dict[str, Any], cleared: Airflow, server: ScriptedServer
) -> None:
    """Nobody has reported the failed task run, and the next attempt runs the task again."""
    cleared.record("a", **record)
    cleared.states["etl.b"] = "failed"
    server.will(
        whole("TERMINATED", *FAILED),
        *cleared.repair(),
        whole("RUNNING", *DONE),
        OUTPUT,
    )
    assert cleared.execute(3 if record else 2, max_tries) == "42"
    (repair,) = sent(server, "runs/repair")
    assert repair["rerun_tasks"] == ["a"]
    assert cleared.recorded("a")["try_number"] == (3 if record else 2)


def test_a_repair_by_another_task_while_this_one_waits(
    cleared: Airflow, server: ScriptedServer
) -> None:
    """The attempt that has asked for the repair reports the new run, though that has failed."""
    cleared.record("a")
    again = (*FAILED, task("a", 200, "TERMINATED", "FAILED"))
    active = whole("RUNNING", *FAILED)
    server.will(active, active, *[whole("TERMINATED", *again)] * 2)
    server.will(FAILED_OUTPUT)
    with pytest.raises(DatabricksRunFailedError):
        cleared.execute(2, 1)
    assert sent(server, "runs/repair") == []
    assert cleared.recorded("a")["reported"] == 200

"""What the tasks of a workflow group send when they are executed again, answer by answer.

Airflow's part (states and XComs of other tasks) is kept in memory here; it is real in
tests/end_to_end/test_workflow_user_actions.py.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowException,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferred,
)

from airflow_jobs_provider.airflow_compat.lines import airflow_line
from airflow_jobs_provider.airflow_compat.run_successor import Successor
from airflow_jobs_provider.airflow_compat.workflow_records import (
    KEY_PREFIX,
    UNKNOWN_ATTEMPT,
    LaterAttempt,
)
from airflow_jobs_provider.api.retry import no_waiting
from airflow_jobs_provider.api.workflows.job_definitions import definition_digest
from airflow_jobs_provider.exceptions import DatabricksRunFailedError
from airflow_jobs_provider.operators import cancel_on_kill, workflow_rerun
from airflow_jobs_provider.operators.jobs import DatabricksNotebookOperator
from airflow_jobs_provider.operators.workflow import DatabricksWorkflowTaskGroup
from airflow_jobs_provider.operators.workflow_launch import DEFINITION_KEY, WAS_CLEARED_KEY
from airflow_jobs_provider.triggers.events import run_payload
from airflow_jobs_provider.triggers.jobs import DatabricksJobRunTrigger
from airflow_jobs_provider.triggers.workflow import DatabricksWorkflowTaskTrigger
from tests.fakes.scripted_server import ScriptedServer, Step, answer, lose
from tests.helpers.fault_bench import KilledError, killed_by_signal
from tests.helpers.responses import FAILED_OUTPUT, OUTPUT, run

KEYS = ("a", "b", "c")
CLUSTER = {"spark_version": "15.4.x-scala2.12", "node_type_id": "i3.xlarge", "num_workers": 1}
REPAIRED = answer({"repair_id": 5})


class Airflow:
    """States and XComs of a DAG run, and one attempt of the task ``etl.a``."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        *,
        chained: bool = False,
        group: dict[str, Any] | None = None,
        **arguments: Any,
    ) -> None:
        with (
            DAG("sales", schedule=None),
            DatabricksWorkflowTaskGroup(
                group_id="etl",
                job_clusters=[{"job_cluster_key": "small", "new_cluster": CLUSTER}],
                **(group or {}),
            ) as self.group,
        ):
            for key in KEYS:
                made = DatabricksNotebookOperator(
                    task_id=key,
                    notebook_path=f"/{key}",
                    databricks_task_key=key,
                    job_cluster_key="small",
                    polling_period_seconds=0.01,
                    **arguments,
                )
                if chained and key == "b":
                    self.group.children["etl.a"] >> made
        self.states: dict[str, str | None] = {f"etl.{key}": "success" for key in KEYS}
        self.xcoms: dict[tuple[str, str], Any] = {
            ("etl.launch", "return_value"): {
                "conn_id": "databricks_default",
                "job_id": 3,
                "run_id": 7,
            },
        }
        line = airflow_line()
        monkeypatch.setattr(line, "task_states", lambda _attempt, ids: self._states(ids))
        monkeypatch.setattr(
            line, "read_xcom", lambda _attempt, task_id, key: self.xcoms.get((task_id, key))
        )
        monkeypatch.setattr(
            line,
            "write_xcom",
            lambda _attempt, task_id, key, value: self.xcoms.update({(task_id, key): value}),
        )
        #: Called before Airflow tells states.
        self.before_states: Callable[[], object] = lambda: None
        #: What Airflow tells of attempts after those that have recorded something.
        self.later = {f"etl.{key}": UNKNOWN_ATTEMPT for key in KEYS}
        monkeypatch.setattr(
            line, "later_attempt", lambda _attempt, task_id, **_: self.later[task_id]
        )
        # Tasks that tell nothing are not waited for; a test that wants it sets another time.
        monkeypatch.setattr(workflow_rerun, "SETTLE_SECONDS", 0.0)
        self.settings, digest = self.group.launch_task.definition({})
        self.xcoms["etl.launch", DEFINITION_KEY] = digest

    def _states(self, task_ids: list[str]) -> dict[str, str | None]:
        self.before_states()
        return {task_id: self.states[task_id] for task_id in task_ids}

    def record(self, key: str, **values: Any) -> None:
        """Let a task have recorded this."""
        self.xcoms["etl.launch", f"{KEY_PREFIX}etl.{key}"] = values

    def recorded(self, key: str) -> dict[str, Any]:
        """Return what a task has recorded."""
        found: dict[str, Any] = self.xcoms["etl.launch", f"{KEY_PREFIX}etl.{key}"]
        return found

    def execute(
        self, try_number: int = 1, max_tries: int = 0, *, resume: Any = None, key: str = "a"
    ) -> Any:
        """Execute an attempt of a task of the group, or resume it after it has deferred."""
        operator = self.group.members()[KEYS.index(key)]
        context = self._context(operator, try_number, max_tries)
        if resume is not None:
            deferred, event = resume
            return getattr(operator, deferred.method_name)(context, event, **deferred.kwargs)
        return operator.execute(context)

    def launch(self, try_number: int, max_tries: int) -> Any:
        """Execute an attempt of ``etl.launch``."""
        operator = self.group.launch_task
        return operator.execute(self._context(operator, try_number, max_tries))

    def _context(self, operator: Any, try_number: int, max_tries: int) -> Any:
        ti = SimpleNamespace(
            dag_id="sales",
            run_id="a_run",
            task_id=operator.task_id,
            map_index=-1,
            try_number=try_number,
            max_tries=max_tries,
            start_date=None,
            task=operator,
            xcom_push=lambda key, value: self.xcoms.update({(operator.task_id, key): value}),
            xcom_pull=lambda *, task_ids, key, map_indexes: (  # noqa: ARG005
                self.xcoms.get((task_ids, key))
            ),
        )
        return {"ti": ti, "params": {}, "dag_run": None, "task": operator}

    @property
    def job(self) -> Step:
        """Answer the job, as the group defines it."""
        return answer(self._job)

    @property
    def changed_job(self) -> Step:
        """Answer the job after somebody has changed it."""
        settings = {**self._job["settings"], "tasks": []}
        return answer({"job_id": 3, "settings": settings})

    def defined(self, key: str, path: str | None = None) -> dict[str, Any]:
        """Return a task as the job defines it, or with another notebook."""
        (found,) = [one for one in self.settings["tasks"] if one["task_key"] == key]
        return {**found, "notebook_task": {"notebook_path": path}} if path else found

    def repair(self, *, repairs: int = 0) -> list[Step]:
        """Answer what a repair reads and sends, after the first read of the run."""
        ended = whole("TERMINATED", *FAILED, repairs=repairs)
        return [ended, self.job, REPAIRED, whole("RUNNING", *RERUN, repairs=repairs + 1), self.job]

    @property
    def jobs(self) -> Step:
        """Answer a list with only this job."""
        return answer({"jobs": [self._job]})

    @property
    def _job(self) -> dict[str, Any]:
        digest = definition_digest(self.settings)
        description = f"[airflow definition {digest}]"
        return {"job_id": 3, "settings": {**self.settings, "description": description}}


def task(key: str, run_id: int, life: str, result: str | None = None) -> dict[str, Any]:
    """Make a task of the run."""
    attempt = run_id // 100 - 1
    return {**run(life, result), "run_id": run_id, "task_key": key, "attempt_number": attempt}


def whole(life: str, *tasks: dict[str, Any], repairs: int = 0) -> Step:
    """Answer the run with its tasks and repairs."""
    history = [{"type": "ORIGINAL"}, *({"type": "REPAIR", "id": n + 1} for n in range(repairs))]
    result = "FAILED" if life == "TERMINATED" else None
    return answer({**run(life, result), "tasks": list(tasks), "repair_history": history})


FAILED = (
    task("a", 100, "TERMINATED", "FAILED"),
    task("b", 101, "TERMINATED", "FAILED"),
    task("c", 102, "TERMINATED", "SUCCESS"),
)
RERUN = (*FAILED, task("a", 200, "RUNNING"), task("b", 201, "RUNNING"))
DONE = (*FAILED, task("a", 200, "TERMINATED", "SUCCESS"), task("b", 201, "RUNNING"))


def sent(server: ScriptedServer, name: str) -> list[Any]:
    """Return the bodies of the requests to an endpoint."""
    return [one.body for one in server.requests if one.path.endswith(f"/{name}")]


@pytest.fixture
def cleared(monkeypatch: pytest.MonkeyPatch, context: Any) -> Airflow:
    """A group of which the tasks a and b have failed, and were cleared together."""
    airflow = Airflow(monkeypatch)
    for key, run_id in zip("abc", (100, 101, 102), strict=True):
        airflow.record(key, reported=run_id, max_tries=0)
    airflow.states |= {"etl.a": "running", "etl.b": None}
    return airflow


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


def test_the_second_task_finds_the_repair(cleared: Airflow, server: ScriptedServer) -> None:
    """It was running already, or has ended: nothing is repaired."""
    server.will(whole("TERMINATED", *DONE, repairs=1), whole("TERMINATED", *DONE), OUTPUT)
    assert cleared.execute(2, 1) == "42"
    assert sent(server, "runs/repair") == []


def test_another_task_was_faster(cleared: Airflow, server: ScriptedServer) -> None:
    """The service refuses the second repair; the task's new run is found."""
    refused = {"error_code": "INVALID_STATE", "message": "Run 7 is active."}
    server.will(
        whole("TERMINATED", *FAILED),
        whole("TERMINATED", *FAILED),
        cleared.job,
        answer(refused, 400),
        whole("RUNNING", *RERUN, repairs=1),
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
        *[whole("RUNNING", *DONE)] * 2,
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
    server.will(
        whole("TERMINATED", *FAILED), *cleared.repair(), *[whole("RUNNING", *DONE)] * 2, OUTPUT
    )
    with no_waiting():
        cleared.execute(2, 1)
    (repair,) = sent(server, "runs/repair")
    assert repair["rerun_tasks"] == (["a", "b"] if is_included else ["a"])


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
    assert read_before == [[]]
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
        server.will(*[whole("RUNNING", *DONE, repairs=1)] * 2, OUTPUT)
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
        server.will(airflow.job, REPAIRED, repaired, airflow.job, repaired, repaired, OUTPUT)
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
    server.will(ended, ended, airflow.job, REPAIRED, again, airflow.job, again, again, OUTPUT)
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


def change_of_the_job(airflow: Airflow) -> list[Step]:
    """Answer a job that somebody has changed."""
    airflow.settings["tasks"][0]["notebook_task"]["notebook_path"] = "/other"
    return [whole("TERMINATED", *FAILED), airflow.job]


def change_of_the_group(airflow: Airflow) -> list[Step]:
    """Let the run have been launched with another definition."""
    airflow.xcoms["etl.launch", DEFINITION_KEY] = "0123456789abcdef"
    return []


def refusal(airflow: Airflow) -> list[Step]:
    """Refuse the repair, with the run as it was."""
    error = {"error_code": "INVALID_PARAMETER_VALUE", "message": "The run is too old."}
    before = whole("TERMINATED", *FAILED)
    return [before, airflow.job, answer(error, 400), before]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (change_of_the_job, "job 3 was changed"),
        (change_of_the_group, "definition has changed"),
        (refusal, "The run is too old"),
    ],
)
def test_a_run_that_cannot_be_repaired(
    change: Any, reason: str, cleared: Airflow, server: ScriptedServer, logged: Any
) -> None:
    """The task runs alone, on the group's cluster; so does its next try, at once."""
    answers = change(cleared)
    alone = [answer({"run_id": 9}), answer({**run("TERMINATED", "SUCCESS"), "run_id": 9}), OUTPUT]
    server.will(whole("TERMINATED", *FAILED), *answers, *alone)
    assert cleared.execute(2, 1) == "42"
    assert reason in logged()
    (submitted,) = sent(server, "runs/submit")
    (one,) = submitted["tasks"]
    assert one["new_cluster"] == CLUSTER
    assert one["notebook_task"] == {"notebook_path": "/a"}
    assert "depends_on" not in one
    assert cleared.recorded("a")["is_alone"] is True
    requests = len(server.requests)
    server.will(*alone)
    assert cleared.execute(3, 2) == "42"
    assert len(server.requests) == requests + 3


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
    server.will(excluded, excluded)
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
    server.will(going_on, going_on, FAILED_OUTPUT)
    with pytest.raises(TaskDeferred if waits else DatabricksRunFailedError):
        airflow.execute()


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
        *[whole("RUNNING", *DONE)] * 2,
        OUTPUT,
    )
    assert cleared.execute(3 if record else 2, max_tries) == "42"
    (repair,) = sent(server, "runs/repair")
    assert repair["rerun_tasks"] == ["a"]
    assert cleared.recorded("a")["try_number"] == (3 if record else 2)


def test_the_first_attempt_after_the_launching_task_was_cleared(
    cleared: Airflow, server: ScriptedServer
) -> None:
    """The attempts before belong to an earlier run: this one reports the failure."""
    cleared.record("a")
    cleared.xcoms["etl.launch", WAS_CLEARED_KEY] = True
    ended = whole("TERMINATED", *FAILED)
    server.will(ended, ended, FAILED_OUTPUT)
    with pytest.raises(DatabricksRunFailedError):
        cleared.execute(2, 1)
    assert cleared.recorded("a")["reported"] == 100


def test_a_repair_by_another_task_while_this_one_waits(
    cleared: Airflow, server: ScriptedServer
) -> None:
    """The attempt that has asked for the repair reports the new run, though that has failed."""
    cleared.record("a")
    again = (*FAILED, task("a", 200, "TERMINATED", "FAILED"))
    active = whole("RUNNING", *FAILED)
    server.will(active, active, whole("TERMINATED", *again), *[whole("TERMINATED", *again)] * 2)
    server.will(FAILED_OUTPUT)
    with pytest.raises(DatabricksRunFailedError):
        cleared.execute(2, 1)
    assert sent(server, "runs/repair") == []
    assert cleared.recorded("a")["reported"] == 200


@pytest.mark.parametrize(("max_tries", "is_told"), [(1, True), (0, False)])
def test_the_launching_task_tells_that_it_was_cleared(
    max_tries: int, is_told: bool, cleared: Airflow, server: ScriptedServer
) -> None:
    """Its own retries are no clear."""
    server.will(cleared.jobs, cleared.job, answer({"run_id": 7}), answer(run("PENDING")))
    server.will(*([] if is_told else [cleared.job]))
    assert cleared.launch(2, max_tries)["run_id"] == 7
    assert (("etl.launch", WAS_CLEARED_KEY) in cleared.xcoms) is is_told


def test_a_launch_whose_response_is_lost(cleared: Airflow, server: ScriptedServer) -> None:
    """It is repeated with the same token, and launches nothing more."""
    server.will(cleared.jobs, cleared.job, lose, answer({"run_id": 7}), answer(run("PENDING")))
    with no_waiting():
        assert cleared.launch(1, 0)["run_id"] == 7
    first, second = sent(server, "run-now")
    assert first == second


@pytest.mark.parametrize("successor", [Successor.NONE, Successor.RETRY])
def test_a_launch_that_is_killed_before_its_response(
    successor: Successor,
    cleared: Airflow,
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A user's kill cancels the run. If a retry follows, it takes the run over."""
    monkeypatch.setattr(cancel_on_kill, "find_successor", lambda _attempt: successor)

    def kill_and_answer(connection: Any) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        answer({"run_id": 7})(connection)

    server.will(cleared.jobs, cleared.job, kill_and_answer)
    if successor is Successor.NONE:
        server.will(answer({"run_id": 7}), answer({}))
    with killed_by_signal(cleared.group.launch_task), pytest.raises(KilledError):
        cleared.launch(1, 0)
    if successor is Successor.NONE:
        assert sent(server, "runs/cancel") == [{"run_id": 7}]
    else:
        found = answer({**run("RUNNING"), "run_id": 7})
        server.will(cleared.jobs, cleared.job, answer({"run_id": 7}), found, cleared.job)
        assert Airflow(monkeypatch).launch(2, 0)["run_id"] == 7  # in another process
        assert sent(server, "runs/cancel") == []
    first, second = sent(server, "run-now")
    assert first["idempotency_token"] == second["idempotency_token"]


OTHER_JOB = answer({"job_id": 3, "settings": {"name": "sales.etl", "tasks": []}})


def test_a_launch_that_died_before_its_run_failed(cleared: Airflow, server: ScriptedServer) -> None:
    """The retry takes over the failed run, which belongs to the group's tasks."""
    failed = {**run("TERMINATED", "FAILED"), "run_id": 7}
    server.will(cleared.jobs, cleared.job, answer({"run_id": 7}), answer(failed), cleared.job)
    assert cleared.launch(2, 0)["run_id"] == 7
    assert len(sent(server, "run-now")) == 1


@pytest.mark.parametrize("result", ["FAILED", None])
def test_a_launch_that_died_before_it_could_check_its_run(
    result: str | None, cleared: Airflow, server: ScriptedServer
) -> None:
    """The job was reset for another DAG run before the launch: that run is not taken over."""
    found = {**run("TERMINATED" if result else "RUNNING", result), "run_id": 6}
    others = [{**task("a", 90, "RUNNING"), **cleared.defined("a", "/other")}]
    server.will(cleared.jobs, cleared.job, answer({"run_id": 6}), answer(found), OTHER_JOB)
    server.will(answer({**found, "tasks": others}))
    if result is None:
        server.will(answer({}))
    server.will(cleared.jobs, cleared.job, answer({"run_id": 7}), answer(run("PENDING")))
    assert cleared.launch(2, 0)["run_id"] == 7
    assert sent(server, "runs/cancel") == ([] if result else [{"run_id": 6}])
    tokens = [one["idempotency_token"] for one in sent(server, "run-now")]
    assert len(set(tokens)) == 2


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

"""A task that executes several operators, or one of them several times: each launch is its own.

What Airflow itself does with such a task is in tests/end_to_end/test_nested.py.
"""

from __future__ import annotations

import copy
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, BaseOperator, TaskDeferred

from airflow_jobs_provider.airflow_compat.lines import airflow_version
from airflow_jobs_provider.sensors.jobs import DatabricksJobRunSensor
from tests.fakes.fake_service import Fault, Plan, Seen
from tests.helpers.fault_bench import (
    FOREVER,
    Bench,
    KilledError,
    RunNow,
    Submit,
    killed_by_signal,
    task_event,
)
from tests.helpers.tasks import fail_for_good

in_threads = pytest.mark.skipif(
    airflow_version() < (3, 0), reason="Airflow 2 executes no operator in another thread"
)
FAILING = Plan(result="FAILED")
REFUSED = Fault(
    False, lambda handler: handler.say(400, b'{"error_code": "INVALID_STATE", "message": "no"}')
)


class Died(BaseException):
    """The end of a process that has no time to do anything."""


@contextmanager
def dying_by_signal() -> Iterator[None]:
    """End what is executed at SIGUSR1, without a word to any operator."""

    def die(*_: object) -> None:
        raise Died

    before = signal.signal(signal.SIGUSR1, die)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


class Outer(BaseOperator):
    """A task that does what it is given."""

    def __init__(self, does: Callable[[Any], Any], **arguments: Any) -> None:
        super().__init__(task_id="work", **arguments)
        self.does = does
        self.kills = 0

    def execute(self, context: Any) -> Any:
        """Do it."""
        return self.does(context)

    def on_kill(self) -> None:
        """Count."""
        self.kills += 1


class Sensor(DatabricksJobRunSensor):
    """The sensor, with a log that can be read here on every Airflow."""

    log = logging.getLogger("task")  # type: ignore[assignment]


def submit(task_id: str = "part", **arguments: Any) -> Submit:
    """Make an operator as a task makes one while it runs."""
    arguments = {"polling_period_seconds": 0.01, "existing_cluster_id": "cluster", **arguments}
    return Submit(task_id=task_id, notebook_task={"notebook_path": "/part"}, **arguments)


def run_now(task_id: str = "part", **arguments: Any) -> RunNow:
    """Likewise."""
    return RunNow(task_id=task_id, job_id=11, polling_period_seconds=0.01, **arguments)


def begin(bench: Bench, outer: Any, try_number: int = 1, retries: int = 0) -> Any:
    """Return the context of a process of its own, which executes a try of the task."""
    facts = vars(bench.context["ti"])
    changes = {"task": outer, "try_number": try_number, "max_tries": retries}
    outer.retries = retries
    return {**bench.context, "ti": SimpleNamespace(**{**facts, **changes}), "task": outer}


def tokens(bench: Bench) -> list[Any]:
    """Return the tokens of all launches, in order."""
    return [seen.parameters.get("idempotency_token") for seen in bench.service.seen if _is(seen)]


def _is(seen: Seen) -> bool:
    return seen.endpoint in ("runs/submit", "run-now")


@pytest.mark.parametrize("make", [submit, run_now])
@pytest.mark.parametrize("names", [["a", "b", "c"], ["part"] * 3, ["work"] * 3], ids=str)
def test_three_operators_in_a_loop(bench: Bench, make: Any, names: list[str]) -> None:
    """Three runs with tokens and outputs of their own, whatever the operators' task_ids are."""
    outer = Outer(does=lambda context: [make(name).execute(context) for name in names])
    outputs = outer.execute(begin(bench, outer))
    assert outputs == ["output of 1001", "output of 1002", "output of 1003"]
    assert len(set(tokens(bench))) == 3


def test_super_execute_twice(bench: Bench) -> None:
    """A subclass that executes its operator twice has two runs; a retry finds both."""

    class Twice(Submit):
        def execute(self, context: Any) -> Any:
            return [super().execute(context), super().execute(context)]

    first, second = (
        Twice(
            task_id="work",
            existing_cluster_id="c",
            notebook_task={"notebook_path": "/a"},
            polling_period_seconds=0.01,
        )
        for _ in range(2)
    )
    outputs = first.execute(begin(bench, first, retries=1))
    assert outputs == ["output of 1001", "output of 1002"]
    assert second.execute(begin(bench, second, try_number=2, retries=1)) == outputs
    assert len(bench.service.runs) == 2
    assert len(set(tokens(bench))) == 2


@pytest.mark.parametrize("names", [["a", "b", "c"], ["part"] * 3], ids=str)
def test_a_retry_reattaches_to_each_run(bench: Bench, names: list[str]) -> None:
    """What succeeded is not done again, what failed is launched once more, the rest comes anew."""
    bench.service.plans.extend([Plan(), FAILING])
    outer = Outer(does=lambda context: [submit(name).execute(context) for name in names])
    with pytest.raises(AirflowException, match="Run 1002 failed"):
        outer.execute(begin(bench, outer, retries=1))
    again = outer.execute(begin(bench, outer, try_number=2, retries=1))
    assert again == ["output of 1001", "output of 1003", "output of 1004"]
    assert len(bench.service.runs) == 4
    assert bench.service.most_at_once == 1


def test_a_retry_after_a_dead_process_reattaches_to_its_runs(bench: Bench) -> None:
    """The second run is live when the process dies; the next try follows it."""
    bench.service.plans.extend([Plan(), Plan(looks=8)])
    outer = Outer(does=lambda context: [submit(name).execute(context) for name in "ab"])
    kill_at_look(bench, 4)
    with pytest.raises(Died), dying_by_signal():
        outer.execute(begin(bench, outer, retries=1))
    bench.service.hook = None
    outputs = outer.execute(begin(bench, outer, try_number=2, retries=1))
    assert outputs == ["output of 1001", "output of 1002"]
    assert len(bench.service.runs) == 2
    assert bench.service.count("runs/cancel") == 0


def test_copies_of_the_context_count_together(bench: Bench) -> None:
    """Python functions get a copy of the context at each call."""
    copied: Any = dict
    outer = Outer(does=lambda context: [submit().execute(copied(context)) for _ in range(3)])
    outer.execute(begin(bench, outer))
    assert len(set(tokens(bench))) == 3


@in_threads
def test_a_hundred_threads_share_no_token(bench: Bench) -> None:
    """A task that executes operators in threads."""

    def many(context: Any) -> list[Any]:
        with ThreadPoolExecutor(20) as pool:
            return list(pool.map(lambda _: submit().execute(context), range(100)))

    outer = Outer(does=many)
    outputs = outer.execute(begin(bench, outer))
    assert len(set(outputs)) == len(set(tokens(bench))) == 100


def test_other_tasks_and_map_indexes_share_no_token(bench: Bench) -> None:
    """The task that executes the operators is a part of each token."""
    outer = Outer(does=lambda context: submit().execute(context))
    for facts in (
        {},
        {"task_id": "other"},
        {"map_index": 0},
        {"map_index": 1},
        {"task_id": "part"},
    ):
        context = begin(bench, outer)
        vars(context["ti"]).update(facts)
        outer.execute(context)
    assert len(set(tokens(bench))) == 5


@pytest.mark.parametrize("make", [submit, run_now])
def test_a_nested_operator_waits_on_the_worker(bench: Bench, make: Any) -> None:
    """A deferral would resume the task's own operator, which knows nothing of the run."""
    outer = Outer(does=lambda context: make(deferrable=True).execute(context))
    assert outer.execute(begin(bench, outer)) == "output of 1001"
    assert "Waiting on the worker in spite of deferrable" in "\n".join(bench.lines(logging.INFO))
    own = make("work", deferrable=True)
    with pytest.raises(TaskDeferred):
        own.execute(begin(bench, own))


@pytest.mark.parametrize("deferrable", [False, True])
def test_nested_sensors(bench: Bench, deferrable: bool) -> None:
    """Each waits for its run on the worker, and returns its output."""

    def launch_and_wait(context: Any) -> list[Any]:
        for _ in range(2):
            submit(wait_for_termination=False).execute(context)
        return [
            Sensor(
                task_id="wait", run_id=run_id, poke_interval=0.01, deferrable=deferrable
            ).execute(context)
            for run_id in (1001, 1002)
        ]

    outer = Outer(does=launch_and_wait)
    assert outer.execute(begin(bench, outer)) == ["output of 1001", "output of 1002"]


def kill_at_look(bench: Bench, number: int) -> None:
    """Kill the task as the service gets the look of this number."""

    def kill(seen: Seen, moment: str) -> bool:
        polled = (seen.endpoint, moment) == ("runs/get", "received")
        if polled and bench.service.count("runs/get") == number:
            os.kill(os.getpid(), signal.SIGUSR1)
        return False

    bench.service.hook = kill


def test_killed_while_the_second_of_three_waits(bench: Bench) -> None:
    """Its run is canceled, the first one has ended, the third is not launched."""
    bench.service.plans.extend([Plan(looks=1), Plan(looks=FOREVER)])
    outer = Outer(does=lambda context: [submit(name).execute(context) for name in "abc"])
    kill_at_look(bench, 4)
    with killed_by_signal(outer), pytest.raises(KilledError):
        outer.execute(begin(bench, outer))
    assert [run.result for run in bench.service.runs.values()] == ["SUCCESS", "CANCELED"]
    assert outer.kills == 1


def test_nothing_is_launched_after_a_kill(bench: Bench) -> None:
    """Airflow 3 lets the process go on, here between two operators."""

    def killed_between(context: Any) -> None:
        submit("a").execute(context)
        outer.on_kill()
        submit("b").execute(context)

    outer = Outer(does=killed_between)
    with pytest.raises(AirflowException, match="was killed"):
        outer.execute(begin(bench, outer))
    assert len(bench.service.runs) == 1


@in_threads
def test_killed_with_several_live_runs(bench: Bench) -> None:
    """All that are waited for in threads are canceled, and none that is not waited for."""
    bench.service.plan = Plan(looks=FOREVER)
    # Those that are not waited for, then one that ends while the others wait.
    bench.service.plans.extend([bench.service.plan] * 2 + [Plan(looks=3)])
    are_launched = threading.Event()

    def notice(_seen: Seen, _moment: str) -> bool:
        if len(bench.service.runs) == 7 and bench.service.count("runs/get-output"):
            are_launched.set()
        return False

    bench.service.hook = notice

    def many(context: Any) -> None:
        submit("left", wait_for_termination=False).execute(context)
        submit("kept", cancel_on_kill=False, wait_for_termination=False).execute(context)
        # Equal for Airflow, since they have one task_id.
        operators = [submit("same") for _ in range(5)]
        with ThreadPoolExecutor(5) as pool:
            waits = [pool.submit(operator.execute, context) for operator in operators]
            assert are_launched.wait(30)
            os.kill(os.getpid(), signal.SIGUSR1)
            for wait in waits:
                wait.result()

    outer = Outer(does=many)
    with killed_by_signal(outer), pytest.raises((KilledError, AirflowException)):
        outer.execute(begin(bench, outer))
    results = [run.result for run in bench.service.runs.values()]
    assert results == [None, None, "SUCCESS", *["CANCELED"] * 4]


@pytest.mark.parametrize("callback", [None, "one", "several"])
def test_a_task_that_fails_for_good_leaves_no_run(bench: Bench, callback: str | None) -> None:
    """An operator that cannot follow its run any more; the task's own callbacks are called, too."""
    called: list[Any] = []
    theirs: Any = {None: None, "one": called.append, "several": [called.append] * 2}[callback]
    bench.service.plan = Plan(looks=FOREVER)
    bench.service.trouble("runs/get", REFUSED, 1)
    outer = Outer(does=lambda context: submit().execute(context), on_failure_callback=theirs)
    context = begin(bench, outer)
    with pytest.raises(AirflowException):
        outer.execute(context)
    assert [run.result for run in bench.service.runs.values()] == [None]
    fail_for_good(outer, context)
    assert [run.result for run in bench.service.runs.values()] == ["CANCELED"]
    assert len(called) == {None: 0, "one": 1, "several": 2}[callback]


def test_a_kill_after_a_caught_error_cancels_its_run(bench: Bench) -> None:
    """A run that could not be followed is live while the same operator waits for another one."""
    bench.service.plan = Plan(looks=FOREVER)
    bench.service.trouble("runs/get", REFUSED, 1)

    class Stubborn(Submit):
        def execute(self, context: Any) -> Any:
            try:
                return super().execute(context)
            except AirflowException:
                return super().execute(context)

    outer = Stubborn(
        task_id="work",
        existing_cluster_id="c",
        notebook_task={"notebook_path": "/a"},
        polling_period_seconds=0.01,
    )
    kill_at_look(bench, 4)
    with killed_by_signal(outer), pytest.raises(KilledError):
        outer.execute(begin(bench, outer))
    assert [run.result for run in bench.service.runs.values()] == ["CANCELED", "CANCELED"]


def test_an_attempt_leaves_no_state_in_the_operator(bench: Bench) -> None:
    """Airflow executes a copy; what is hooked there is not in the DAG's own operator."""
    outer = Outer(does=lambda context: submit().execute(context))
    executed = copy.copy(outer)
    executed.does(begin(bench, executed))
    assert "on_kill" in vars(executed)
    assert "on_kill" not in vars(outer)
    assert outer.on_failure_callback != executed.on_failure_callback


class InTwoSteps(Submit):
    """Launches a second run in the process that resumes it after the first one."""

    def execute_complete(self, context: Any, event: Any, *args: Any, **kwargs: Any) -> Any:
        """Conclude the first run; wait for the second one on the worker."""
        first = super().execute_complete(context, event, *args, **kwargs)
        self.deferrable = False
        return [first, super().execute(context)]


@pytest.mark.parametrize("stored", ["today", "before"])
def test_executions_are_counted_on_after_a_deferral(bench: Bench, stored: str) -> None:
    """The process that resumes has executed nothing yet, and yet the second launch is another."""

    def make() -> InTwoSteps:
        return InTwoSteps(
            task_id="work",
            existing_cluster_id="c",
            notebook_task={"notebook_path": "/a"},
            deferrable=True,
            polling_period_seconds=0.01,
        )

    first = make()
    with pytest.raises(TaskDeferred) as deferred:
        first.execute(begin(bench, first))
    kwargs = deferred.value.kwargs or {}
    assert kwargs["execution"] == 0
    if stored == "before":
        del kwargs["execution"]
    resumed = make()
    event = task_event(deferred.value.trigger)
    outputs = resumed.execute_complete(begin(bench, resumed), event, **kwargs)
    assert outputs == ["output of 1001", "output of 1002"]
    assert len(set(tokens(bench))) == 2


def test_an_operator_executed_once_keeps_its_tokens() -> None:
    """An upgrade of this package while a task waits between two tries changes no token."""
    from airflow_jobs_provider.airflow_compat.task_identity import TaskAttempt

    ti = SimpleNamespace(
        dag_id="d", run_id="r", task_id="g.t", map_index=3, try_number=1, max_tries=0
    )
    context: Any = {"ti": ti, "dag_run": None, "task": SimpleNamespace(retries=0)}
    plain = TaskAttempt.from_context(context)
    assert (
        TaskAttempt.from_context(context, operator_task_id="g.t", execution=0).tokens()
        == plain.tokens()
    )
    others = [
        TaskAttempt.from_context(context, operator_task_id=task_id, execution=execution).token(0)
        for task_id, execution in (("g.t", 1), ("g.t", 2), ("t", 0), ("t", 1))
    ]
    assert len({plain.token(0), *others}) == 5


def test_a_run_now_that_cancels_previous_runs(bench: Bench) -> None:
    """Operators of one job, one after the other: each has its own run."""
    outer = Outer(
        does=lambda context: [run_now(cancel_previous_runs=True).execute(context) for _ in range(2)]
    )
    assert outer.execute(begin(bench, outer)) == ["output of 1001", "output of 1002"]

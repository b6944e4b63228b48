"""A DAG run with a workflow group in a whole Airflow, and what the workspace counted for it."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest

from tests.end_to_end.airflow_versions import AIRFLOW_2, AIRFLOW_3_0, RENDERS_IN_TRIGGERER
from tests.end_to_end.cluster_dag_run import ClusterDagRun
from tests.end_to_end.eventually import eventually
from tests.fakes.fake_service import FakeService, JobRun, Run, Seen

__all__ = [
    "FAILED",
    "OTHERS",
    "TEN",
    "BeginGroup",
    "GroupScenario",
    "Planned",
    "at_request",
    "begins",
    "both_succeed",
    "both_waiting",
    "group_task",
    "in_whole_check_on_airflow_3",
    "in_whole_check_on_newest",
    "killed_at",
    "of",
]

GROUP = "g"
# How the ids of the DAGs begin whose tasks need no worker.
WORKERLESS = "workerless"
# The tasks of the large group: those that fail, and the others.
TEN = [f"n{number}" for number in range(10)]
FAILED, OTHERS = TEN[:2], TEN[2:]

# To keep the whole check short, these are thorough on the older lines of Airflow.
in_whole_check_on_newest = (
    pytest.mark.thorough if AIRFLOW_2 or AIRFLOW_3_0 else pytest.mark.standalone
)
in_whole_check_on_airflow_3 = pytest.mark.thorough if AIRFLOW_2 else pytest.mark.standalone


def group_task(name: str) -> str:
    """Return the id of a task of the group ``g``."""
    return f"{GROUP}.{name}"


class GroupScenario:
    """A DAG run whose tasks are those of the group ``g``, and its runs in the workspace.

    The ``databricks_task_key`` of each task is its name.

    :param dag_run: the DAG run.
    :param workspace: the workspace.
    :param record: records what was counted, for the test report.
    """

    def __init__(
        self,
        dag_run: ClusterDagRun,
        workspace: FakeService,
        record: Callable[[str, object], None] = lambda _name, _value: None,
    ) -> None:
        self.dag_run = dag_run
        self.workspace = workspace
        self.record = record
        self.killed: list[int] = []

    @property
    def is_workerless(self) -> bool:
        """Whether the first attempts of all tasks need no worker."""
        return self.dag_run.dag_id.startswith(WORKERLESS)

    @property
    def runs(self) -> list[JobRun]:
        """The group's runs that were launched for the DAG run."""
        runs = self.workspace.runs_of(self.dag_run.run_id)
        return [run for run in runs if isinstance(run, JobRun)]

    @property
    def runs_alone(self) -> list[Run]:
        """The one-time runs of tasks of the group that run outside of its run."""

        def is_own(run: Run) -> bool:
            notebooks = [task.get("notebook_task") or {} for task in run.request.get("tasks") or ()]
            given = [notebook.get("base_parameters") or {} for notebook in notebooks]
            return self.dag_run.run_id in [parameters.get("dag_run") for parameters in given]

        return [run for run in list(self.workspace.runs.values()) if is_own(run)]

    @property
    def repair_requests(self) -> list[list[str]]:
        """The tasks that each request for a repair names, the refused requests included."""
        own = {run.run_id for run in self.runs}
        asked = self.workspace.asked("runs/repair")
        return [sorted(one["rerun_tasks"]) for one in asked if int(one["run_id"]) in own]

    def task(self, name: str) -> ClusterDagRun:
        """Return the DAG run for one of the group's tasks."""
        return self.dag_run.of_task(group_task(name))

    def launched(self, count: int = 1) -> JobRun:
        """Wait until so many runs of the group were launched in all; return the last one."""
        what = f"{self.dag_run.run_id} has launched {count} runs"
        try:
            return eventually(lambda: self.runs if len(self.runs) == count else [], what)[-1]
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.dag_run.logs()}") from None

    def deferred(self, *names: str, times: int = 1, watched: int = 1) -> None:
        """Wait until tasks are deferred, and triggers follow their latest runs.

        :param names: the tasks.
        :param times: how often the latest try of each has left the worker by then.
        :param watched: how many triggerers have followed its latest run by then.
        """
        for name in names:
            task = self.task(name)
            task.until("deferred")
            task.until_left_worker(times=times)
            run = self.runs[-1]
            line = f"Task '{name}' of run {run.run_id} is run {run.latest[name].run_id}"
            what = f"{watched} triggerers: {line}"
            eventually(lambda task=task, line=line: task.logged_by_trigger(line) >= watched, what)  # type: ignore[misc]
        self.dag_run.cluster.until_prepared(self.task(names[0]))

    def watched(self, *names: str, times: int = 1) -> None:
        """Wait until triggers follow the latest runs of tasks.

        :param names: the tasks.
        :param times: how many triggerers have followed each of them by then.
        """
        for name in names:
            task, run = self.task(name), self.runs[-1]
            line = f"Task '{name}' of run {run.run_id} is run {run.latest[name].run_id}"
            try:
                eventually(lambda task=task, line=line: task.logged_by_trigger(line) >= times, line)  # type: ignore[misc]
            except AssertionError as error:
                raise AssertionError(f"{error}\n{self.dag_run.logs()}") from None
        self.dag_run.cluster.until_prepared(self.task(names[0]))

    def waiting(self, *names: str, triggerers: int = 1) -> None:
        """Wait until tasks have left their workers, if any, and triggers follow their latest runs.

        :param names: the tasks.
        :param triggerers: how many triggerers have followed each of the runs by then.
        """
        if self.is_workerless:
            self.watched(*names, times=triggerers)
        else:
            self.deferred(*names, watched=triggerers)

    def worker_processes(self) -> int:
        """Return how many processes of tasks the executor has started for the DAG run."""
        ended = re.compile(rf"(?=.*state success)(?=.*run_id='?{self.dag_run.run_id}'?,)")
        lines = self.dag_run.cluster.log_of("scheduler").splitlines()
        return sum(ended.match(line) is not None for line in lines)

    def followed_on_workers(self, *names: str) -> None:
        """Wait until workers follow the latest runs of tasks."""
        run = self.runs[-1]
        for name in names:
            line = f"Task '{name}' of run {run.run_id} is run {run.latest[name].run_id}"
            try:
                eventually(lambda line=line: line in self.dag_run.logs(), line)  # type: ignore[misc]
            except AssertionError as error:
                raise AssertionError(f"{error}\n{self.dag_run.logs()}") from None

    def run_again(self, *names: str, attempts: int) -> None:
        """Wait until Databricks tasks were started so many times in all."""
        run = self.runs[-1]

        def seen() -> bool:
            return all(run.attempts(name) == attempts for name in names)

        try:
            eventually(seen, f"{names} of {self.dag_run.run_id} have run {attempts} times")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.dag_run.logs()}") from None

    def end(self, *names: str, result: str = "SUCCESS") -> None:
        """End the Databricks tasks."""
        for name in names:
            self.workspace.end_task(self.runs[-1], name, result)

    def until(self, state: str, *names: str) -> None:
        """Wait until the Airflow tasks are in a state."""
        for name in names:
            self.task(name).until(state)

    def clear(self, *names: str) -> None:
        """Clear tasks together."""
        self.dag_run.clear([group_task(name) for name in names])

    def until_canceled(self, *names: str) -> None:
        """Wait until the latest Databricks runs of tasks are canceled."""
        for run in self.runs:
            for name in names:
                task = run.latest[name]
                what = f"{name} of {self.dag_run.run_id} is canceled"
                try:
                    eventually(lambda task=task: task.cancels, what)  # type: ignore[misc]
                except AssertionError as error:
                    raise AssertionError(f"{error}\n{self.dag_run.logs()}") from None

    def kill_worker_at(self, endpoint: str, moment: str, number: int = 1) -> None:
        """Let a worker be killed whose task sends such a request of this DAG run, once.

        :param endpoint: the endpoint.
        :param moment: ``received``, or ``handled`` for after the service has done it.
        :param number: of the request among those of workers; default the first one.
        """
        one_at_a_time, numbers = threading.Lock(), count(1)

        def hook(seen: Seen, when: str) -> bool:
            if (seen.endpoint, when) != (endpoint, moment) or not self._is_own(seen.parameters):
                return False
            with one_at_a_time:
                if self.killed:
                    return False
                pid = self.dag_run.cluster.task_process(seen.client_port)
                if pid is None:
                    return False  # a trigger's request
                if next(numbers) != number:
                    return False
                self.dag_run.cluster.kill_worker(pid)
                self.killed.append(pid)
            return True

        self.workspace.hooks.append(hook)

    def until_killed(self) -> None:
        """Wait until the worker is killed."""
        eventually(lambda: self.killed, f"a worker of {self.dag_run.run_id} is killed")

    def _is_own(self, parameters: dict[str, Any]) -> bool:
        """Whether a request is about a run of this DAG run."""
        if "run_id" not in parameters:
            return bool(
                (parameters.get("notebook_params") or {}).get("dag_run") == self.dag_run.run_id
            )
        tasks = [task.run_id for run in self.runs for task in run.task_runs]
        return int(parameters["run_id"]) in (*tasks, *(run.run_id for run in self.runs))

    def saw(self, *, runs: int, repairs: int, cancels: int) -> None:
        """Check and note how many runs, repairs and canceled runs or task runs there are."""
        tasks = [task for run in self.runs for task in run.task_runs]
        seen = {
            "runs": len(self.workspace.runs_of(self.dag_run.run_id)),
            "repairs": sum(len(run.repairs) for run in self.runs),
            # Two triggerers may cancel the same run, where a heartbeat was late.
            "cancels": sum(run.cancels > 0 for run in self.runs)
            + sum(task.cancels > 0 for task in tasks),
        }
        for name, value in seen.items():
            self.record(name, value)
        expected = {"runs": runs, "repairs": repairs, "cancels": cancels}
        assert seen == expected, f"{seen} and not {expected}\n{self.dag_run.logs()}"

    def untouched(self, names: Collection[str]) -> None:
        """Check that Airflow and Databricks have executed tasks once."""
        for name in names:
            assert self.runs[-1].attempts(name) == 1
            assert self.task(name).task()["try_number"] == 1


def at_request(
    group: GroupScenario, endpoints: Collection[str], moment: str, act: Callable[[], object]
) -> threading.Event:
    """Let something happen at the first request to any of these endpoints; the event tells that.

    :param group: the only group that sends requests.
    :param endpoints: the endpoints.
    :param moment: ``received``, or ``handled`` for after the service has done it.
    :param act: what happens. The request is not answered.
    """
    done, lock = threading.Event(), threading.Lock()

    def hook(request: Seen, when: str) -> bool:
        if request.endpoint not in endpoints or when != moment:
            return False
        with lock:
            if done.is_set():
                return False
            act()
            done.set()
        return True

    group.workspace.hooks.append(hook)
    return done


BeginGroup = Callable[[str], GroupScenario]


@dataclass(frozen=True)
class Planned:
    """A DAG run that begins before the first test of the module.

    :ivar dag_id: the DAG.
    :ivar kill_at: the request at which a worker is killed: endpoint, moment, and number among
        those of workers.
    """

    dag_id: str
    kill_at: tuple[str, str, int] | None = None

    @property
    def is_possible(self) -> bool:
        """Whether this line of Airflow has the DAG."""
        return RENDERS_IN_TRIGGERER or not self.dag_id.startswith(WORKERLESS)

    def __str__(self) -> str:
        return self.kill_at[1] if self.kill_at else self.dag_id


def begins(planned: Planned | str, *others: object, thorough: bool = False) -> Any:
    """Return the parameters of a test, ``group`` last, whose DAG run begins before all tests.

    :param planned: the DAG run, or its DAG.
    :param others: the values of the other parameters.
    :param thorough: whether the test is thorough with them.
    """
    if isinstance(planned, str):
        planned = Planned(planned)
    marks = [pytest.mark.thorough] if thorough else []
    if not planned.is_possible:
        marks.append(pytest.mark.skip(reason="a worker starts every task of a group"))
    return pytest.param(*others, planned, marks=marks)


def of(*dag_ids: str, thorough: Collection[str] = ()) -> pytest.MarkDecorator:
    """Name the DAGs that a test is about; their runs begin before the first test of the module.

    :param dag_ids: the DAGs. Those without workers need Airflow 3.3.
    :param thorough: further ones, for which the test is thorough.
    """
    begun = [begins(dag_id) for dag_id in dag_ids]
    begun += [begins(dag_id, thorough=True) for dag_id in thorough]
    return pytest.mark.parametrize("group", begun, indirect=True, ids=str)


def killed_at(
    endpoint: str, *moments: str, dag_id: str = "pair_retried", number: int = 1
) -> pytest.MarkDecorator:
    """Name the request at which a worker of the test's DAG run is killed; retries are left.

    :param endpoint: the endpoint.
    :param moments: ``handled``, or ``received`` for before that, which is thorough.
    :param dag_id: the DAG.
    :param number: of the request among those of workers to the endpoint.
    """
    begun = [
        begins(Planned(dag_id, (endpoint, moment, number)), thorough=moment == "received")
        for moment in moments
    ]
    return pytest.mark.parametrize("group", begun, indirect=True, ids=str)


def both_waiting(group: GroupScenario) -> None:
    """Wait until triggers follow both tasks of a pair."""
    group.launched()
    group.waiting("a", "b")


def both_succeed(group: GroupScenario) -> None:
    """Let both tasks of a pair end well."""
    group.end("a", "b")
    group.until("success", "a", "b")

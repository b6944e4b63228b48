"""A DAG run in a whole Airflow, and what the workspace counted for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.end_to_end.airflow_versions import AIRFLOW_2, RENDERS_IN_TRIGGERER
from tests.end_to_end.cluster_dag_run import ClusterDagRun
from tests.end_to_end.eventually import eventually
from tests.fakes.fake_service import FakeService, Run

__all__ = [
    "Begin",
    "BeginAll",
    "Scenario",
    "concluded",
    "failed_and_canceled",
    "of",
    "unrecorded",
    "workerless",
]


def workerless(dag_id: str) -> Any:
    """Return a parameter of a test: a DAG whose task needs no worker, from Airflow 3.3 on.

    They are thorough, to keep the whole check short.
    """
    reason = "a worker launches every run"
    skipped = pytest.mark.skipif(not RENDERS_IN_TRIGGERER, reason=reason)
    return pytest.param(dag_id, marks=[pytest.mark.thorough, skipped])


def of(*dag_ids: Any) -> pytest.MarkDecorator:
    """Name the DAGs that a test is about; their runs begin before the first test of the module."""
    return pytest.mark.parametrize("scenario", dag_ids, indirect=True)


class Scenario:
    """A DAG run, and what the workspace knows of it."""

    def __init__(
        self,
        dag_run: ClusterDagRun,
        workspace: FakeService,
        record: Callable[[str, object], None],
    ) -> None:
        self.dag_run = dag_run
        self.workspace = workspace
        self._record = record

    @property
    def is_workerless(self) -> bool:
        """Whether the triggerer launches the runs, and no worker does anything."""
        return self.dag_run.dag_id.startswith("workerless")

    @property
    def runs(self) -> list[Run]:
        """The runs that were launched for the DAG run."""
        return self.workspace.runs_of(self.dag_run.run_id)

    def running(self, count: int = 1) -> Run:
        """Wait until so many runs were launched in all and the last one goes on; return it."""
        what = f"{self.dag_run.run_id} has launched {count} runs"
        try:
            runs = eventually(lambda: self.runs if len(self.runs) == count else [], what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.dag_run.logs()}") from None
        assert runs[-1].is_active
        return runs[-1]

    def deferred(self, count: int = 1, *, watched: int | None = None) -> Run:
        """Wait until the task is deferred with its run of that number, and a trigger looks at it.

        :param count: runs launched in all.
        :param watched: triggers that have begun in all; by default one for each run.
        """
        run = self.running(count)
        self.dag_run.until("deferred")
        if not self.is_workerless:
            self.dag_run.until_settled(times=count)
        self.dag_run.until_watched(times=count if watched is None else watched)
        looks = run.looks
        eventually(lambda: run.looks > looks, "the trigger looks at the run")
        self.dag_run.cluster.until_prepared(self.dag_run)
        return run

    def cleared(self) -> None:
        """Clear the deferred task, and again if Airflow 2 has failed to start it.

        A process of Airflow 2 that reads the task before its trigger is deleted stores the id of
        the trigger again after that. The database refuses this, as the key of another table.
        """
        count = len(self.runs)
        self.dag_run.clear()
        if not AIRFLOW_2:
            return

        def has_begun() -> bool:
            return len(self.runs) > count or self.dag_run.state_and_try()[0] == "failed"

        eventually(has_begun, f"{self.dag_run.run_id} begins again")
        if len(self.runs) == count:
            self.dag_run.clear()

    def followed(self) -> None:
        """Wait until a later try of a task on a worker looks at the run of the first."""
        run = self.running()
        launched, following = (f"{verb} run {run.run_id}, " for verb in ("Launched", "Following"))

        def is_followed() -> bool:
            logs = self.dag_run.logs()
            _, _, of_later_tries = logs.partition("attempt=2.log")
            # A run that is only a few seconds old when the later try sends its launch counts as
            # launched by it: see docs/metrics.md.
            return following in logs or launched in of_later_tries

        try:
            eventually(is_followed, f"{self.dag_run.run_id}: {following}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.dag_run.logs()}") from None
        looks = run.looks
        eventually(lambda: run.looks > looks, "the try looks at the run")

    def succeed(self) -> None:
        """Let the last run end well, and with it the task."""
        self.workspace.end(self.runs[-1])
        self.dag_run.until("success")

    def all_stopped(self) -> None:
        """Wait until no run goes on."""
        try:
            eventually(lambda: not any(run.is_active for run in self.runs), "all runs have ended")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.dag_run.logs()}") from None

    def seen(self) -> tuple[int, int]:
        """Note and return how many runs the workspace saw, and how many of them were canceled.

        Two triggerers may cancel the same run: Airflow starts a trigger in a second one if the
        first one's heartbeat is late.
        """
        runs, cancels = len(self.runs), sum(run.cancels > 0 for run in self.runs)
        self._record("runs", runs)
        self._record("cancels", cancels)
        return runs, cancels

    def saw(self, *, runs: int, cancels: int) -> None:
        """Check and note how many runs the workspace saw, and how many of them were canceled."""
        assert self.seen() == (runs, cancels), self.dag_run.logs()


Begin = Callable[[str], Scenario]
BeginAll = Callable[..., dict[str, Scenario]]


def concluded(*scenarios: Scenario) -> None:
    """Let the one run of each end well, and its task with it; nobody has canceled anything."""
    for scenario in scenarios:
        scenario.succeed()
        scenario.saw(runs=1, cancels=0)


def failed_and_canceled(scenario: Scenario) -> None:
    """Wait until the task has failed for good, and its one run was canceled."""
    scenario.dag_run.until("failed")
    scenario.all_stopped()
    runs, cancels = scenario.seen()
    assert (runs, cancels > 0) == (1, True), scenario.dag_run.logs()


def unrecorded(name: str, value: object) -> None:
    """Leave what several tests share out of the test report."""

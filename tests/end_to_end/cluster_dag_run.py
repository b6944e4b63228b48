"""A DAG run in a whole Airflow: what users do to it, and what is seen of it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.end_to_end.airflow_versions import AIRFLOW_2
from tests.end_to_end.cluster_database import utc_time
from tests.end_to_end.eventually import PATIENCE_SECONDS, eventually

if TYPE_CHECKING:
    from tests.end_to_end.airflow_cluster import AirflowCluster

__all__ = ["ClusterDagRun"]

OF_TASK = "dag_id = :dag_id and run_id = :run_id and task_id = :task_id"


@dataclass
class ClusterDagRun:
    """A DAG run, and one of its tasks: ``wait`` if it has only one."""

    cluster: AirflowCluster
    dag_id: str
    run_id: str
    date: str
    task_id: str = "wait"
    _path: str = field(init=False)

    def __post_init__(self) -> None:
        self._path = f"/dags/{self.dag_id}/dagRuns/{self.run_id}"

    def of_task(self, task_id: str) -> ClusterDagRun:
        """Return the same DAG run, for another of its tasks."""
        return ClusterDagRun(self.cluster, self.dag_id, self.run_id, self.date, task_id)

    def task(self, map_index: int = -1) -> dict[str, Any]:
        """Return the task instance as Airflow's API has it."""
        return self.cluster.ask("GET", self._task_path(map_index))

    def state_and_try(self, map_index: int = -1) -> tuple[str, int]:
        """Return the task's state and its try's number; "missing" and 0 before there is one."""
        query = f"select state, try_number from task_instance where {OF_TASK} and map_index = :at"
        for state, number in self.cluster.rows(query, **self._key, at=map_index):
            return str(state), int(number)
        return "missing", 0

    def triggerer_id(self) -> int:
        """Return the triggerer that the task's trigger is assigned to; -1 if there is none."""
        query = (
            "select triggerer_id from trigger where triggerer_id is not null"
            f" and id in (select trigger_id from task_instance where {OF_TASK})"
        )
        return max((int(number) for (number,) in self.cluster.rows(query, **self._key)), default=-1)

    def until(self, state: str, *, map_index: int = -1, try_number: int | None = None) -> None:
        """Wait until the task is in a state."""

        def is_so() -> bool:
            found, number = self.state_and_try(map_index)
            seen.append(f"{found} at try {number}")
            return found == state and try_number in (None, number)

        seen: list[str] = []
        try:
            eventually(is_so, f"{self.run_id} is {state}")
        except AssertionError as error:
            raise AssertionError(f"{error}, but {seen[-1]}\n{self.logs()}") from None

    def times_watched(self) -> int:
        """Return how many triggers have begun for the task, the mapped ones included."""
        folder = self.cluster.home if AIRFLOW_2 else self._log_folder()
        files = folder.glob("triggerer-*.log" if AIRFLOW_2 else "**/*.trigger.*.log")
        begun = re.compile(rf"trigger {self.dag_id}/{self.run_id}/{self.task_id}/.* starting")
        texts = (file.read_text(errors="replace") for file in files)
        return sum(len(begun.findall(text)) for text in texts)

    def until_watched(self, *, times: int = 1, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until so many triggers have begun for the task, the mapped ones included."""
        try:
            eventually(lambda: self.times_watched() >= times, f"{self.run_id} is watched", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.logs()}") from None

    def until_settled(self, *, times: int = 1, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until the scheduler knows that the task has left the worker so many times.

        Airflow takes late news of that for the end of the next try, if there is one by then, and
        fails the task.
        """

        def settled() -> int:
            tries = set()
            for line in self.cluster.log_of("scheduler").splitlines():
                # A try that resumed, and failed, may be told late, when the next one is deferred.
                finished = "TaskInstance Finished" in line and "state=deferred" in line
                # Airflow 3 skips the news, for good, while another transaction has the row.
                told = not AIRFLOW_2 and "Received executor event with state success" in line
                mine = rf"task_id='?{re.escape(self.task_id)}'?, run_id='?{self.run_id}'?,"
                if (finished or told) and re.search(mine, line):
                    tries.add(frozenset(re.findall(r" (map_index|try_number)=(-?\d+)", line)))
            return len(tries)

        try:
            eventually(lambda: settled() >= times, f"{self.run_id} has left the worker", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}: {settled()} of {times} times") from None

    def until_left_worker(self, *, times: int = 1) -> None:
        """Wait until the scheduler knows that the task's latest try has left the worker.

        :param times: how often: a try may defer, resume, and defer again.
        """
        # Airflow 3 tells some ends in the second way only. Airflow 2 tells all in the first.
        told = "TaskInstance Finished.* state=deferred" if AIRFLOW_2 else "state success"
        _, number = self.state_and_try()
        lines = re.compile(
            rf"(?=.*{told})(?=.*task_id='?{re.escape(self.task_id)}'?,)"
            rf"(?=.*run_id='?{self.run_id}'?,)(?=.*try_number={number}\b)"
        )

        def ended() -> int:
            found = self.cluster.log_of("scheduler").splitlines()
            return sum(lines.match(line) is not None for line in found)

        what = f"try {number} of {self.task_id} of {self.run_id} has left the worker"
        eventually(lambda: ended() >= times, what)

    def logged_by_trigger(self, text: str) -> int:
        """Return how many triggerers have logged a text for a trigger of the DAG run."""
        # Airflow 2 may log it in either place, see AirflowCluster.logged_by_triggers.
        of_triggers = self._log_folder().glob("**/*.trigger.*.log")
        of_triggerers = self.cluster.home.glob("triggerer-*.log")
        return max(
            sum(text in file.read_text(errors="replace") for file in files)
            for files in (of_triggers, of_triggerers)
        )

    def xcom(self, key: str) -> str:
        """Wait for an XCom of the task and return it."""
        eventually(lambda: key in self.xcom_keys(), f"{self.run_id} has pushed {key}")
        path = f"{self._task_path(-1)}/xcomEntries/{key}"
        return str(self.cluster.ask("GET", path)["value"])

    def xcom_keys(self) -> set[str]:
        """Return the keys of the task's XComs."""
        query = f"select key from xcom where {OF_TASK} and map_index = -1"
        return {str(key) for (key,) in self.cluster.rows(query, **self._key)}

    def xcoms(self) -> dict[int, dict[str, Any]]:
        """Return the task's XComs by map index and key."""
        query = f"select map_index, key, value from xcom where {OF_TASK}"
        found: dict[int, dict[str, Any]] = {}
        for map_index, key, value in self.cluster.rows(query, **self._key):
            found.setdefault(int(map_index), {})[str(key)] = _decoded(value)
        return found

    def xcom_times(self, key: str) -> dict[int, float]:
        """Return when an XCom was stored, by map index, in seconds since the epoch."""
        query = f"select map_index, timestamp from xcom where {OF_TASK} and key = :key"
        rows = self.cluster.rows(query, **self._key, key=key)
        return {int(map_index): utc_time(stored).timestamp() for map_index, stored in rows}

    def clear(
        self,
        task_ids: Sequence[str] = (),
        *,
        only_failed: bool = False,
        map_index: int | None = None,
    ) -> None:
        """Clear the task, or one instance of it (Airflow 3), or these tasks together."""
        task_ids = task_ids or [self.task_id]
        if AIRFLOW_2:
            # Its API does not clear a task that is at work on a worker; its UI and its command do.
            options = ["--yes", "--task-regex", f"^({'|'.join(map(re.escape, task_ids))})$"]
            options += ["--start-date", self.date, "--end-date", self.date]
            options += ["--only-failed"] if only_failed else []
            self.cluster.command("tasks", "clear", *options, self.dag_id)
            return
        body = {
            "dry_run": False,
            "dag_run_id": self.run_id,
            "task_ids": (
                list(task_ids) if map_index is None else [[one, map_index] for one in task_ids]
            ),
            "only_failed": only_failed,
            "reset_dag_runs": True,
        }
        self.cluster.ask("POST", f"/dags/{self.dag_id}/clearTaskInstances", body)

    def mark(self, state: str, *, map_index: int = -1) -> None:
        """Mark the task failed or success."""
        body: dict[str, Any] = {"new_state": state}
        if AIRFLOW_2:
            body["dry_run"] = False
        self.cluster.ask("PATCH", self._task_path(map_index), body)

    def state(self) -> str:
        """Return the state of the whole DAG run."""
        query = "select state from dag_run where dag_id = :dag_id and run_id = :run_id"
        ((state,),) = self.cluster.rows(query, dag_id=self.dag_id, run_id=self.run_id)
        return str(state)

    def states(self) -> dict[str, int]:
        """Return how many of its task instances are in each state."""
        query = (
            "select state, count(*) from task_instance"
            " where dag_id = :dag_id and run_id = :run_id group by state"
        )
        rows = self.cluster.rows(query, dag_id=self.dag_id, run_id=self.run_id)
        return {str(state): int(count) for state, count in rows}

    def until_over(self, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until the whole DAG run has ended.

        Cleared in the moment before, it ends nevertheless, and its cleared task never begins.
        """
        ended = ("success", "failed")
        eventually(lambda: self.state() in ended, f"{self.run_id} is over", seconds)

    def mark_all(self, state: str) -> None:
        """Mark the whole DAG run failed or success."""
        self.cluster.ask("PATCH", self._path, {"state": state})

    def delete(self) -> None:
        """Delete the DAG run."""
        self.cluster.ask("DELETE", self._path)

    def pid(self, *, map_index: int = -1) -> int:
        """Return the process that executes the task, as it noted itself."""
        mapped = f"_{map_index}" if map_index >= 0 else ""
        return int((self.cluster.home / f"{self.run_id}{mapped}.pid").read_text())

    def logs(self) -> str:
        """Return all that the tries of the task logged."""
        files = sorted(self._log_folder().glob("**/*.log"))
        return "\n".join(f"== {file}\n{file.read_text(errors='replace')}" for file in files)

    def _log_folder(self) -> Path:
        return self.cluster.home / "logs" / f"dag_id={self.dag_id}" / f"run_id={self.run_id}"

    @property
    def _key(self) -> dict[str, object]:
        """The parameters of OF_TASK."""
        return {"dag_id": self.dag_id, "run_id": self.run_id, "task_id": self.task_id}

    def _task_path(self, map_index: int) -> str:
        mapped = f"/{map_index}" if map_index >= 0 else ""
        return f"{self._path}/taskInstances/{self.task_id}{mapped}"

    def until_over_with(self, states: dict[str, int], seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until so many of its task instances are in these states, and no other."""
        try:
            eventually(lambda: self.states() == states, f"{self.run_id}: {states}", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}, but {self.states()}\n{self.logs()}") from None


def _decoded(value: Any) -> Any:
    """Return the value of an XCom as the database has it: JSON, once or twice over."""
    while isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            break
    return value

"""A workflow group and what Airflow knows of its tasks, for tests of single attempts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_jobs_provider.airflow_compat.lines import airflow_line
from airflow_jobs_provider.airflow_compat.workflow_records import KEY_PREFIX, UNKNOWN_ATTEMPT
from airflow_jobs_provider.api.workflows.job_definitions import definition_digest
from airflow_jobs_provider.operators import workflow_rerun
from airflow_jobs_provider.operators.jobs import DatabricksNotebookOperator
from airflow_jobs_provider.operators.workflow import DatabricksWorkflowTaskGroup
from airflow_jobs_provider.operators.workflow_launch import DEFINITION_KEY
from tests.fakes.scripted_server import ScriptedServer, Step, answer
from tests.helpers.responses import run

__all__ = [
    "CLUSTER",
    "DONE",
    "FAILED",
    "KEYS",
    "REPAIRED",
    "RERUN",
    "Airflow",
    "claimed",
    "other_job",
    "sent",
    "task",
    "whole",
    "with_permissions",
]

KEYS = ("a", "b", "c")

CLUSTER = {"spark_version": "15.4.x-scala2.12", "node_type_id": "i3.xlarge", "num_workers": 1}

REPAIRED = answer({"repair_id": 5})


class Airflow:
    """States and XComs of a DAG run, and one attempt of the task ``etl.a``."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        *,
        keys: Sequence[str] = KEYS,
        chained: bool = False,
        group: dict[str, Any] | None = None,
        workspace_url: str | None = None,
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
            for key in keys:
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
        self.keys = list(keys)
        self.states: dict[str, str | None] = {f"etl.{key}": "success" for key in keys}
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
        self.later = {f"etl.{key}": UNKNOWN_ATTEMPT for key in keys}
        monkeypatch.setattr(
            line, "later_attempt", lambda _attempt, task_id, **_: self.later[task_id]
        )
        # Tasks that tell nothing are not waited for; a test that wants it sets another time.
        monkeypatch.setattr(workflow_rerun, "SETTLE_SECONDS", 0.0)
        self.settings, digest = self.group.launch_task.definition({}, workspace_url=workspace_url)
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
        operator = self.group.members()[self.keys.index(key)]
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


def other_job(airflow: Airflow) -> Step:
    """Answer a list with a job of another definition."""
    settings = {**airflow.settings, "description": "[airflow definition 0123456789abcdef]"}
    return answer({"jobs": [{"job_id": 3, "settings": settings}]})


def claimed(airflow: Airflow, server: ScriptedServer) -> Step:
    """Answer the job as the launch has claimed it."""

    def as_claimed(connection: Any) -> None:
        description = sent(server, "update")[-1]["new_settings"]["description"]
        settings = {**airflow.settings, "description": description}
        answer({"job_id": 3, "settings": settings})(connection)

    return as_claimed


def with_permissions(monkeypatch: pytest.MonkeyPatch) -> Airflow:
    """Make a group whose job has permissions."""
    rights = [{"user_name": "ann@example.com", "permission_level": "CAN_VIEW"}]
    return Airflow(monkeypatch, group={"access_control_list": rights})

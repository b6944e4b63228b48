"""A workflow group without workers: its triggerer, and what its tasks find in Airflow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, BaseOperator

from airflow_jobs_provider.operators.jobs import DatabricksNotebookOperator, DatabricksTaskOperator
from airflow_jobs_provider.operators.workflow import DatabricksWorkflowTaskGroup
from tests.fakes.fake_service import FakeService, JobRun, TaskRun
from tests.helpers.launch_trigger import triggerer_of
from tests.helpers.triggerer import RUN_ID, START, Attempt, Triggerer

CLUSTER = {"spark_version": "15.4.x-scala2.12", "node_type_id": "i3.xlarge", "num_workers": 1}
WITHOUT_WORKERS = {"start_from_trigger": True, "end_from_trigger": True}


def group_dag(
    group: dict[str, Any] | None = None,
    default_args: dict[str, Any] | None = None,
    **arguments: Any,
) -> DAG:
    """Make a DAG with a group: ``load``, after it ``report`` and ``query``."""
    given = {**WITHOUT_WORKERS, "polling_period_seconds": 0.05, "retries": 2, **arguments}
    with DAG("sales", schedule=None, catchup=False, default_args=default_args or {}) as made:
        other = BaseOperator(task_id="other")
        with DatabricksWorkflowTaskGroup(
            group_id="etl",
            **{
                "job_clusters": [{"job_cluster_key": "small", "new_cluster": CLUSTER}],
                "notebook_params": {"day": "{{ ds }}"},
                "notebook_packages": [{"pypi": {"package": "simplejson"}}],
                **(group or {}),
            },
        ):
            load = DatabricksNotebookOperator(
                task_id="load",
                notebook_path="/load",
                notebook_params={"from": other.output, "run": "{{ run_id }}"},
                job_cluster_key="small",
                **given,
            )
            report = DatabricksNotebookOperator(
                task_id="report",
                notebook_path="/report",
                job_cluster_key="small",
                **{"trigger_rule": "all_done", **given},
            )
            query = DatabricksTaskOperator(
                task_id="query",
                task_config={"sql_task": {"file": {"path": "/{{ ds }}"}, "warehouse_id": "w"}},
                **given,
            )
            load >> [report, query]
    return made


class GroupInTriggerer:
    """Starts the tasks of a group in one triggerer.

    :ivar triggerer: the triggerer, with the XComs.
    :ivar dag: the DAG.
    """

    def __init__(
        self,
        dag: Any,
        service: FakeService,
        monkeypatch: pytest.MonkeyPatch,
        launch_task_id: str = "etl.launch",
    ) -> None:
        self.dag, self._service = dag, service
        self.triggerer: Triggerer = triggerer_of(dag, service, monkeypatch, launch_task_id)
        self.xcoms = self.triggerer.xcoms
        self.xcoms["other", "return_value"] = "2026"

    def launch(self, attempt: Attempt | None = None, **kwargs: Any) -> Any:
        """Start the launching task; return its event."""
        return self.start("launch", attempt, **kwargs)

    def start(self, name: str, attempt: Attempt | None = None, **kwargs: Any) -> Any:
        """Start a task of the group; return its event, None where the triggerer has died."""
        self.triggerer.task_id = f"etl.{name}"
        return self.triggerer.start(attempt or Attempt(), **kwargs)

    def start_together(self, *names: str) -> list[Any]:
        """Start tasks of the group at the same time; return their events."""

        async def both(_trigger: Any) -> list[Any]:
            triggers = []
            for number, name in enumerate(names):
                self.triggerer.task_id = f"etl.{name}"
                triggers.append(self.triggerer.trigger(Attempt()))
                triggers[-1].trigger_id = number
            return list(await asyncio.gather(*map(self.triggerer.first_event, triggers)))

        self.triggerer.task_id = f"etl.{names[0]}"
        found: list[Any] = self.triggerer.run(both, Attempt())
        return found

    @property
    def run(self) -> JobRun:
        """The group's only run."""
        (run,) = self._service.runs.values()
        assert isinstance(run, JobRun)
        return run

    def task_run(self, name: str) -> TaskRun:
        """Return the latest run of a task."""
        return self.run.latest[self.dag.get_task(f"etl.{name}").databricks_task_key]

    def record(self, name: str) -> dict[str, Any]:
        """Return what a task has recorded."""
        found: dict[str, Any] = self.xcoms["etl.launch", f"databricks_task_run.etl.{name}"]
        return found

    def worker_context(self, task: Any, try_number: int = 1) -> Any:
        """Make the context of a worker that executes a task."""
        ti = SimpleNamespace(
            dag_id="sales",
            run_id=RUN_ID,
            task_id=task.task_id,
            map_index=-1,
            try_number=try_number,
            max_tries=2,
            start_date=None,
            task=task,
            xcom_push=lambda key, value: self.xcoms.update({(task.task_id, key): value}),
            xcom_pull=lambda task_ids, key, **_: self.xcoms.get((task_ids, key)),
        )
        dag_run = SimpleNamespace(start_date=START, clear_number=0)
        return {
            "ti": ti,
            "task": task,
            "dag_run": dag_run,
            "params": {},
            "run_id": RUN_ID,
            "ds": f"{START:%Y-%m-%d}",
            "ds_nodash": f"{START:%Y%m%d}",
        }

    def of(self, name: str) -> dict[str, Any]:
        """Return the XComs of a task."""
        return {key: value for (task, key), value in self.xcoms.items() if task == f"etl.{name}"}


async def until(has_happened: Callable[[], bool], period: float = 0.01) -> None:
    """Wait until something has happened.

    :param has_happened: returns whether it has.
    :param period: seconds between two calls of it.
    """
    while not has_happened():  # noqa: ASYNC110 - it happens in another thread
        await asyncio.sleep(period)


def mark_while_waiting(group: GroupInTriggerer, name: str, state: str = "success") -> None:
    """Let a user mark a task while its trigger waits.

    :param group: the group.
    :param name: the task.
    :param state: its new state; ``deferred`` if another triggerer has taken it over.
    """

    async def wait_and_kill(trigger: Any) -> None:
        waiting = asyncio.ensure_future(group.triggerer.first_event(trigger))
        await until(lambda: "run_id" in group.of(name))
        await asyncio.sleep(0.05)
        group.triggerer.state = state
        await trigger.on_kill()
        waiting.cancel()

    group.triggerer.task_id = f"etl.{name}"
    group.triggerer.run(wait_and_kill, Attempt())

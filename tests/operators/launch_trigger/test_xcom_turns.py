"""XComs of tasks that start in the triggerer: no DAG waits for those of all tasks of another one.

Airflow stores one XCom after the other, 20 to 50 a second.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from typing import Any

import pytest
from airflow.triggers.base import BaseTrigger

if not hasattr(BaseTrigger, "render_template_fields"):
    pytest.skip("a worker launches every run", allow_module_level=True)

from airflow.providers.common.compat.sdk import DAG

from airflow_jobs_provider.airflow_compat.completion_event import UNSTORED_RUNS
from airflow_jobs_provider.operators.jobs import DatabricksNotebookOperator
from airflow_jobs_provider.operators.workflow import DatabricksWorkflowTaskGroup
from airflow_jobs_provider.triggers.polling.launch_limiter import LAUNCHES_AT_ONCE
from tests.fakes.fake_service import FakeService, Plan, Seen
from tests.helpers.group_in_triggerer import GroupInTriggerer, until
from tests.helpers.launch_trigger import mapped_dag, succeeded, triggerer_of
from tests.helpers.triggerer import Attempt, Triggerer

pytestmark = pytest.mark.slow

INSTANCES = 30
STARTED_LATER = 20
# Fewer than the launches of a second.
STORED_IN_A_SECOND = 5
TASKS = 16


class BusyTriggerer(Triggerer):
    """A triggerer whose main process takes a while for each XCom.

    :ivar storing_seconds: how long.
    :ivar stored: the messages with the XComs, in order.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.storing_seconds = 0.05
        self.stored: list[Any] = []

    def send(self, msg: Any) -> Any:
        """Answer a message of a thread."""
        if type(msg).__name__ == "SetXCom":
            time.sleep(self.storing_seconds)
            self.stored.append(msg)
        return super().send(msg)


def test_the_xcoms_of_another_dag_come_in_turn(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While Airflow stores fewer than are pushed, and a second DAG launches one run."""
    service.plan = Plan(seconds=6, looks=0)
    other = Triggerer(mapped_dag(1, "other"), service)
    triggerer = triggerer_of(mapped_dag(INSTANCES), service, monkeypatch, kind=BusyTriggerer)
    assert isinstance(triggerer, BusyTriggerer)
    launched_after = list[int]()

    def note_launch(seen: Seen, moment: str) -> bool:
        if (seen.endpoint, moment) == ("runs/submit", "handled"):
            path = seen.parameters["notebook_task"]["notebook_path"]
            if path.startswith("/other/"):
                launched_after.append(len(triggerer.stored))
        return False

    service.hooks.append(note_launch)

    async def start_all(first: Any) -> list[Any]:
        is_later, loop = asyncio.Event(), asyncio.get_running_loop()
        service.at("runs/submit", STARTED_LATER, lambda: loop.call_soon_threadsafe(is_later.set))
        triggers = [triggerer.trigger(Attempt(map_index=n)) for n in range(1, INSTANCES)]
        tasks = [asyncio.ensure_future(triggerer.first_event(one)) for one in [first, *triggers]]
        await is_later.wait()
        later = await other.first_event(other.trigger(Attempt(map_index=0)))
        return [later, *await asyncio.gather(*tasks)]

    events = triggerer.run(start_all, Attempt(map_index=0))
    assert all(map(succeeded, events))
    assert len(triggerer.stored) == 4 * (INSTANCES + 1)
    (launched_at,) = launched_after
    others = [at for at, xcom in enumerate(triggerer.stored) if xcom.dag_id == "other"]
    # Each of the first three takes its turn after one of the first DAG, or after the one that is
    # being stored. Before the second one the run is read, within a second and a request.
    assert others[0] - launched_at <= 4
    assert others[1] - others[0] <= 4 + 1.1 / triggerer.storing_seconds
    assert others[2] - others[1] <= 4


def test_which_xcoms_of_a_dag_are_stored_first(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every second one is the id of a run; the tasks that launched first end while others launch.

    If the triggerer dies before an id is stored, and a user clears the task then, nobody knows of
    the run. While many triggers wait, a triggerer starts none of another DAG.
    """
    service.plan = Plan(looks=0)
    triggerer = triggerer_of(mapped_dag(TASKS), service, monkeypatch, kind=BusyTriggerer)
    assert isinstance(triggerer, BusyTriggerer)
    triggerer.storing_seconds = 1 / STORED_IN_A_SECOND

    async def start_all(first: Any) -> list[Any]:
        triggers = [triggerer.trigger(Attempt(map_index=n)) for n in range(1, TASKS)]
        return await asyncio.gather(*map(triggerer.first_event, [first, *triggers]))

    assert all(map(succeeded, triggerer.run(start_all, Attempt(map_index=0))))
    places: dict[str, list[int]] = defaultdict(list)
    for place, xcom in enumerate(triggerer.stored):
        places[xcom.key].append(place)
    ids, outputs = places["run_id"], places["return_value"]
    assert len(ids) == len(outputs) == TASKS
    assert all(place <= 2 * number + 1 for number, place in enumerate(ids))
    assert outputs[1] < ids[-1]


def test_no_more_runs_are_launched_than_ids_are_stored(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But a few. If the triggerer dies, the others are known to a user who clears their tasks."""
    monkeypatch.setenv("AIRFLOW__DATABRICKS_JOBS__LAUNCHES_PER_SECOND", "30")
    service.plan = Plan(looks=0)
    triggerer = triggerer_of(mapped_dag(TASKS), service, monkeypatch, kind=BusyTriggerer)
    assert isinstance(triggerer, BusyTriggerer)
    triggerer.storing_seconds = 1 / STORED_IN_A_SECOND
    unknown = list[int]()

    def count_unknown(seen: Seen, moment: str) -> bool:
        if (seen.endpoint, moment) == ("runs/submit", "handled"):
            ids = sum(xcom.key == "run_id" for xcom in triggerer.stored)
            unknown.append(len(service.runs) - ids)
        return False

    service.hooks.append(count_unknown)

    async def start_all(first: Any) -> list[Any]:
        triggers = [triggerer.trigger(Attempt(map_index=n)) for n in range(1, TASKS)]
        return await asyncio.gather(*map(triggerer.first_event, [first, *triggers]))

    assert all(map(succeeded, triggerer.run(start_all, Attempt(map_index=0))))
    assert len(service.runs) == TASKS
    # Those that are being stored, and the launches that are sent at the same time.
    assert max(unknown) <= UNSTORED_RUNS + LAUNCHES_AT_ONCE


def test_a_launch_does_not_wait_for_the_tasks_of_a_group(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does the id of its run. Those of the tasks are known by the launching task's XCom."""
    names = [f"load_{number}" for number in range(TASKS)]
    with (
        DAG("sales", schedule=None, catchup=False) as dag,
        DatabricksWorkflowTaskGroup(group_id="etl"),
    ):
        for name in names:
            DatabricksNotebookOperator(
                task_id=name,
                notebook_path=f"/{name}",
                existing_cluster_id="c",
                start_from_trigger=True,
                end_from_trigger=True,
            )
    group = GroupInTriggerer(dag, service, monkeypatch)
    assert succeeded(group.launch())
    triggerer, other = group.triggerer, Triggerer(mapped_dag(1, "other"), service)
    answer, stored = triggerer._answer, list[tuple[str, str]]()

    def store_slowly(msg: Any) -> Any:
        if type(msg).__name__ == "SetXCom":
            time.sleep(0.1)
            stored.append((msg.dag_id, msg.key))
        return answer(msg)

    monkeypatch.setattr(triggerer, "_answer", store_slowly)

    async def start_all(_trigger: Any) -> None:
        tasks = []
        for name in names:
            triggerer.task_id = f"etl.{name}"
            trigger = triggerer.trigger(Attempt())
            tasks.append(asyncio.ensure_future(triggerer.first_event(trigger)))
        await until(lambda: bool(stored))
        launching = other.first_event(other.trigger(Attempt(map_index=0)))
        tasks.append(asyncio.ensure_future(launching))
        await until(lambda: ("other", "run_id") in stored)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    triggerer.run(start_all, Attempt())
    # Each task of the group stores a record first.
    assert stored.index(("other", "run_id")) < TASKS

"""XComs of tasks that start in the triggerer: no DAG waits for those of all tasks of another one.

Airflow stores one XCom after the other, 20 to 50 a second.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from airflow.triggers.base import BaseTrigger

if not hasattr(BaseTrigger, "render_template_fields"):
    pytest.skip("a worker launches every run", allow_module_level=True)

from tests.fakes.fake_service import FakeService, Plan, Seen
from tests.helpers.launch_trigger import mapped_dag, succeeded, triggerer_of
from tests.helpers.triggerer import Attempt, Triggerer

pytestmark = pytest.mark.slow

INSTANCES = 30
STARTED_LATER = 20
STORING_SECONDS = 0.05


class BusyTriggerer(Triggerer):
    """A triggerer whose main process takes a while for each XCom.

    :ivar stored: the messages with the XComs, in order.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.stored: list[Any] = []

    def send(self, msg: Any) -> Any:
        """Answer a message of a thread."""
        if type(msg).__name__ == "SetXCom":
            time.sleep(STORING_SECONDS)
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
    # being stored. Meanwhile the run is read once.
    assert others[2] - launched_at <= 12


def test_the_id_of_a_run_is_stored_before_other_xcoms(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the triggerer dies before, and a user clears the task then, nobody knows of the run."""
    service.plan = Plan(seconds=6, looks=0)
    triggerer = triggerer_of(mapped_dag(INSTANCES), service, monkeypatch, kind=BusyTriggerer)
    assert isinstance(triggerer, BusyTriggerer)
    launched_after = dict[int, int]()

    def note_launch(seen: Seen, moment: str) -> bool:
        if (seen.endpoint, moment) == ("runs/submit", "handled"):
            path = seen.parameters["notebook_task"]["notebook_path"]
            launched_after[int(path.rpartition("/")[2])] = len(triggerer.stored)
        return False

    service.hooks.append(note_launch)

    async def start_all(first: Any) -> list[Any]:
        triggers = [triggerer.trigger(Attempt(map_index=n)) for n in range(1, INSTANCES)]
        return await asyncio.gather(*map(triggerer.first_event, [first, *triggers]))

    assert all(map(succeeded, triggerer.run(start_all, Attempt(map_index=0))))
    ids = {one.map_index: at for at, one in enumerate(triggerer.stored) if one.key == "run_id"}
    # Another one is being stored, and so may be the ids of runs that were launched just before.
    assert max(ids[index] - at for index, at in launched_after.items()) <= 5

"""Many tasks that start together: what each of them asks of Airflow, and what a pause does."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.triggers.base import BaseTrigger

if not hasattr(BaseTrigger, "render_template_fields"):
    pytest.skip("a worker launches every run", allow_module_level=True)

from airflow_jobs_provider.airflow_compat.triggerer_health import triggerer_health
from tests.fakes.fake_service import FakeService, Plan
from tests.helpers.launch_trigger import mapped_dag, messages, succeeded, triggerer_of
from tests.helpers.triggerer import Attempt, Triggerer

INSTANCES = 20
MANY = 40
PUSHED = ("run_id", "job_id", "run_page_url", "return_value")


class Clock:
    """The clocks of a triggerer, which a test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passed = 0.0
        clock = SimpleNamespace(time=lambda: self.passed, monotonic=lambda: self.passed)
        for name in (
            "airflow_compat.triggerer_health",
            "triggers.outdated",
            "operators.attempt_trigger",
        ):
            monkeypatch.setattr(f"airflow_jobs_provider.{name}.time", clock)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.passed += seconds


@pytest.mark.parametrize("is_answered", [True, False])
def test_only_without_answers_tasks_that_start_together_ask_for_later_attempts(
    is_answered: bool, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their start takes 12 s, and so do the messages of other triggers before theirs."""
    monkeypatch.setenv("AIRFLOW__DATABRICKS_JOBS__LAUNCHES_PER_SECOND", "30")
    triggerer = triggerer_of(mapped_dag(INSTANCES), service, monkeypatch)
    clock = Clock(monkeypatch)
    # Each is answered 12 s after it was sent.
    waiting = triggerer._pending
    waiting.update(dict.fromkeys(range(INSTANCES)))

    async def start_all(first: Any) -> list[Any]:
        tasks = [asyncio.ensure_future(triggerer.first_event(first))]
        for index in range(1, INSTANCES):
            clock.advance(0.6)
            if is_answered:
                del waiting[min(waiting)]
                waiting[index + INSTANCES] = None
            trigger = triggerer.trigger(Attempt(map_index=index))
            tasks.append(asyncio.ensure_future(triggerer.first_event(trigger)))
            await asyncio.sleep(0)
        waiting.clear()
        return await asyncio.gather(*tasks)

    events = triggerer.run(start_all, Attempt(map_index=0))
    assert all(map(succeeded, events))
    sent = Counter(messages(triggerer))
    questions = sent.pop("GetXCom launch_record", 0)
    assert sent == {f"SetXCom {key}": INSTANCES for key in PUSHED}
    assert bool(questions) is not is_answered


def test_after_a_pause_few_of_many_tasks_ask_for_later_attempts(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new triggerer gets its first answer after 7 s. Those that launch later do not ask."""
    monkeypatch.setenv("AIRFLOW__DATABRICKS_JOBS__LAUNCHES_PER_SECOND", "30")
    triggerer = triggerer_of(mapped_dag(MANY), service, monkeypatch)
    clock = Clock(monkeypatch)
    for number in (3, 11, 19):
        service.at("runs/submit", number, lambda: clock.advance(3))

    async def start_all(first: Any) -> list[Any]:
        triggers = [triggerer.trigger(Attempt(map_index=index)) for index in range(1, MANY)]
        triggerer._pending[0] = None
        for _second in range(7):
            clock.advance(1)
            triggerer_health().may_have_paused(0)
        triggerer._pending.clear()
        assert triggerer_health().may_have_paused(0)
        return await asyncio.gather(*map(triggerer.first_event, [first, *triggers]))

    events = triggerer.run(start_all, Attempt(map_index=0))
    assert all(map(succeeded, events))
    sent = Counter(messages(triggerer))
    # Four launches are under way at the same time.
    assert 0 < sent.pop("GetXCom launch_record") <= 19 + 4
    assert sent == {f"SetXCom {key}": MANY for key in PUSHED}


def test_a_task_that_waits_for_its_turn_during_a_pause_launches_nothing(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later attempt has begun in another triggerer; the tasks after it are not held up."""
    monkeypatch.setenv("AIRFLOW__DATABRICKS_JOBS__LAUNCHES_PER_SECOND", "1")
    triggerer = triggerer_of(mapped_dag(INSTANCES), service, monkeypatch)
    clock = Clock(monkeypatch)
    indices, others = range(7), {6}

    def freeze() -> None:
        (launched,) = service.asked("runs/submit")
        others.add(int(launched["notebook_task"]["notebook_path"].removeprefix("/sales/")))
        for index in set(indices) - others:
            record = {"carrier": "", "first_try": 2, "try_number": 2, "handed_over": False}
            triggerer.xcoms[f"etl[{index}]", "launch_record"] = record
        clock.advance(6)

    service.at("runs/submit", 1, freeze)

    async def start_all(first: Any) -> Any:
        triggers = [triggerer.trigger(Attempt(map_index=index)) for index in indices[1:]]
        tasks = [asyncio.ensure_future(triggerer.first_event(one)) for one in [first, *triggers]]
        # The last one waits behind those that launch nothing, of which four would be in flight.
        event = await tasks[6]
        for index in set(indices) - others:
            assert not tasks[index].done()
            tasks[index].cancel()
        return event

    assert succeeded(triggerer.run(start_all, Attempt(map_index=0)))
    paths = {run.request["notebook_task"]["notebook_path"] for run in service.runs.values()}
    assert paths == {f"/sales/{index}" for index in others}


class PausedTriggerer(Triggerer):
    """A triggerer that is paused as it stores an XCom with a key for the first time.

    :ivar key: the key.
    :ivar pause: is called with the map index of the task whose XCom it is; None once it was paused.
    """

    key = ""
    pause: Callable[[int], None] | None = None

    def send(self, msg: Any) -> Any:
        """Answer a message of a thread."""
        is_of_key = type(msg).__name__ == "SetXCom" and msg.key == self.key
        if self.pause is not None and is_of_key:
            pause, self.pause = self.pause, None
            pause(msg.map_index)
        return super().send(msg)


@pytest.mark.parametrize(
    ("key", "endpoint"), [("run_id", "runs/submit"), ("return_value", "runs/get-output")]
)
def test_a_task_that_waits_for_its_turn_during_a_pause_pushes_nothing(
    key: str, endpoint: str, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later attempt has pushed its own XComs; the tasks after it are not held up."""
    monkeypatch.setenv("AIRFLOW__DATABRICKS_JOBS__LAUNCHES_PER_SECOND", "30")
    # The runs are read within a second after their launch, before the first one ends.
    service.plan = Plan(seconds=2, looks=0)
    triggerer = triggerer_of(mapped_dag(3), service, monkeypatch, kind=PausedTriggerer)
    assert isinstance(triggerer, PausedTriggerer)
    clock, outdated = Clock(monkeypatch), list[int]()

    def freeze(index: int) -> None:
        deadline = time.monotonic() + 10
        while service.count(endpoint) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.3)  # The others have read their responses, and wait for their turns.
        outdated.append((index + 1) % 3)
        record = {"carrier": "", "first_try": 2, "try_number": 2, "handed_over": False}
        for name, value in (("launch_record", record), (key, "of the later attempt")):
            triggerer.xcoms[f"etl[{outdated[0]}]", name] = value
        clock.advance(6)

    triggerer.key, triggerer.pause = key, freeze

    async def start_all(first: Any) -> None:
        triggers = [first, *(triggerer.trigger(Attempt(map_index=index)) for index in (1, 2))]
        tasks = [asyncio.ensure_future(triggerer.first_event(one)) for one in triggers]
        ended = asyncio.as_completed(tasks)
        for _other in range(2):
            assert succeeded(await next(ended))
        assert not tasks[outdated[0]].done()
        tasks[outdated[0]].cancel()

    triggerer.run(start_all, Attempt(map_index=0))
    assert triggerer.xcoms[f"etl[{outdated[0]}]", key] == "of the later attempt"


def test_a_task_that_cancels_the_run_of_an_earlier_attempt_holds_up_no_other_one(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workspace does not answer. The triggerer is new, and has stored no XCom yet."""
    triggerer = triggerer_of(mapped_dag(2), service, monkeypatch)
    triggerer.stores_xcoms = False
    service.start(7)
    triggerer.xcoms["etl[0]", "run_id"] = 7

    async def start_both(cleared: Any) -> list[Any]:
        other = triggerer.trigger(Attempt(map_index=1))
        with service.holding("runs/get") as asked:
            tasks = [asyncio.ensure_future(triggerer.first_event(cleared))]
            assert await asyncio.to_thread(asked.wait, 10)
            tasks.append(asyncio.ensure_future(triggerer.first_event(other)))
            async with asyncio.timeout(10):
                while not service.count("runs/submit"):  # noqa: ASYNC110 - in another thread
                    await asyncio.sleep(0.01)
        return await asyncio.gather(*tasks)

    assert all(map(succeeded, triggerer.run(start_both, Attempt(2, map_index=0))))
    assert service.runs[7].cancels == 1

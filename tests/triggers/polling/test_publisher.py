"""Publishing the runs that were read: which ones, when they are read next, what is recorded."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_jobs_provider.api.errors import ServerError
from airflow_jobs_provider.api.retry import RetryPolicy
from airflow_jobs_provider.triggers.polling import publisher as publisher_module
from airflow_jobs_provider.triggers.polling.list_pages import PageRuns
from airflow_jobs_provider.triggers.polling.outages import UnreadableRuns
from airflow_jobs_provider.triggers.polling.publisher import (
    LOOK_AT_ONCE,
    PUBLISH_AT_ONCE,
    Publisher,
)
from airflow_jobs_provider.triggers.polling.waiters import PartialRun, Waiter, Waiters

NOW = 1_000.0
ENDED = {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"}
RUNNING = {"life_cycle_state": "RUNNING"}
LACKING = {"format": "MULTI_TASK"}


class Bench:
    """A publisher, its waiters, and how often it told that the API answers."""

    def __init__(self) -> None:
        self.waiters, self.unreadable, self.answers = Waiters(), UnreadableRuns(), 0
        sender: Any = SimpleNamespace(record_answer=self._record_answer)
        self.publisher = Publisher(self.waiters, sender, self.unreadable)

    def _record_answer(self) -> None:
        self.answers += 1

    def wait(self, *run_ids: int, period: float = 100) -> list[Waiter]:
        """Wait for changes of runs that are RUNNING."""
        made = []
        for run_id in run_ids:
            future = asyncio.get_running_loop().create_future()
            one = Waiter(run_id, period, NOW, float("inf"), ("RUNNING", None), future)
            self.waiters.add(one)
            made.append(one)
        return made


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A publisher at a fixed time, with no chance in it."""
    monkeypatch.setattr(publisher_module, "time", SimpleNamespace(monotonic=lambda: NOW))
    uniform = {"uniform": lambda least, most: (least + most) / 2}
    monkeypatch.setattr(publisher_module, "random", SimpleNamespace(**uniform))
    return Bench()


def run(run_id: int, state: Any = RUNNING, **more: Any) -> Any:
    """Make a run as a list shows it."""
    return {"run_id": run_id, "state": state, **more}


async def test_a_run_that_was_read_by_its_id_is_published(bench: Bench) -> None:
    """To the waiter of the id that was sent; it is read again after the whole period."""
    (waiter,) = bench.wait(7)
    bench.unreadable.record_failure({7: ServerError(status=503)}, RetryPolicy(no_deadline=True))
    bench.publisher.publish_run(7, run(7))
    assert not waiter.future.done()
    assert waiter.due == NOW + 100
    assert 7 not in bench.unreadable
    ended = run(7, ENDED)
    bench.publisher.publish_run(7, ended)
    assert await waiter.future is ended
    assert bench.answers == 2
    assert list(bench.publisher.latest_run_ids()) == [7, 7]


async def test_the_latest_runs_come_first(bench: Bench) -> None:
    """Twenty are remembered."""
    for run_id in range(1, 26):
        bench.publisher.publish_run(run_id, run(run_id))
    assert list(bench.publisher.latest_run_ids()) == list(range(25, 5, -1))


async def test_the_runs_of_a_page_are_published_to_their_waiters(bench: Bench) -> None:
    """Runs that nobody waits for are passed over, also as the latest."""
    first, second = bench.wait(7, 8)
    bench.unreadable.record_failure({7: ServerError(status=503)}, RetryPolicy(no_deadline=True))
    page = [run(9, ENDED), run(8), run(7, ENDED)]
    assert await bench.publisher.publish_page(page) == {7, 8}
    assert first.future.result() is page[2]
    assert not second.future.done()
    assert list(bench.publisher.latest_run_ids()) == [7, 8]
    assert 7 not in bench.unreadable
    assert bench.answers == 1


async def test_a_page_without_a_waited_run_is_an_answer_all_the_same(bench: Bench) -> None:
    """The API answers."""
    assert await bench.publisher.publish_page([]) == set()
    assert bench.answers == 1


@pytest.mark.parametrize(("poll_seconds", "next_read"), [(0, 91), (11, 80), (21, 70), (60, 70)])
async def test_a_listed_run_is_read_early_by_what_a_poll_takes(
    bench: Bench, poll_seconds: float, next_read: float
) -> None:
    """But not after less than 70 % of its period."""
    (waiter,) = bench.wait(7)
    bench.publisher.poll_seconds = poll_seconds
    await bench.publisher.publish_page([run(7)])
    assert waiter.due == pytest.approx(NOW + next_read)


@pytest.mark.parametrize(("age", "next_read"), [(1, 91), (20, 80), (100, 0), (300, 0)])
async def test_a_run_on_a_late_page_is_read_again_within_a_period_of_its_request(
    bench: Bench, age: float, next_read: float
) -> None:
    """The page shows nothing of what happened since it was asked for."""
    first, second = bench.wait(7, 8)
    await bench.publisher.publish_page(PageRuns([run(7)], NOW - age))
    bench.publisher.postpone([8])
    assert (first.due, second.due) == pytest.approx((NOW + next_read, NOW + next_read))


async def test_before_the_first_poll_has_ended_no_time_is_taken_off(bench: Bench) -> None:
    """How long one takes is not known yet."""
    (waiter,) = bench.wait(7)
    await bench.publisher.publish_page([run(7)])
    assert waiter.due == pytest.approx(NOW + 91)


async def test_pollers_drift_apart(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The part of the period is chosen from 85 % to 97 %, once for a page."""
    asked = []

    def uniform(least: float, most: float) -> float:
        asked.append((least, most))
        return least

    monkeypatch.setattr(publisher_module, "random", SimpleNamespace(uniform=uniform))
    bench.wait(7, 8)
    await bench.publisher.publish_page([run(7), run(8)])
    assert asked == [(0.85, 0.97)]


@pytest.mark.parametrize(
    ("more", "is_published"),
    [
        ({}, True),
        ({"format": "SINGLE_TASK"}, True),
        ({"format": "MULTI_TASK"}, False),
        ({"format": "MULTI_TASK", "tasks": []}, False),
        ({"format": "MULTI_TASK", "tasks": [{"run_id": 71, "task_key": "a"}]}, True),
        (
            {
                "format": "MULTI_TASK",
                "tasks": [{"run_id": 71, "task_key": "a"}],
                "has_more": True,
            },
            False,
        ),
    ],
)
async def test_a_run_that_ended_is_published_with_its_tasks_only(
    bench: Bench, more: dict[str, Any], is_published: bool
) -> None:
    """A list may leave tasks out: such a run is read by its id."""
    (waiter,) = bench.wait(7)
    read = await bench.publisher.publish_page([run(7, ENDED, **more)])
    assert (read == {7}, waiter.future.done()) == (is_published, is_published)
    assert await bench.publisher.publish_page([run(7, {"life_cycle_state": "PENDING"}, **more)])


@pytest.mark.parametrize(
    "odd", [{"state": "RUNNING"}, {"state": ENDED, "tasks": 5}, {"state": ENDED, **LACKING}]
)
async def test_a_run_that_is_not_valid_or_complete_is_read_by_its_id(
    bench: Bench, odd: Any
) -> None:
    """The others of the page are published."""
    bench.wait(7, 8)
    page: list[Any] = [{"run_id": 7, **odd}, run(8, ENDED)]
    assert await bench.publisher.publish_page(page) == {8}


async def test_a_part_of_a_run_is_not_published(bench: Bench) -> None:
    """A waiter that came after the page was parsed reads the run by its id."""
    waiter, other = bench.wait(7, 8)
    page: list[Any] = [
        PartialRun(run_id=7, start_time=5),
        PartialRun(run_id=8, start_time=5, state=RUNNING),
    ]
    assert await bench.publisher.publish_page(page) == {8}
    assert not waiter.future.done()
    assert not other.future.done()
    assert other.due > NOW


async def pauses(bench: Bench, page: list[Any]) -> list[int]:
    """Publish a page; return how many waiters had got their runs each time other tasks ran."""
    waiters = bench.wait(*(one["run_id"] for one in page))
    done: list[int] = []

    async def look() -> None:
        while True:
            done.append(sum(one.future.done() for one in waiters))
            await asyncio.sleep(0)

    looking = asyncio.create_task(look())
    assert len(await bench.publisher.publish_page(page)) == len(page)
    looking.cancel()
    return done


async def test_other_tasks_run_between_many_waiters(bench: Bench) -> None:
    """After every 25 that got their run."""
    assert PUBLISH_AT_ONCE == 25
    page = [run(run_id, ENDED) for run_id in range(1, 101)]
    assert await pauses(bench, page) == [25, 50, 75]


async def test_other_tasks_run_between_many_runs_that_have_not_changed(bench: Bench) -> None:
    """After every 250 of them, since a page has a thousand."""
    assert LOOK_AT_ONCE == 250
    assert await pauses(bench, [run(run_id) for run_id in range(1, 1001)]) == [0, 0, 0]

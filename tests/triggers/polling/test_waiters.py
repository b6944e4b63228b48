"""The waits for runs: when each run is due, and which waiter gets it."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Callable
from typing import Any

import pytest

from airflow_jobs_provider.api import endpoints
from airflow_jobs_provider.api.responses import parse_json_object
from airflow_jobs_provider.triggers.polling.waiters import (
    PartialRun,
    Waiter,
    Waiters,
    without_details,
)
from tests.fakes.many_runs import Run

RUNNING, ENDED = ("RUNNING", None), ("TERMINATED", "SUCCESS")
NEVER = float("inf")
RUNS = 1000


def waiter(
    run_id: int = 7, period: float = 10, due: float = 100, report_at: float = NEVER
) -> Waiter:
    """Make a waiter that has seen its run RUNNING; it needs an event loop."""
    future = asyncio.get_running_loop().create_future()
    return Waiter(run_id, period, due, report_at, RUNNING, future)


def waiters_of(*all_of_them: Waiter) -> Waiters:
    """Make the waits of a poller."""
    waiters = Waiters()
    for one in all_of_them:
        waiters.add(one)
    return waiters


async def test_a_waiter_gets_changes_and_reports_that_are_due() -> None:
    """Either state makes a change; a report is due from its time on."""
    one = waiter(report_at=50)
    assert not one.is_waiting_for(RUNNING, 49.9)
    assert one.is_waiting_for(RUNNING, 50)
    assert one.is_waiting_for(ENDED, 0)
    assert one.is_waiting_for(("RUNNING", "SUCCESS"), 0)


async def test_runs_are_waited_for_until_their_last_waiter_is_removed() -> None:
    """Removing says whether the run has others; removing twice does no harm."""
    first, second, other = waiter(), waiter(), waiter(8)
    waiters = waiters_of(first, second, other)
    assert waiters
    assert (len(waiters), set(waiters.run_ids())) == (2, {7, 8})
    assert waiters.remove(first) is True
    assert waiters.remove(first) is True
    assert 7 in waiters
    assert waiters.remove(second) is False
    assert 7 not in waiters
    assert waiters.remove(second) is False
    assert waiters.remove(other) is False
    assert not waiters
    assert len(waiters) == 0


async def test_the_first_due_time_and_the_shortest_period_count() -> None:
    """Of all waiters, and of those of one run."""
    waiters = waiters_of(waiter(period=9, due=90), waiter(period=5, due=80), waiter(8, 7, 70))
    assert (waiters.next_due(), waiters.shortest_period()) == (70, 5)
    assert (waiters.due_time(7), waiters.due_time(8), waiters.due_time(9)) == (80, 70, 0)


async def test_due_runs() -> None:
    """From its due time on; a fraction of its period earlier if asked for."""
    waiters = waiters_of(waiter(7, 10, 100), waiter(8, 20, 105), waiter(9, 10, 200))
    assert waiters.due_runs(99.9, not_before={}) == set()
    assert waiters.due_runs(100, not_before={}) == {7}
    assert waiters.due_runs(94.9, early=0.5, not_before={}) == set()
    assert waiters.due_runs(95, early=0.5, not_before={}) == {7, 8}


async def test_a_run_is_not_read_before_its_earliest_time() -> None:
    """Its waiters are due then, not before; a later due time stays."""
    waiters = waiters_of(waiter(7, 10, 100), waiter(7, 10, 300), waiter(8, 10, 100))
    assert waiters.due_runs(150, not_before={7: 200, 6: 500}) == {8}
    assert waiters.due_time(7) == 200
    assert waiters.due_runs(199, early=0.5, not_before={7: 200}) == {8}
    assert waiters.due_runs(200, not_before={7: 200}) == {7, 8}
    assert sorted(one.due for one in waiters._of(7)) == [200, 300]


async def test_a_listed_run_that_has_not_changed_is_postponed() -> None:
    """For all its waiters; if one of them gets it, for none of them."""
    one, other = waiter(), waiter(period=20, report_at=150)
    due = one.due, other.due
    waiters = waiters_of(one, other)
    assert not waiters.postpone_unchanged(7, ENDED, 149, lambda period: period)
    assert not waiters.postpone_unchanged(7, RUNNING, 150, lambda period: period)
    assert (one.due, other.due) == due
    assert waiters.postpone_unchanged(7, RUNNING, 149, lambda period: period / 2)
    assert (one.due, other.due) == (154, 159)


async def test_a_run_is_published_to_those_for_which_it_has_changed() -> None:
    """Each is due again after its own period; a wait that is done is left alone."""
    changed, reported, done = waiter(), waiter(period=20, report_at=150), waiter()
    done.future.cancel()
    waiters = waiters_of(changed, reported, done)
    run: Any = {"run_id": 7}
    assert not waiters.any_waiting_for(7, RUNNING, 149)
    assert not waiters.any_waiting_for(8, ENDED, 149)
    assert waiters.publish(7, run, RUNNING, 149, lambda period: period / 2) == 0
    assert (changed.due, reported.due, done.due) == (154, 159, 154)
    assert waiters.any_waiting_for(7, RUNNING, 150)
    assert waiters.publish(7, run, RUNNING, 150, lambda period: period) == 1
    assert await reported.future is run
    assert not changed.future.done()
    assert waiters.publish(7, run, ENDED, 151, lambda period: period) == 1
    assert await changed.future is run
    assert waiters.publish(8, run, ENDED, 151, lambda period: period) == 0


async def test_an_error_ends_the_waits_for_its_run_only() -> None:
    """A wait that is done keeps its result."""
    one, other, done = waiter(), waiter(8), waiter()
    done.future.set_result({"run_id": 7})
    waiters = waiters_of(one, other, done)
    waiters.fail(9, ValueError("nobody waits"))
    waiters.fail(7, ValueError("gone"))
    with pytest.raises(ValueError, match="gone"):
        await one.future
    assert await done.future == {"run_id": 7}
    assert not other.future.done()


async def test_an_error_of_all_waits_lets_them_end_first() -> None:
    """Each removes its waiter before the call returns."""
    both = waiter(), waiter(8)
    waiters = waiters_of(*both)

    async def wait(one: Waiter) -> None:
        try:
            await one.future
        finally:
            waiters.remove(one)

    tasks = [asyncio.create_task(wait(one)) for one in both]
    await asyncio.sleep(0)
    async with asyncio.timeout(0.5):
        await waiters.fail_all(ValueError("gone"))
    assert not waiters
    assert all(isinstance(task.exception(), ValueError) for task in tasks)


def test_an_active_run_is_kept_without_details() -> None:
    """But with its state and tasks; a run that has ended is kept whole."""
    details: dict[str, Any] = {"tasks": [1], "cluster_spec": {}, "job_id": 3, "run_name": "r"}
    active: Any = {"run_id": 7, "state": {"life_cycle_state": "RUNNING"}, **details}
    assert without_details(active) == {
        "run_id": 7,
        "state": {"life_cycle_state": "RUNNING"},
        "tasks": [1],
        "job_id": 3,
        "run_name": "r",
    }
    ended: Any = {"run_id": 7, "state": {"life_cycle_state": "TERMINATED"}, **details}
    assert without_details(ended) is ended


STATE = {"life_cycle_state": "RUNNING", "state_message": "In run"}
TERMINATED = {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"}


@pytest.mark.parametrize(
    "run",
    [
        {"run_id": 7, "state": TERMINATED, "start_time": 5, "task": {}},
        {"run_id": "7", "state": TERMINATED, "start_time": 5, "task": {}},
        {"run_id": 7, "state": {"life_cycle_state": "PENDING"}, "task": {}},
        # It is read by its id, since a state of it is no text.
        {"run_id": 7, "state": {"life_cycle_state": 5}},
        {"run_id": 7, "state": "RUNNING"},
        {"run_id": 7},
    ],
)
async def test_a_listed_run_that_a_waiter_gets_is_kept_whole(run: dict[str, Any]) -> None:
    """So is one whose states cannot be read."""
    waiters = waiters_of(waiter(7))
    assert waiters.needed_part(run) is run


async def test_of_a_listed_run_that_no_waiter_gets_a_part_is_kept() -> None:
    """Its state and start, if it is waited for; its start tells how far the list was read."""
    waiters = waiters_of(waiter(7))
    details = {"start_time": 5, "task": {}, "cluster_spec": {}}
    unchanged = waiters.needed_part({"run_id": "7", "state": STATE, **details})
    assert isinstance(unchanged, PartialRun)
    assert unchanged == {"run_id": 7, "state": STATE, "start_time": 5}
    other = waiters.needed_part({"run_id": 8, "state": STATE, **details})
    assert isinstance(other, PartialRun)
    assert other == {"run_id": 8, "start_time": 5}


@pytest.mark.parametrize("is_report", [True, False])
async def test_a_report_or_a_waiter_for_each_read_needs_the_whole_run(is_report: bool) -> None:
    """Although the run has not changed."""
    one = waiter(7, report_at=0.0 if is_report else NEVER)
    one.known = RUNNING if is_report else None
    waiters = waiters_of(waiter(7), one)
    run = {"run_id": 7, "state": STATE, "task": {}}
    assert waiters.needed_part(run) is run


@pytest.mark.parametrize("odd", [None, 7, "run", [], {}, {"run_id": None}, {"run_id": True}])
def test_what_is_listed_and_is_no_run_has_no_id(odd: Any) -> None:
    """The page drops it."""
    kept = Waiters().needed_part(odd)
    assert kept == odd or kept["run_id"] is None


async def test_a_page_of_runs_that_have_not_changed_makes_few_objects() -> None:
    """Two for each run. Ten of them, as the whole page has, would start garbage collections."""

    def objects(parse: Callable[[], Any]) -> int:
        before = gc.get_count()[0]
        page = parse()
        made = gc.get_count()[0] - before
        assert len(page["runs"]) == RUNS
        return made

    runs = [Run(n + 1, 1e9 + n, 2e9).as_json(1.5e9) for n in range(RUNS)]
    body = json.dumps({"runs": runs, "has_more": True}).encode()
    waiters = waiters_of(*(waiter(n + 1) for n in range(RUNS)))
    call = endpoints.list_runs(check_items=False, item_hook=waiters.needed_part)
    gc.disable()
    try:
        assert objects(lambda: json.loads(body)) > 8 * RUNS
        assert objects(lambda: parse_json_object(body, call.item_hook)) < 3 * RUNS
    finally:
        gc.enable()

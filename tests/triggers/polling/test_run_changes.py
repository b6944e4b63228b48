"""Reading what has changed: which pages are read, and what is concluded from them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_jobs_provider.api.errors import (
    ServerError,
)
from tests.helpers.listed_runs import PAGE, PERIOD, ListedRuns

pytestmark = pytest.mark.usefixtures("changes_clock")


@pytest.mark.parametrize("filters", [True, False])
async def test_a_run_that_the_list_of_ended_runs_does_not_have_has_not_ended(
    filters: bool,
) -> None:
    """One page tells of a hundred runs; those of them that have ended are published."""
    lists = ListedRuns(set(range(1, 101)) - {20, 60}, [20, 60], filters=filters)
    lists.knows(*range(1, 101))
    assert await lists.read(range(1, 101)) == set()
    window = {"start_time_from": 1, "start_time_to": 100} if filters else {}
    assert lists.asked == [("ended", window)]
    assert lists.published == {20, 60}
    assert lists.postponed == set(range(1, 101)) - {20, 60}


@pytest.mark.parametrize("is_complete", [True, False])
async def test_nothing_is_concluded_of_a_run_that_no_list_shows(is_complete: bool) -> None:
    """Unless the list of active runs was too long to be read, and may have had it."""
    lists = ListedRuns([], filters=False)
    lists.waited_for = {1, 2}
    lists.changes.end_active_list(is_complete=is_complete)
    for run_id in (1, 2):
        run: Any = lists.run(run_id, "active")
        lists.changes.record_start_of_unlisted(run)
    assert await lists.read([1, 2]) == ({1, 2} if is_complete else set())
    assert lists.postponed == (set() if is_complete else {1, 2})


async def test_runs_that_are_not_due_yet_are_postponed_too() -> None:
    """The same page tells of them."""
    lists = ListedRuns(range(1, 11), filters=True)
    lists.knows(*range(1, 11))
    assert await lists.read([3]) == set()
    assert lists.postponed == set(range(1, 11))


async def test_nothing_is_concluded_beyond_the_pages_that_were_read() -> None:
    """Such as beyond the largest offset: older runs, and the last one's own start, stay due."""
    lists = ListedRuns([*range(1, 40), *range(41, 60)], [0, 40, *range(60, 64)], filters=False)
    lists.most_pages = 1
    lists.knows(*range(1, 60))
    left = await lists.read(range(1, 60))
    assert lists.postponed == set(range(41, 60))
    assert left == set(range(1, 40))


async def test_only_runs_that_were_left_are_concluded_to_have_not_ended() -> None:
    """The list of ended runs is read down to the oldest run, and no further."""
    lists = ListedRuns(range(500, 600), range(1, 500), filters=False)
    lists.waited_for = set(range(500, 600))
    lists.knows(*range(500, 600))
    assert await lists.read(range(500, 600)) == set()
    assert lists.pages_of("ended") == 1
    assert lists.postponed == set(range(500, 600))


async def test_a_run_whose_every_read_is_wanted_is_read() -> None:
    """It may have changed without an end, such as from QUEUED to RUNNING."""
    lists = ListedRuns(range(1, 11), filters=True)
    lists.knows(*range(1, 11))
    assert await lists.read(range(1, 11), each_read=[4]) == {4}
    assert lists.postponed == set(range(1, 11)) - {4}


async def test_among_many_ended_runs_the_active_ones_are_read() -> None:
    """A page of ended runs tells of less than one of them; now and then one is tried."""
    ended = [n for n in range(1, 1001) if n % 20]
    lists = ListedRuns(range(20, 1001, 20), ended, filters=True)
    lists.waited_for = set(lists.active) | {1, 21}
    lists.knows(*lists.waited_for)
    assert await lists.read(lists.waited_for) == set()
    assert lists.pages_of("active") <= 12
    assert lists.pages_of("ended") <= 5
    assert lists.published | lists.postponed | lists.by_id == lists.waited_for
    assert lists.postponed | lists.by_id <= set(lists.active) | {1, 21}
    assert {1, 21} <= lists.published | lists.by_id


async def test_many_ended_runs_are_read_from_their_list() -> None:
    """Where a page has several of them, that takes fewer requests than reading each by its id."""
    older = set(range(1, 101))
    lists = ListedRuns(range(2, 101, 2), [*range(1, 101, 2), *range(101, 300)], filters=True)
    lists.waited_for = older
    lists.knows(*older)
    assert await lists.read(older) == set()
    assert lists.published | lists.postponed == older
    assert set(lists.ended) & older <= lists.published
    assert len(lists.asked) <= 2 * len(older) / PAGE
    # The latest ended runs are nobody's here.
    assert all(window["start_time_to"] <= 100 for _, window in lists.asked)


async def test_new_runs_are_found_at_the_top_of_the_active_ones() -> None:
    """Reading stops at the first page without one. Their start is known from then on."""
    lists = ListedRuns(range(1, 101), filters=True)
    lists.knows(*range(1, 89))
    assert await lists.read(range(1, 101)) == set()
    assert lists.pages_of("active") == 3
    assert await lists.read(range(1, 101)) == set()
    assert lists.pages_of("active") == 0
    assert lists.postponed == set(range(1, 101))


async def test_the_start_of_a_run_counts_once_it_runs() -> None:
    """A queued one may get another. It is read at the top of the active runs each time."""
    lists = ListedRuns(range(1, 11), filters=True)
    lists.states = {9: "PENDING", 10: "QUEUED"}
    lists.knows(*range(1, 11))
    for _ in range(2):
        assert await lists.read(range(1, 11)) == set()
        assert lists.pages_of("active") == 1
        assert lists.published >= {9, 10}
    assert lists.postponed.isdisjoint({9, 10})


async def test_the_list_of_ended_runs_is_read_once_in_a_period(
    changes_clock: SimpleNamespace,
) -> None:
    """Unless a run of which it can tell is due in between; new runs are no such."""
    lists = ListedRuns(range(1, 11), filters=True)
    lists.knows(*range(1, 9))
    lists.states = {9: "PENDING", 10: "PENDING"}
    for seconds, due, pages in ((0, 1, 1), (5.9, 9, 0), (0.1, 9, 1), (1, 10, 0), (1, 1, 1)):
        changes_clock.now += seconds
        await lists.read([due])
        assert lists.pages_of("ended") == pages


async def test_a_list_in_another_order_tells_nothing(changes_clock: SimpleNamespace) -> None:
    """All runs stay due, and all lists are read for ten minutes."""
    lists = ListedRuns(range(1, 11), [2, 3], filters=True)
    lists.knows(*range(1, 11))
    lists.changes.record_full_read(changes_clock.now, 60.0)
    lists.ended.reverse()
    lists.active.clear()
    assert await lists.read([1]) == {1}
    assert lists.postponed == set()
    assert not lists.changes.are_wanted(PERIOD)
    changes_clock.now += 600
    assert lists.changes.are_wanted(PERIOD)


async def test_ended_runs_are_read_while_all_lists_are_read(changes_clock: SimpleNamespace) -> None:
    """Once a period, so that an event does not wait for the last of 400 pages."""
    lists = ListedRuns(range(1, 11), [11], filters=True)
    lists.changes.begin_full_read()
    for seconds, pages in ((9.9, 0), (0.1, 1), (9.9, 1), (0.1, 2)):
        changes_clock.now += seconds
        await lists.changes.read_ended_meanwhile(PERIOD, lists.publish)
        assert lists.pages_of("ended") == pages
    assert lists.published == {11}


async def test_a_listed_run_that_lacks_something_stays_due() -> None:
    """2.0 lists no tasks. The run has ended, and is not taken for an active one."""
    lists = ListedRuns(range(1, 11), filters=False)
    lists.knows(*range(1, 11))
    lists.active.remove(4)
    lists.ended, lists.incomplete = [4], {4}
    assert await lists.read(range(1, 11)) == {4}
    assert lists.postponed == set(range(1, 11)) - {4}


async def test_a_listed_run_that_lacks_something_is_read_by_its_id() -> None:
    """Such as one with more than a hundred tasks. It has ended."""
    lists = ListedRuns(range(1, 11), filters=True)
    lists.knows(*range(1, 11))
    lists.active.remove(4)
    lists.ended, lists.incomplete = [4], {4}
    assert await lists.read(range(1, 11)) == set()
    assert lists.by_id == {4}
    assert 4 not in lists.postponed
    lists.is_throttled = True
    assert await lists.read(range(1, 11)) == {4}


async def test_each_active_run_is_seen_on_its_list_every_half_hour(
    changes_clock: SimpleNamespace,
) -> None:
    """One that the lists do not show any more is read by its id then."""
    lists = ListedRuns(range(1, 201), filters=True)
    lists.knows(*range(1, 201))
    lists.active.remove(4)
    seen: set[int] = set()
    for _ in range(181):
        assert await lists.read(range(1, 201)) == set()
        seen |= lists.published | lists.by_id
        assert lists.pages_of("active") <= 4
        changes_clock.now += 10
    assert seen == set(range(1, 201))


async def test_parts_of_a_sweep_are_read_at_the_same_time() -> None:
    """A sweep of 100 pages: four parts at once. It takes no page more for each part."""
    ended = [n for n in range(1, 2001) if n % 4]
    lists = ListedRuns(range(4, 2001, 4), ended, filters=True)
    lists.waited_for = set(lists.active)
    lists.knows(*lists.active)
    in_progress = most = 0
    publish = lists.publish

    async def slowly(runs: Iterable[Any]) -> set[int]:
        nonlocal in_progress, most
        in_progress += 1
        most = max(most, in_progress)
        await asyncio.sleep(0)
        in_progress -= 1
        return await publish(runs)

    lists.publish = slowly  # type: ignore[method-assign]
    await lists.read(lists.active)
    assert most == 1
    await lists.read(lists.active)
    assert most == 4
    assert lists.published | lists.postponed == set(lists.active)


async def test_an_error_of_one_part_ends_the_sweep() -> None:
    """It is raised, and no other part goes on."""
    lists = ListedRuns(range(4, 2001, 4), [n for n in range(1, 2001) if n % 4], filters=True)
    lists.waited_for = set(lists.active)
    lists.knows(*lists.active)
    await lists.read(lists.active)
    lists.window_error = ServerError(status=503)
    before = asyncio.all_tasks()
    with pytest.raises(ServerError):
        await lists.read(lists.active)
    assert len(lists.asked) <= 4
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("known", [set(), {1}])
async def test_short_runs_are_found_at_the_top_of_the_ended_ones(known: set[int]) -> None:
    """Where no window of known runs is read, too: a page has several of them."""
    lists = ListedRuns(known, range(2, 102), filters=True)
    lists.knows(*known)
    assert await lists.read([*known, *range(2, 102)]) == set()
    assert lists.published >= set(range(2, 102))
    assert len(lists.asked) <= 100 / PAGE + 2


async def test_new_runs_are_not_looked_for_at_any_cost() -> None:
    """No more pages are read than there are such runs: each can be read by its id."""
    lists = ListedRuns(range(1, 1001), filters=True)
    lists.waited_for = {1, 2, 3}
    assert await lists.read([1, 2, 3]) == {1, 2, 3}
    assert lists.pages_of("active") <= 3

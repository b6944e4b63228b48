"""Reading what has changed: which pages are read, and what is concluded from them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_jobs_provider.api.errors import (
    AuthenticationError,
    BadRequestError,
    ConflictError,
    ResponseLostError,
    ServerError,
    UnexpectedResponseError,
)
from airflow_jobs_provider.triggers.polling import run_changes
from airflow_jobs_provider.triggers.polling.run_changes import RunChanges
from airflow_jobs_provider.triggers.polling.window_sweep import ListEnd

PERIOD = 10.0
PAGE = 5


class Lists:
    """The lists of a workspace: each run starts at its id.

    :ivar asked: the list and the filters of each page.
    :ivar published: the runs of the pages.
    :ivar postponed: the runs that have not ended.
    :ivar by_id: the runs that were read by their ids.
    :ivar is_throttled: whether runs cannot be read by their ids.
    :ivar most_pages: so many pages of a list can be read, without filters.
    :ivar incomplete: ended runs that are not published.
    :ivar results: the result states of ended runs, default SUCCESS.
    :ivar window_error: is raised instead of a page of a window.
    """

    def __init__(
        self,
        active: Iterable[int],
        ended: Iterable[int] = (),
        *,
        filters: bool,
        window_page: int = PAGE,
    ) -> None:
        self.active, self.ended = sorted(active, reverse=True), sorted(ended, reverse=True)
        self.states: dict[int, str] = {}
        self.most_pages = 1000
        self.waited_for = set(self.active) | set(self.ended)
        self.now = 1_000.0
        self.asked: list[tuple[str, dict[str, int]]] = []
        self.published: set[int] = set()
        self.postponed: set[int] = set()
        self.by_id: set[int] = set()
        self.is_throttled = False
        self.incomplete: set[int] = set()
        self.results: dict[int, str] = {}
        self.window_error: Exception | None = None
        self.by_id_error: Exception | None = None
        self.changes = RunChanges(
            self.pages, PAGE, window_page_runs=window_page if filters else None
        )

    async def pages(
        self, which: str, limit: int, *, end: ListEnd, **filters: int
    ) -> AsyncIterator[list[Any]]:
        """Read a list."""
        ids = [
            run_id
            for run_id in (self.active if which == "active" else self.ended)
            if filters.get("start_time_from", 0) <= run_id <= filters.get("start_time_to", 10**9)
        ]
        if "start_time_to" in filters and self.window_error is not None:
            self.asked.append((which, filters))
            raise self.window_error
        most = 1000 if filters else self.most_pages
        for first in range(0, max(1, len(ids)), limit)[:most]:
            self.asked.append((which, filters))
            end.is_complete = first + limit >= len(ids)
            yield [self.run(run_id, which) for run_id in ids[first : first + limit]]

    def run(self, run_id: int, which: str) -> dict[str, Any]:
        """Return a run as a list has it."""
        state = self.states.get(run_id, "RUNNING" if which == "active" else "TERMINATED")
        states = {"life_cycle_state": state}
        if which == "ended":
            states["result_state"] = self.results.get(run_id, "SUCCESS")
        return {"run_id": run_id, "start_time": run_id, "state": states}

    async def publish(self, runs: Iterable[Any]) -> set[int]:
        """Take the runs of a page."""
        found = {run["run_id"] for run in runs} & self.waited_for - self.incomplete
        self.published |= found
        return found

    async def read_by_id(self, run_ids: Collection[int]) -> bool:
        """Read runs by their ids, unless the service answers 429."""
        if self.by_id_error is not None:
            raise self.by_id_error
        if not self.is_throttled:
            self.by_id.update(run_ids)
        return not self.is_throttled

    def knows(self, *run_ids: int) -> None:
        """Let the starts of these runs be known from an earlier read of all lists."""
        runs: Any = [self.run(run_id, "active") for run_id in run_ids]
        self.changes.record_starts(runs, self.waited_for)

    async def read(self, due: Iterable[int], each_read: Iterable[int] = ()) -> set[int]:
        """Read what has changed."""
        self.asked.clear()
        self.published.clear()
        self.postponed.clear()
        self.by_id.clear()
        return await self.changes.read(
            set(due),
            set(each_read),
            self.waited_for,
            PERIOD,
            self.publish,
            self.postponed.update,
            self.read_by_id,
        )

    def pages_of(self, which: str) -> int:
        """Return how many pages of a list were read."""
        return sum(asked == which for asked, _ in self.asked)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock in place of the real one."""
    one = SimpleNamespace(now=1_000.0)
    monkeypatch.setattr(run_changes, "time", SimpleNamespace(monotonic=lambda: one.now))
    return one


def test_changes_are_read_where_reading_all_runs_is_slow(clock: SimpleNamespace) -> None:
    """Slower than half the period; half an hour later all lists are read again."""
    changes = Lists([], filters=False).changes
    assert not changes.are_wanted(PERIOD)
    changes.record_full_read(clock.now, 5.0)
    assert not changes.are_wanted(PERIOD)
    changes.record_full_read(clock.now, 5.1)
    assert changes.are_wanted(PERIOD)
    clock.now += 1_799
    assert changes.are_wanted(PERIOD)
    clock.now += 1
    assert not changes.are_wanted(PERIOD)


def test_windows_are_read_for_longer_where_lists_show_all_runs(clock: SimpleNamespace) -> None:
    """A sweep sees each active run now and then; one that no list shows is looked for again."""
    lists = Lists([7], filters=True)
    lists.changes.record_full_read(clock.now, 60.0)
    lists.changes.end_active_list(is_complete=True)
    clock.now += 1_800
    assert lists.changes.are_wanted(PERIOD)
    run: Any = lists.run(7, "active")
    lists.changes.record_start_of_unlisted(run)
    assert not lists.changes.are_wanted(PERIOD)
    lists.knows(7)
    assert lists.changes.are_wanted(PERIOD)


@pytest.mark.parametrize("filters", [True, False])
async def test_a_run_that_the_list_of_ended_runs_does_not_have_has_not_ended(
    filters: bool,
) -> None:
    """One page tells of a hundred runs; those of them that have ended are published."""
    lists = Lists(set(range(1, 101)) - {20, 60}, [20, 60], filters=filters)
    lists.knows(*range(1, 101))
    assert await lists.read(range(1, 101)) == set()
    window = {"start_time_from": 1, "start_time_to": 100} if filters else {}
    assert lists.asked == [("ended", window)]
    assert lists.published == {20, 60}
    assert lists.postponed == set(range(1, 101)) - {20, 60}


@pytest.mark.parametrize("is_complete", [True, False])
async def test_nothing_is_concluded_of_a_run_that_no_list_shows(is_complete: bool) -> None:
    """Unless the list of active runs was too long to be read, and may have had it."""
    lists = Lists([], filters=False)
    lists.waited_for = {1, 2}
    lists.changes.end_active_list(is_complete=is_complete)
    for run_id in (1, 2):
        run: Any = lists.run(run_id, "active")
        lists.changes.record_start_of_unlisted(run)
    assert await lists.read([1, 2]) == ({1, 2} if is_complete else set())
    assert lists.postponed == (set() if is_complete else {1, 2})


async def test_runs_that_are_not_due_yet_are_postponed_too() -> None:
    """The same page tells of them."""
    lists = Lists(range(1, 11), filters=True)
    lists.knows(*range(1, 11))
    assert await lists.read([3]) == set()
    assert lists.postponed == set(range(1, 11))


async def test_nothing_is_concluded_beyond_the_pages_that_were_read() -> None:
    """Such as beyond the largest offset: older runs, and the last one's own start, stay due."""
    lists = Lists([*range(1, 40), *range(41, 60)], [0, 40, *range(60, 64)], filters=False)
    lists.most_pages = 1
    lists.knows(*range(1, 60))
    left = await lists.read(range(1, 60))
    assert lists.postponed == set(range(41, 60))
    assert left == set(range(1, 40))


async def test_only_runs_that_were_left_are_concluded_to_have_not_ended() -> None:
    """The list of ended runs is read down to the oldest run, and no further."""
    lists = Lists(range(500, 600), range(1, 500), filters=False)
    lists.waited_for = set(range(500, 600))
    lists.knows(*range(500, 600))
    assert await lists.read(range(500, 600)) == set()
    assert lists.pages_of("ended") == 1
    assert lists.postponed == set(range(500, 600))


async def test_a_run_whose_every_read_is_wanted_is_read() -> None:
    """It may have changed without an end, such as from QUEUED to RUNNING."""
    lists = Lists(range(1, 11), filters=True)
    lists.knows(*range(1, 11))
    assert await lists.read(range(1, 11), each_read=[4]) == {4}
    assert lists.postponed == set(range(1, 11)) - {4}


async def test_among_many_ended_runs_the_active_ones_are_read() -> None:
    """A page of ended runs tells of less than one of them; now and then one is tried."""
    ended = [n for n in range(1, 1001) if n % 20]
    lists = Lists(range(20, 1001, 20), ended, filters=True)
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
    lists = Lists(range(2, 101, 2), [*range(1, 101, 2), *range(101, 300)], filters=True)
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
    lists = Lists(range(1, 101), filters=True)
    lists.knows(*range(1, 89))
    assert await lists.read(range(1, 101)) == set()
    assert lists.pages_of("active") == 3
    assert await lists.read(range(1, 101)) == set()
    assert lists.pages_of("active") == 0
    assert lists.postponed == set(range(1, 101))


async def test_the_start_of_a_run_counts_once_it_runs() -> None:
    """A queued one may get another. It is read at the top of the active runs each time."""
    lists = Lists(range(1, 11), filters=True)
    lists.states = {9: "PENDING", 10: "QUEUED"}
    lists.knows(*range(1, 11))
    for _ in range(2):
        assert await lists.read(range(1, 11)) == set()
        assert lists.pages_of("active") == 1
        assert lists.published >= {9, 10}
    assert lists.postponed.isdisjoint({9, 10})


async def test_the_list_of_ended_runs_is_read_once_in_a_period(clock: SimpleNamespace) -> None:
    """Unless a run of which it can tell is due in between; new runs are no such."""
    lists = Lists(range(1, 11), filters=True)
    lists.knows(*range(1, 9))
    lists.states = {9: "PENDING", 10: "PENDING"}
    for seconds, due, pages in ((0, 1, 1), (5.9, 9, 0), (0.1, 9, 1), (1, 10, 0), (1, 1, 1)):
        clock.now += seconds
        await lists.read([due])
        assert lists.pages_of("ended") == pages


async def test_a_list_in_another_order_tells_nothing(clock: SimpleNamespace) -> None:
    """All runs stay due, and all lists are read for ten minutes."""
    lists = Lists(range(1, 11), [2, 3], filters=True)
    lists.knows(*range(1, 11))
    lists.changes.record_full_read(clock.now, 60.0)
    lists.ended.reverse()
    lists.active.clear()
    assert await lists.read([1]) == {1}
    assert lists.postponed == set()
    assert not lists.changes.are_wanted(PERIOD)
    clock.now += 600
    assert lists.changes.are_wanted(PERIOD)


@pytest.mark.parametrize("filters", [True, False])
async def test_starts_of_runs_that_nobody_waits_for_are_forgotten(filters: bool) -> None:
    """They would count as runs that a page tells about."""
    lists = Lists(range(1, 11), filters=filters)
    lists.knows(*range(1, 11))
    lists.waited_for = {3}
    await lists.read([3])
    assert list(lists.changes._starts) == [3]


async def test_ended_runs_are_read_while_all_lists_are_read(clock: SimpleNamespace) -> None:
    """Once a period, so that an event does not wait for the last of 400 pages."""
    lists = Lists(range(1, 11), [11], filters=True)
    lists.changes.begin_full_read()
    for seconds, pages in ((9.9, 0), (0.1, 1), (9.9, 1), (0.1, 2)):
        clock.now += seconds
        await lists.changes.read_ended_meanwhile(PERIOD, lists.publish)
        assert lists.pages_of("ended") == pages
    assert lists.published == {11}


async def test_a_listed_run_that_lacks_something_stays_due() -> None:
    """2.0 lists no tasks. The run has ended, and is not taken for an active one."""
    lists = Lists(range(1, 11), filters=False)
    lists.knows(*range(1, 11))
    lists.active.remove(4)
    lists.ended, lists.incomplete = [4], {4}
    assert await lists.read(range(1, 11)) == {4}
    assert lists.postponed == set(range(1, 11)) - {4}


async def test_a_listed_run_that_lacks_something_is_read_by_its_id() -> None:
    """Such as one with more than a hundred tasks. It has ended."""
    lists = Lists(range(1, 11), filters=True)
    lists.knows(*range(1, 11))
    lists.active.remove(4)
    lists.ended, lists.incomplete = [4], {4}
    assert await lists.read(range(1, 11)) == set()
    assert lists.by_id == {4}
    assert 4 not in lists.postponed
    lists.is_throttled = True
    assert await lists.read(range(1, 11)) == {4}


async def test_each_active_run_is_seen_on_its_list_every_half_hour(clock: SimpleNamespace) -> None:
    """One that the lists do not show any more is read by its id then."""
    lists = Lists(range(1, 201), filters=True)
    lists.knows(*range(1, 201))
    lists.active.remove(4)
    seen: set[int] = set()
    for _ in range(181):
        assert await lists.read(range(1, 201)) == set()
        seen |= lists.published | lists.by_id
        assert lists.pages_of("active") <= 4
        clock.now += 10
    assert seen == set(range(1, 201))


async def test_parts_of_a_sweep_are_read_at_the_same_time() -> None:
    """A sweep of 100 pages: four parts at once. It takes no page more for each part."""
    ended = [n for n in range(1, 2001) if n % 4]
    lists = Lists(range(4, 2001, 4), ended, filters=True)
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
    lists = Lists(range(4, 2001, 4), [n for n in range(1, 2001) if n % 4], filters=True)
    lists.waited_for = set(lists.active)
    lists.knows(*lists.active)
    await lists.read(lists.active)
    lists.window_error = ServerError(status=503)
    before = asyncio.all_tasks()
    with pytest.raises(ServerError):
        await lists.read(lists.active)
    assert len(lists.asked) <= 4
    assert asyncio.all_tasks() == before


# -- runs that 2.0 does not list, since they are too many ------------------------------------------


async def test_runs_beyond_the_largest_offset_are_read_from_a_later_version() -> None:
    """What its windows tell is not read by id; a run that failed is."""
    ended = [n for n in range(1, 400) if n % 4]
    lists = Lists(range(4, 400, 4), ended, filters=True, window_page=4)
    lists.most_pages = 1
    lists.waited_for = {*lists.active, 101, 201}
    lists.knows(*lists.waited_for)
    lists.results[201] = "FAILED"
    assert await lists.read(lists.waited_for) == set()
    assert lists.asked[0] == ("ended", {})
    assert all(window["start_time_to"] < 396 for _, window in lists.asked[1:])
    assert 201 in lists.by_id
    assert 201 not in lists.published
    assert 101 in lists.published | lists.by_id
    assert lists.published | lists.postponed | lists.by_id == lists.waited_for


@pytest.mark.parametrize(
    "error",
    [
        BadRequestError(status=400, api_message="Unknown field: start_time_to"),
        AuthenticationError(status=403),
        UnexpectedResponseError(status=200, excerpt="<html>"),
    ],
)
async def test_a_service_without_later_versions_is_asked_for_them_every_ten_minutes(
    clock: SimpleNamespace, error: Exception
) -> None:
    """Its old runs are read by their ids."""
    lists = Lists(range(1, 100), range(100, 200), filters=True, window_page=4)
    lists.most_pages = 1
    lists.waited_for = set(lists.active)
    lists.knows(*lists.active)
    lists.window_error = error
    for seconds, windows in ((0, True), (599, False), (1, True)):
        clock.now += seconds
        assert await lists.read(lists.active) == set(lists.active)
        assert any("start_time_to" in window for _, window in lists.asked) is windows
    lists.window_error = ConflictError(status=400, api_message="COULD_NOT_ACQUIRE_LOCK")
    clock.now += 600
    with pytest.raises(ConflictError):
        await lists.read(lists.active)


async def test_windows_that_do_not_work_are_suspended_for_longer_each_time(
    clock: SimpleNamespace,
) -> None:
    """After a 5xx or a lost response: for a minute, two, up to ten. What was read counts anew."""
    lists = Lists(range(1, 100), range(100, 200), filters=True, window_page=4)
    lists.most_pages = 1
    lists.waited_for = set(lists.active)
    lists.knows(*lists.active)
    errors = [ServerError(status=503), ResponseLostError("closed")] * 3
    for seconds, error in zip((60, 120, 240, 480, 600, 600), errors, strict=True):
        lists.window_error = error
        assert await lists.read(lists.active) == set(lists.active)
        assert not lists.changes.can_read_windows
        clock.now += seconds - 1
        assert not lists.changes.can_read_windows
        clock.now += 1
        assert lists.changes.can_read_windows
    lists.window_error = None
    assert await lists.read(lists.active) != set(lists.active)
    lists.window_error = ServerError(status=503)
    clock.now += 60
    await lists.read(lists.active)
    clock.now += 60
    assert lists.changes.can_read_windows


@pytest.mark.parametrize("error", [ServerError(status=503), AuthenticationError(status=401)])
async def test_a_read_by_id_that_fails_suspends_no_windows(error: Exception) -> None:
    """The service is out of order, or the token has expired. It is raised, as for any read."""
    lists = Lists(range(4, 400, 4), [n for n in range(1, 400) if n % 4], filters=True)
    lists.changes = RunChanges(lists.pages, PAGE, window_page_runs=4)
    lists.most_pages = 1
    lists.waited_for = {*lists.active, 201}
    lists.knows(*lists.waited_for)
    lists.results[201] = "FAILED"
    lists.by_id_error = error
    with pytest.raises(type(error)):
        await lists.read(lists.waited_for)
    assert any("start_time_to" in window for _, window in lists.asked)
    assert lists.changes.can_read_windows


# -- what is known of runs, over time --------------------------------------------------------------


def test_runs_that_nobody_waits_for_are_forgotten_in_every_poll() -> None:
    """Also where changes are never read: a triggerer runs for months."""
    lists = Lists(range(1, 11), filters=True)
    lists.knows(*range(1, 9))
    lists.changes.end_active_list(is_complete=True)
    for run_id in (9, 10):
        run: Any = lists.run(run_id, "active")
        lists.changes.record_start_of_unlisted(run)
    lists.changes.forget_others({3, 9})
    assert list(lists.changes._starts) == [3]
    assert lists.changes._unlisted == {9}


async def test_what_a_sweep_took_does_not_count_for_many_more_runs() -> None:
    """Nor for ever: a few runs far apart cost as much as reading them by their ids."""
    few = range(100, 2001, 100)
    lists = Lists(few, set(range(1, 2001)) - set(few), filters=True)
    lists.waited_for = set(few)
    lists.knows(*few)
    await lists.read(few)
    taken = lists.changes.expected_requests(20)
    assert taken is not None
    lists.changes.expect_fewer_requests()
    assert 1 < (lists.changes.expected_requests(20) or 0) < taken
    assert lists.changes.expected_requests(40) is not None
    assert lists.changes.expected_requests(41) is None


async def test_a_run_that_is_read_by_its_id_stays_known() -> None:
    """Unless it was looked for on a list that would have it."""
    lists = Lists([*range(1, 4), 5], filters=True)
    lists.waited_for.add(4)
    lists.changes.end_active_list(is_complete=True)
    lists.knows(*range(1, 6))
    read: list[Any] = [lists.run(run_id, "active") for run_id in (3, 4)]
    for run in read:
        lists.changes.record_start_of_unlisted(run)
    assert set(lists.changes._starts) == set(range(1, 6))
    lists.changes.record_missing({4})
    for run in read:
        lists.changes.record_start_of_unlisted(run)
    assert set(lists.changes._starts) == {1, 2, 3, 5}


async def test_a_run_is_unlisted_if_a_sweep_misses_it_and_it_is_active(
    clock: SimpleNamespace,
) -> None:
    """The lists do not show it any more, so they say nothing of its end."""
    lists = Lists(range(1, 201), filters=True)
    lists.knows(*range(1, 201))
    lists.active.remove(4)
    lists.changes.end_active_list(is_complete=True)
    await lists.read(range(1, 201))
    clock.now += 1_800
    await lists.read(range(1, 201))
    assert lists.by_id == {4}
    run: Any = lists.run(4, "active")
    lists.changes.record_start_of_unlisted(run)
    assert 4 not in lists.changes._starts


@pytest.mark.parametrize("known", [set(), {1}])
async def test_short_runs_are_found_at_the_top_of_the_ended_ones(known: set[int]) -> None:
    """Where no window of known runs is read, too: a page has several of them."""
    lists = Lists(known, range(2, 102), filters=True)
    lists.knows(*known)
    assert await lists.read([*known, *range(2, 102)]) == set()
    assert lists.published >= set(range(2, 102))
    assert len(lists.asked) <= 100 / PAGE + 2


async def test_new_runs_are_not_looked_for_at_any_cost() -> None:
    """No more pages are read than there are such runs: each can be read by its id."""
    lists = Lists(range(1, 1001), filters=True)
    lists.waited_for = {1, 2, 3}
    assert await lists.read([1, 2, 3]) == {1, 2, 3}
    assert lists.pages_of("active") <= 3


@pytest.mark.parametrize(
    ("state", "is_taken"),
    [
        ({"life_cycle_state": "RUNNING"}, True),
        ({"life_cycle_state": "SOMETHING_NEW", "result_state": ""}, True),
        ({"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"}, True),
        ({"life_cycle_state": "TERMINATED", "result_state": "FAILED"}, False),
        ({"life_cycle_state": "INTERNAL_ERROR"}, False),
        ({"life_cycle_state": "SKIPPED"}, False),
        ("RUNNING", False),
    ],
)
def test_what_is_taken_from_a_page_of_a_later_version(state: Any, is_taken: bool) -> None:
    """A run that has failed may have ended without a result: the service may retry it."""
    run: Any = {"run_id": 7, "state": state}
    assert run_changes._is_active_or_successful(run) is is_taken

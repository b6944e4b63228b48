"""When only what has changed is read, and what is remembered of runs for that."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.helpers.listed_runs import PERIOD, ListedRuns

pytestmark = pytest.mark.usefixtures("changes_clock")


def test_changes_are_read_where_reading_all_runs_is_slow(changes_clock: SimpleNamespace) -> None:
    """Slower than half the period; half an hour later all lists are read again."""
    changes = ListedRuns([], filters=False).changes
    assert not changes.are_wanted(PERIOD)
    changes.record_full_read(changes_clock.now, 5.0)
    assert not changes.are_wanted(PERIOD)
    changes.record_full_read(changes_clock.now, 5.1)
    assert changes.are_wanted(PERIOD)
    changes_clock.now += 1_799
    assert changes.are_wanted(PERIOD)
    changes_clock.now += 1
    assert not changes.are_wanted(PERIOD)


def test_windows_are_read_for_longer_where_lists_show_all_runs(
    changes_clock: SimpleNamespace,
) -> None:
    """A sweep sees each active run now and then; one that no list shows is looked for again."""
    lists = ListedRuns([7], filters=True)
    lists.changes.record_full_read(changes_clock.now, 60.0)
    lists.changes.end_active_list(is_complete=True)
    changes_clock.now += 1_800
    assert lists.changes.are_wanted(PERIOD)
    run: Any = lists.run(7, "active")
    lists.changes.record_start_of_unlisted(run)
    assert not lists.changes.are_wanted(PERIOD)
    lists.knows(7)
    assert lists.changes.are_wanted(PERIOD)


@pytest.mark.parametrize("filters", [True, False])
async def test_starts_of_runs_that_nobody_waits_for_are_forgotten(filters: bool) -> None:
    """They would count as runs that a page tells about."""
    lists = ListedRuns(range(1, 11), filters=filters)
    lists.knows(*range(1, 11))
    lists.waited_for = {3}
    await lists.read([3])
    assert list(lists.changes._starts) == [3]


def test_runs_that_nobody_waits_for_are_forgotten_in_every_poll() -> None:
    """Also where changes are never read: a triggerer runs for months."""
    lists = ListedRuns(range(1, 11), filters=True)
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
    lists = ListedRuns(few, set(range(1, 2001)) - set(few), filters=True)
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
    lists = ListedRuns([*range(1, 4), 5], filters=True)
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
    changes_clock: SimpleNamespace,
) -> None:
    """The lists do not show it any more, so they say nothing of its end."""
    lists = ListedRuns(range(1, 201), filters=True)
    lists.knows(*range(1, 201))
    lists.active.remove(4)
    lists.changes.end_active_list(is_complete=True)
    await lists.read(range(1, 201))
    changes_clock.now += 1_800
    await lists.read(range(1, 201))
    assert lists.by_id == {4}
    run: Any = lists.run(4, "active")
    lists.changes.record_start_of_unlisted(run)
    assert 4 not in lists.changes._starts

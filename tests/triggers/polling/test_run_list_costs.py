"""When reading lists of runs costs less than reading each run by its id."""

from __future__ import annotations

import pytest

from airflow_jobs_provider.api.errors import ServerError
from tests.helpers.listed_workspace import ListedWorkspace, read, run_lists_of

BROKEN = ServerError(status=503)


async def test_ended_runs_are_searched_for_if_that_costs_less(workspace: ListedWorkspace) -> None:
    """One run that is missing is read by its id; of two, the list may have both."""
    workspace.ended = list(range(300, 0, -1))
    assert await read(workspace, run_lists_of(workspace), [300]) == {300}
    assert workspace.pages() == [("active", 0, 100)]
    assert await read(workspace, run_lists_of(workspace), [300, 299]) == set()
    assert workspace.pages() == [("active", 0, 100), ("ended", 0, 25)]


async def test_ended_runs_are_not_searched_for_if_that_costs_as_much(
    workspace: ListedWorkspace,
) -> None:
    """Two runs of half a megabyte cost a page of two requests, as read by their ids."""
    workspace.ended, workspace.run_bytes = list(range(300, 0, -1)), 500_000.0
    lists = run_lists_of(workspace)
    assert await read(workspace, lists, [300, 299]) == set()
    workspace.pages()
    assert await read(workspace, lists, [300, 299]) == {300, 299}
    assert workspace.pages() == [("active", 0, 100)]


async def test_what_is_not_due_is_looked_for_with_what_is(workspace: ListedWorkspace) -> None:
    """But not on its own, and not where the list of active runs was not read to its end."""
    workspace.ended = list(range(300, 0, -1))
    assert await read(workspace, run_lists_of(workspace), [300], others=[299]) == set()
    assert workspace.pages() == [("active", 0, 100), ("ended", 0, 25)]
    workspace.active = [301]
    assert await read(workspace, run_lists_of(workspace), [301], others=[300, 299]) == set()
    assert workspace.pages() == [("active", 0, 100)]
    workspace.active = list(range(900, 300, -1))
    assert await read(workspace, run_lists_of(workspace), [300], others=[299]) == {300}
    assert workspace.pages() == [("active", 0, 100)]


@pytest.mark.parametrize(
    ("run_bytes", "due", "found", "hidden", "pages"),
    [
        # The searches that have found little so far end first,
        (1_000.0, 10, 1, 0, 5),
        (1_000.0, 10, 1, 1975, 5),
        (1_000.0, 20, 15, 0, 6),
        (60_000.0, 20, 15, 0, 4),
        # the others when they have cost a tenth of what reading each run by its id costs.
        (1_000.0, 100, 1, 0, 10),
        (1_000.0, 100, 3, 0, 10),
        (60_000.0, 100, 3, 0, 5),
    ],
)
async def test_a_search_that_finds_little_ends(
    workspace: ListedWorkspace, run_bytes: float, due: int, found: int, hidden: int, pages: int
) -> None:
    """The first page has some of the due runs, the further ones have none, or no run at all."""
    workspace.version, workspace.run_bytes, workspace.hidden = "2.1", run_bytes, hidden
    workspace.ended = list(range(2000, 0, -1))
    old = set(range(1, due - found + 1))
    new = set(range(2001 - found, 2001))
    assert await read(workspace, run_lists_of(workspace), new | old) == old
    assert [page[0] for page in workspace.pages()] == ["active", *["ended"] * pages]


@pytest.mark.parametrize(
    ("run_bytes", "left", "is_read"), [(20_000.0, 2, False), (40_000.0, 4, True)]
)
async def test_few_missing_runs_are_not_searched_for_with_another_page(
    workspace: ListedWorkspace, run_bytes: float, left: int, is_read: bool
) -> None:
    """Unless they are more than the requests that it costs, with twice as many runs."""
    workspace.ended, workspace.run_bytes = list(range(300, 0, -1)), run_bytes
    rest = set(range(270, 270 - left, -1))
    due = {*range(293, 301), *rest}
    assert await read(workspace, run_lists_of(workspace), due) == (set() if is_read else rest)
    pages = [("active", 0, 100), ("ended", 0, 25), ("ended", 25, 50)]
    assert workspace.pages() == (pages if is_read else pages[:2])


async def test_the_active_list_is_not_read_on_if_it_costs_too_much(
    workspace: ListedWorkspace,
) -> None:
    """More than to read each due run by its id."""
    workspace.active = list(range(3000, 0, -1))
    lists = run_lists_of(workspace)
    assert await read(workspace, lists, [1, 2, 3]) == {1, 2, 3}
    assert workspace.pages() == [
        ("active", 0, 100),
        ("active", 90, 200),
        ("active", 280, 400),
        ("ended", 0, 25),
    ]
    # As far as it was read, 700 runs, and one more page of a thousand: 2 pages, 1.7 megabytes.
    assert lists.are_cheaper_than(4, 10)
    assert not lists.are_cheaper_than(3, 10)


def test_one_run_is_cheaper_to_read_by_its_id(workspace: ListedWorkspace) -> None:
    """A page costs one request and its size; before it is known, 1.5 kB and 100 runs a page."""
    lists = run_lists_of(workspace)
    assert lists.are_cheaper_than(1, 10) is False
    assert lists.are_cheaper_than(2, 10) is True
    workspace.version = "2.1"
    assert not run_lists_of(workspace).are_cheaper_than(1, 10)
    assert run_lists_of(workspace).are_cheaper_than(2, 10)


def test_lists_are_read_on_a_machine_that_has_just_started(workspace: ListedWorkspace) -> None:
    """The monotonic clock of such a machine begins at 0."""
    workspace.now = 0.0
    assert run_lists_of(workspace).are_cheaper_than(2, 10)


async def test_the_measured_list_decides(workspace: ListedWorkspace) -> None:
    """Its length counts less each time, since runs end and nobody reads it meanwhile."""
    workspace.active, workspace.run_bytes = list(range(100, 0, -1)), 100_000.0
    lists = run_lists_of(workspace)
    await read(workspace, lists, workspace.active)
    # 4 pages of 30 runs and 10 megabytes.
    assert lists.are_cheaper_than(15, 10)
    assert not lists.are_cheaper_than(14, 10)
    # 95 runs by now.
    assert lists.are_cheaper_than(14, 10)
    assert not lists.are_cheaper_than(13, 10)
    assert lists.are_cheaper_than(14, 10)


async def test_lists_are_read_for_many_runs_though_that_did_not_pay_for_few(
    workspace: ListedWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep for 20 runs among a thousand of others takes as long as to read each by its id."""
    workspace.version, workspace.largest_page = "2.1", 25
    lists = run_lists_of(workspace)
    monkeypatch.setattr(lists.changes, "are_wanted", lambda _period: True)
    windows = lists.changes._windows
    assert windows is not None
    windows.requests_per_run, windows.runs = 1.1, 20
    assert lists.are_cheaper_than(10_000, 10)
    # One run is read by its id in any case.
    assert not any(lists.are_cheaper_than(1, 10) for _ in range(100))
    assert [lists.are_cheaper_than(20, 10) for _ in range(5)] == [False] * 3 + [True] * 2

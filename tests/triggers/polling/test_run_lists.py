"""Which pages of the lists of runs are read, and how large they are."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_jobs_provider.api.calls import Call
from airflow_jobs_provider.api.errors import ServerError
from airflow_jobs_provider.triggers.polling import run_lists
from airflow_jobs_provider.triggers.polling.run_lists import RunLists
from tests.helpers.listed_workspace import ListedWorkspace, read, refused, run_lists_of

BROKEN = ServerError(status=503)


def test_the_limits_of_lists() -> None:
    """Those of the reference, and what a page costs a triggerer."""
    assert (run_lists.MAX_PAGE_RUNS, run_lists.MAX_PAGE_RUNS_SINCE_2_1) == (1000, 25)
    assert (run_lists.MIN_PAGE_RUNS, run_lists.FIRST_PAGE_RUNS) == (25, 100)
    assert (run_lists.MIN_OVERLAP_RUNS, run_lists.MAX_OFFSET) == (10, 10_000)
    assert (run_lists.MAX_PAGE_BYTES, run_lists.BYTES_PER_UNIT_OF_COST) == (3_000_000, 1_000_000)
    assert (run_lists.ASSUMED_RUN_BYTES, run_lists.SEARCH_COST_FRACTION) == (1_500, 0.1)
    assert (run_lists.SUSPEND_SECONDS, run_lists.LONGEST_SUSPEND_SECONDS) == (10, 60)
    assert run_lists.REFUSED_SECONDS == 600


async def test_pages_grow_and_overlap(workspace: ListedWorkspace) -> None:
    """Each is twice the one before, up to a thousand runs, and repeats ten runs of it."""
    workspace.active = list(range(3000, 0, -1))
    assert await read(workspace, run_lists_of(workspace), workspace.active) == set()
    assert workspace.pages() == [
        ("active", 0, 100),
        ("active", 90, 200),
        ("active", 280, 400),
        ("active", 670, 800),
        ("active", 1460, 1000),
        ("active", 2450, 1000),
    ]
    assert workspace.calls[0].parameters == {"active_only": True, "limit": 100}


async def test_small_pages_overlap_by_half(workspace: ListedWorkspace) -> None:
    """At most: a page of fewer runs than the overlap still brings something new."""
    workspace.active, workspace.largest_page = list(range(20, 0, -1)), 15
    assert await read(workspace, run_lists_of(workspace), workspace.active) == set()
    assert workspace.pages() == [("active", 0, 100), ("active", 0, 15), ("active", 8, 15)]


async def test_the_overlap_follows_the_movement_of_the_list(workspace: ListedWorkspace) -> None:
    """It is twice as far as the list has moved, and shrinks by a tenth when it does not move."""
    workspace.active = everything = list(range(5000, 0, -1))
    moves = iter([8])

    def move() -> None:
        workspace.active = workspace.active[next(moves, 0) :]

    workspace.after_page = move
    lists = run_lists_of(workspace)
    assert await read(workspace, lists, everything) == set()
    assert workspace.pages() == [
        ("active", 0, 100),
        ("active", 90, 200),
        ("active", 274, 400),
        ("active", 660, 800),
        ("active", 1448, 1000),
        ("active", 2438, 1000),
        ("active", 3428, 1000),
        ("active", 4418, 1000),
    ]


async def test_a_gap_between_two_pages_is_read_again(workspace: ListedWorkspace) -> None:
    """From further back, so that no run is missed; the overlap stays large for the next pages."""
    workspace.active = everything = list(range(1500, 0, -1))
    moves = iter([20])

    def move() -> None:
        workspace.active = workspace.active[next(moves, 0) :]

    workspace.after_page = move
    lists = run_lists_of(workspace)
    assert await read(workspace, lists, everything) == set()
    assert workspace.pages() == [
        ("active", 0, 100),
        ("active", 90, 200),
        ("active", 60, 400),
        ("active", 420, 800),
        ("active", 1184, 1000),
    ]
    workspace.after_page = lambda: None
    await read(workspace, lists, everything)
    assert workspace.pages()[:2] == [("active", 0, 1000), ("active", 968, 1000)]


async def test_a_gap_that_no_overlap_can_close_is_left(workspace: ListedWorkspace) -> None:
    """Half a page is repeated at most; what is missed is returned."""
    workspace.active, workspace.largest_page = list(range(400, 0, -1)), 50
    everything = list(workspace.active)
    moves = iter([0, 90])

    def move() -> None:
        workspace.active = workspace.active[next(moves, 0) :]

    workspace.after_page = move
    missing = await read(workspace, run_lists_of(workspace), everything)
    assert workspace.pages()[:6] == [
        ("active", 0, 100),
        ("active", 0, 50),
        ("active", 40, 50),
        ("active", 80, 50),
        ("active", 65, 50),
        ("active", 90, 50),
    ]
    assert missing == set(everything[90:155])


async def test_the_list_is_read_up_to_its_largest_offset(workspace: ListedWorkspace) -> None:
    """The last page begins there, and reaches a thousand runs further."""
    workspace.active = list(range(12_000, 0, -1))
    missing = await read(workspace, run_lists_of(workspace), workspace.active)
    *_, before, last = [page for page in workspace.pages() if page[0] == "active"]
    assert (before, last) == (("active", 9380, 1000), ("active", 10_000, 1000))
    assert missing == set(range(1, 1001))


@pytest.mark.parametrize("error", [refused("start_time_to is unknown."), BROKEN])
async def test_the_list_is_read_beyond_its_largest_offset_from_a_later_version(
    workspace: ListedWorkspace, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """By windows of 25 runs, which begin where 2.0 ends. If these fail, 2.0 is still read."""
    workspace.version, workspace.active = "", list(range(15_000, 0, -1))
    lists = run_lists_of(workspace)
    due = set(workspace.active)
    monkeypatch.setattr(lists, "_max_page_runs", 1000)
    workspace.run_bytes = 10.0
    assert await read(workspace, lists, due) == set()
    windows = [call for call in workspace.calls if "start_time_to" in call.parameters]
    assert {call.api_version() for call in windows} == {"2.2"}
    assert len(windows) == pytest.approx(4_000 / 25, abs=2)
    workspace.window_error = error
    assert len(await read(workspace, lists, due)) == 4_000
    assert lists.are_cheaper_than(len(due), 10)
    workspace.window_error, workspace.calls = None, []
    assert len(await read(workspace, lists, due)) == 4_000
    assert {call.api_version() for call in workspace.calls} == {"2.0"}


async def test_a_list_by_tokens_has_small_pages_that_do_not_overlap(
    workspace: ListedWorkspace,
) -> None:
    """As in API 2.1 and later; the tasks of runs that ended are asked for."""
    workspace.version, workspace.largest_page = "2.1", 25
    workspace.active, workspace.ended = list(range(260, 200, -1)), list(range(200, 0, -1))
    lists = run_lists_of(workspace)
    assert await read(workspace, lists, range(150, 261)) == {150}
    assert workspace.pages() == [
        ("active", 0, 25),
        ("active", "235", 25),
        ("active", "210", 25),
        ("ended", 0, 25),
        ("ended", "175", 25),
    ]
    assert "expand_tasks" not in workspace.calls[0].parameters
    assert workspace.calls[3].parameters == {
        "completed_only": True,
        "expand_tasks": True,
        "limit": 25,
    }


async def test_the_ended_list_of_the_oldest_version(workspace: ListedWorkspace) -> None:
    """It has no parameter for tasks; its pages do not overlap, since runs are only added to it."""
    workspace.ended = list(range(300, 0, -1))
    assert await read(workspace, run_lists_of(workspace), range(101, 301)) == set()
    assert workspace.pages() == [("active", 0, 100), ("ended", 0, 100), ("ended", 100, 200)]
    assert workspace.calls[1].parameters == {"completed_only": True, "limit": 100}


async def test_the_limit_grows_in_the_ended_list_too(workspace: ListedWorkspace) -> None:
    """As long as its pages have what is missing."""
    workspace.ended = list(range(400, 0, -1))
    assert await read(workspace, run_lists_of(workspace), range(381, 401)) == set()
    assert workspace.pages() == [("active", 0, 100), ("ended", 0, 40)]
    assert await read(workspace, run_lists_of(workspace), [*range(341, 401, 2), 300, 301]) == set()
    assert workspace.pages() == [("active", 0, 100), ("ended", 0, 64), ("ended", 64, 128)]


async def test_invalid_runs_of_a_page_are_published(workspace: ListedWorkspace) -> None:
    """Whoever publishes them checks those that are waited for."""
    got: list[Any] = []

    async def answer(call: Call[Any], *, waits_out_outages: bool) -> Any:
        assert waits_out_outages
        return call.parse({"runs": [{"run_id": 7, "state": "RUNNING"}, 5, {"run_id": 8}]})

    async def publish(runs: Any) -> set[int]:
        got.extend(runs)
        return {7, 8}

    client: Any = workspace
    lists = RunLists(client, answer)
    assert await lists.read({7, 8}, {7, 8}, publish, 10) == set()
    assert got == [{"run_id": 7, "state": "RUNNING"}, {"run_id": 8}]


async def test_pages_have_three_megabytes_at_most(workspace: ListedWorkspace) -> None:
    """A larger run counts at once, a smaller one by half; a page has 25 runs at least."""
    workspace.active, workspace.run_bytes = list(range(900, 0, -1)), 30_000.0
    sizes = iter([15_000.0, 60_000.0, 600_000.0, 600_000.0])

    def change() -> None:
        workspace.run_bytes = next(sizes, 600_000.0)

    workspace.after_page = change
    await read(workspace, run_lists_of(workspace), workspace.active)
    assert [limit for _, _, limit in workspace.pages()][:6] == [100, 100, 133, 50, 25, 25]


async def test_the_size_of_runs_is_measured_for_each_list(workspace: ListedWorkspace) -> None:
    """Ended runs may be larger than active ones, or smaller."""
    workspace.active, workspace.run_bytes = list(range(1100, 1000, -1)), 60_000.0
    workspace.ended = list(range(1000, 0, -1))

    def change() -> None:
        workspace.run_bytes = 6_000.0

    workspace.after_page = change
    lists = run_lists_of(workspace)
    for _ in range(2):
        await read(workspace, lists, range(900, 1101))
    active = [page for page in workspace.pages() if page[0] == "active"]
    assert active == [("active", 0, 100), ("active", 0, 50), ("active", 40, 90)]


async def test_no_page_is_kept_while_the_next_one_is_read(workspace: ListedWorkspace) -> None:
    """A page has up to three megabytes."""
    workspace.active = list(range(900, 0, -1))
    kept: list[bool] = []
    workspace.after_page = lambda: kept.append(any(workspace.published))
    await read(workspace, run_lists_of(workspace), workspace.active)
    assert kept == [False] * len(kept)
    assert len(workspace.published) == len(kept) == 4


async def test_empty_answers_do_no_harm(workspace: ListedWorkspace) -> None:
    """A list without runs says nothing of their size; one of no bytes has the largest pages."""
    lists = run_lists_of(workspace)
    assert await read(workspace, lists, [1]) == {1}
    assert workspace.pages() == [("active", 0, 100)]
    workspace.active, workspace.run_bytes = list(range(50, 0, -1)), 0.0
    await read(workspace, lists, workspace.active)
    await read(workspace, lists, workspace.active)
    assert workspace.pages() == [("active", 0, 100), ("active", 0, 1000)]

"""Lists of runs that are refused, fail, or do not show every run."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_jobs_provider.api.errors import ConflictError, ServerError
from tests.helpers.listed_workspace import ListedWorkspace, read, refused, run_lists_of

BROKEN = ServerError(status=503)


async def test_a_refused_page_size_is_not_asked_for_again(workspace: ListedWorkspace) -> None:
    """The one that the error names is the largest from then on."""
    workspace.active, workspace.largest_page = list(range(120, 0, -1)), 50
    lists = run_lists_of(workspace)
    for _ in range(2):
        assert await read(workspace, lists, workspace.active) == set()
    assert [limit for _, _, limit in workspace.pages()] == [100, 50, 50, 50, 50, 50, 50]


async def test_lists_that_are_refused_are_not_read_for_ten_minutes(
    workspace: ListedWorkspace, caplog: pytest.LogCaptureFixture
) -> None:
    """The runs are returned to be read by their ids; a line of the log says so."""
    lists = run_lists_of(workspace)
    workspace.errors = [refused()]
    assert await read(workspace, lists, [1, 2]) == {1, 2}
    assert workspace.pages() == [("active", 0, 100)]
    (line,) = caplog.messages
    assert line.startswith("Runs are read one by one, since listing them is refused: ")
    assert lists.are_cheaper_than(2, 10) is False
    workspace.now += 599
    assert not lists.are_cheaper_than(2, 10)
    workspace.now += 1
    assert lists.are_cheaper_than(2, 10)


async def test_a_refusal_after_the_first_page_ends_the_list(workspace: ListedWorkspace) -> None:
    """The offset may be too large, or the token may have expired: lists are read again."""
    for version in ("2.0", "2.1"):
        workspace.version = version
        workspace.active = list(range(300, 0, -1))
        lists = run_lists_of(workspace)
        workspace.errors = [None, refused()]
        first_page = 100 if version == "2.0" else 25
        assert len(await read(workspace, lists, workspace.active)) == 300 - first_page
        assert lists.are_cheaper_than(2, 10)


@pytest.mark.parametrize("error", [ConflictError(status=409), BROKEN])
@pytest.mark.parametrize("pages", [0, 1])
async def test_other_errors_are_raised(
    workspace: ListedWorkspace, pages: int, error: Exception
) -> None:
    """They say nothing about whether lists may be read."""
    workspace.active = list(range(300, 0, -1))
    lists = run_lists_of(workspace)
    workspace.errors = [*[None] * pages, error]
    with pytest.raises(type(error)):
        await read(workspace, lists, workspace.active)
    assert lists.are_cheaper_than(2, 10)


async def test_lists_that_do_not_work_are_suspended_for_longer_each_time(
    workspace: ListedWorkspace, caplog: pytest.LogCaptureFixture
) -> None:
    """Ten seconds at first, a minute at most, with one line in the log; until they work again."""
    lists = run_lists_of(workspace)

    def suspended_seconds() -> float:
        lists.suspend(BROKEN)
        began = workspace.now
        while not lists.are_cheaper_than(2, 10):
            workspace.now += 1
        return workspace.now - began

    assert [suspended_seconds() for _ in range(5)] == [10, 20, 40, 60, 60]
    message = f"Runs are read one by one for now, since listing them does not work: {BROKEN}"
    assert caplog.messages == [message]
    workspace.has_failed = True
    await read(workspace, lists, [1])
    workspace.has_failed = False
    await read(workspace, lists, [1])
    assert suspended_seconds() == 10
    assert caplog.messages == [message, "The lists of runs can be read again.", message]


@pytest.mark.parametrize("is_hidden", [True, False])
async def test_a_run_that_the_whole_list_of_active_runs_did_not_have(
    workspace: ListedWorkspace, is_hidden: bool
) -> None:
    """Its start is forgotten if it is active all the same: the lists do not show it."""
    workspace.active = [8, 7]
    lists = run_lists_of(workspace)
    run: Any = {"run_id": 7, "start_time": 7, "state": {"life_cycle_state": "RUNNING"}}
    lists.changes.record_starts([run], {7})
    workspace.hidden = 7 if is_hidden else 0
    await read(workspace, lists, [8, 7])
    lists.changes.record_start_of_unlisted(run)
    assert (7 in lists.changes._starts) is not is_hidden

"""Reading what has changed by windows of a later version, beyond the largest offset of 2.0."""

from __future__ import annotations

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
from tests.helpers.listed_runs import PAGE, ListedRuns

pytestmark = pytest.mark.usefixtures("changes_clock")


async def test_runs_beyond_the_largest_offset_are_read_from_a_later_version() -> None:
    """What its windows tell is not read by id; a run that failed is."""
    ended = [n for n in range(1, 400) if n % 4]
    lists = ListedRuns(range(4, 400, 4), ended, filters=True, window_page=4)
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
    changes_clock: SimpleNamespace, error: Exception
) -> None:
    """Its old runs are read by their ids."""
    lists = ListedRuns(range(1, 100), range(100, 200), filters=True, window_page=4)
    lists.most_pages = 1
    lists.waited_for = set(lists.active)
    lists.knows(*lists.active)
    lists.window_error = error
    for seconds, windows in ((0, True), (599, False), (1, True)):
        changes_clock.now += seconds
        assert await lists.read(lists.active) == set(lists.active)
        assert any("start_time_to" in window for _, window in lists.asked) is windows
    lists.window_error = ConflictError(status=400, api_message="COULD_NOT_ACQUIRE_LOCK")
    changes_clock.now += 600
    with pytest.raises(ConflictError):
        await lists.read(lists.active)


async def test_windows_that_do_not_work_are_suspended_for_longer_each_time(
    changes_clock: SimpleNamespace,
) -> None:
    """After a 5xx or a lost response: for a minute, two, up to ten. What was read counts anew."""
    lists = ListedRuns(range(1, 100), range(100, 200), filters=True, window_page=4)
    lists.most_pages = 1
    lists.waited_for = set(lists.active)
    lists.knows(*lists.active)
    errors = [ServerError(status=503), ResponseLostError("closed")] * 3
    for seconds, error in zip((60, 120, 240, 480, 600, 600), errors, strict=True):
        lists.window_error = error
        assert await lists.read(lists.active) == set(lists.active)
        assert not lists.changes.can_read_windows
        changes_clock.now += seconds - 1
        assert not lists.changes.can_read_windows
        changes_clock.now += 1
        assert lists.changes.can_read_windows
    lists.window_error = None
    assert await lists.read(lists.active) != set(lists.active)
    lists.window_error = ServerError(status=503)
    changes_clock.now += 60
    await lists.read(lists.active)
    changes_clock.now += 60
    assert lists.changes.can_read_windows


@pytest.mark.parametrize("error", [ServerError(status=503), AuthenticationError(status=401)])
async def test_a_read_by_id_that_fails_suspends_no_windows(error: Exception) -> None:
    """The service is out of order, or the token has expired. It is raised, as for any read."""
    lists = ListedRuns(range(4, 400, 4), [n for n in range(1, 400) if n % 4], filters=True)
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

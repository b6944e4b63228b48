"""The position of a watch: what is stored, and what is read of it again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_jobs_provider.triggers.polling.watch_position import (
    MAX_BYTES,
    ListsRead,
    WatchPosition,
    end_of,
    max_reported,
)

STORED: dict[str, Any] = {
    "ended_after": 1000,
    "started_from": 500,
    "active": [7],
    "reported": {"8": 1500},
}


def test_a_position_survives_its_json() -> None:
    """The keys of an object are text there."""
    position = WatchPosition.from_stored([json.loads(json.dumps(STORED))])
    assert position is not None
    assert position.as_json() == STORED
    assert not position.is_first


def test_a_position_of_a_later_version_is_read_as_far_as_it_is_known() -> None:
    """After a downgrade, say."""
    position = WatchPosition.from_stored([STORED | {"more": 1}])
    assert position is not None
    assert position.as_json() == STORED


@pytest.mark.parametrize(
    "value", [None, 1, "text", [], {}, STORED | {"active": 1}, STORED | {"reported": ["8"]}]
)
def test_what_is_no_position_counts_as_nothing(value: Any) -> None:
    """Anybody can write to the store."""
    assert WatchPosition.from_stored([value]) is None
    assert WatchPosition.from_stored([value, STORED]) is not None


def test_the_latest_position_of_several_assets_counts() -> None:
    """An asset that was not watched for a while has an old one."""
    position = WatchPosition.from_stored([STORED, STORED | {"ended_after": 2000}])
    assert position is not None
    assert position.ended_after == 2000


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        ({"run_id": 1, "end_time": 1001}, True),
        ({"run_id": 1, "end_time": 1000}, False),
        ({"run_id": 7, "end_time": 900}, True),
        ({"run_id": 8, "end_time": 1500}, False),
        ({"run_id": 8, "end_time": 1600}, True),
        ({"run_id": 9, "end_time": 900}, True),
    ],
)
def test_a_run_is_reported_unless_it_was(run: dict[str, Any], expected: bool) -> None:
    """By its end, by its id if it was active, and by both if it was reported."""
    position = WatchPosition.from_stored([STORED])
    assert position is not None
    assert position.is_unreported(run, active=[9]) == expected


def test_a_position_never_goes_back() -> None:
    """What had ended before the first start is not reported after the next one."""
    position = WatchPosition(ended_after=1000, started_from=0, reported={1: 1100, 2: 1300})
    position.advance(ListsRead(ended_after=900, started_from=800, active=frozenset({5})))
    assert (position.ended_after, position.started_from, position.active) == (
        1000,
        800,
        frozenset({5}),
    )
    position.advance(ListsRead(ended_after=1200, started_from=900, active=frozenset()))
    assert (position.ended_after, position.reported) == (1200, {2: 1300})


@pytest.mark.parametrize(("active", "expected"), [(0, 1_721), (100, 1_666), (1_000, 1_169)])
def test_a_position_has_a_limit(active: int, expected: int) -> None:
    """Airflow warns of a longer one. What is left out was reported, and stays so."""
    last = 2**63 - 1  # the largest id
    now = 1_795_000_000_000
    ends = {last - n: now + n for n in range(expected + 5)}
    runs = frozenset(last - expected - 5 - n for n in range(active))
    position = WatchPosition(0, 0, reported=dict(ends))
    position.advance(ListsRead(ended_after=0, started_from=now, active=runs))
    assert len(position.reported) == max_reported(active) == expected
    assert not any(
        position.is_unreported({"run_id": run_id, "end_time": end}) for run_id, end in ends.items()
    )
    assert MAX_BYTES - 150 < len(json.dumps(position.as_json())) <= MAX_BYTES


def test_a_position_with_very_many_active_runs() -> None:
    """Such as one with runs that are still to be reported: it has no reported ones."""
    assert max_reported(10_000) == 0
    position = WatchPosition(0, 0, reported={1: 5})
    position.advance(ListsRead(ended_after=0, started_from=0, active=frozenset(range(10_000))))
    assert (position.ended_after, position.reported) == (5, {})


def test_the_end_of_a_run_without_end_time_is_computed() -> None:
    """Some versions of the service list no end_time."""
    run = {"start_time": 1000, "setup_duration": 1, "execution_duration": 2, "cleanup_duration": 3}
    assert end_of(run) == 1006
    assert end_of({"start_time": 1000, "run_duration": 50, "end_time": 0}) == 1050
    assert end_of({}) == 0

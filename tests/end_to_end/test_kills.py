from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow import __version__ as airflow_version

from tests.end_to_end.kills import (
    FUNCTION_POINTS,
    LAUNCHING,
    POINTS,
    Account,
    Killer,
    Point,
    killer,
    random_plans,
)

pytestmark = pytest.mark.skipif(
    airflow_version < "3.3", reason="the harness speaks to the supervisor of Airflow 3.3"
)

DAGS = ("submit_blocking", "submit_deferrable", "run_now_blocking", "run_now_deferrable")


@pytest.fixture(scope="module")
def at_large(migrated_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killer]:
    """An Airflow whose task processes are killed."""
    with killer(migrated_home, tmp_path_factory.mktemp("kills") / "home") as one:
        yield one


def check(account: Account, failures: int = 0) -> None:
    """One run at a time, one that succeeded, none lost; its output is the task's."""
    assert account.state == "success", account
    assert account.at_once == 1, account
    assert len(account.succeeded) == 1, account
    assert account.lost == [], account
    assert account.launched == failures + 1, account
    (run_id,) = account.succeeded
    assert account.xcoms["run_id"] == run_id, account
    assert account.xcoms["return_value"] == f"output of {run_id}", account


@pytest.mark.parametrize("point", POINTS, ids=str)
def test_killed(at_large: Killer, point: Point) -> None:
    """A task whose process is killed there once ends well, with the one run it launched."""
    account = at_large.kill_at("submit", point, seconds=0.2)
    assert account.kills == 1, account
    check(account)


@pytest.mark.parametrize("point", FUNCTION_POINTS, ids=str)
def test_killed_function(at_large: Killer, point: Point) -> None:
    """The same for a function of a DAG, whose result is returned; it is stored once."""
    account = at_large.kill_at("python", point, seconds=0.2)
    assert account.kills == 1, account
    check(account)
    assert len(at_large.service.notebooks) == 1


@pytest.mark.parametrize(
    "point",
    [
        # Once it is launched, a run of a job is followed as any other.
        point if point in LAUNCHING else pytest.param(point, marks=pytest.mark.thorough)
        for point in POINTS
        if point in LAUNCHING or point.endpoints
    ],
    ids=str,
)
@pytest.mark.slow
def test_killed_run_now(at_large: Killer, point: Point) -> None:
    """The same for a run of a job."""
    account = at_large.kill_at("run_now", point, seconds=0.2)
    assert account.kills == 1, account
    check(account)


@pytest.mark.slow
@pytest.mark.parametrize("wanted", [10, pytest.param(100, marks=pytest.mark.thorough)])
def test_killed_at_random(at_large: Killer, wanted: int) -> None:
    """So many kills at any moment, of tasks some of whose runs fail: never a run too many."""
    dice = random.Random(4)
    kills = tasks = 0
    while kills < wanted:
        plans = random_plans(dice)
        account = at_large.kill_after(
            DAGS[tasks % len(DAGS)], [dice.uniform(0, 0.7) for _ in range(8)], plans
        )
        check(account, failures=len(plans) - 1)
        kills += account.kills
        tasks += 1

"""Tasks of a workflow group that claim the next repair, so that one of them requests it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from airflow_jobs_provider.api.retry import no_waiting
from airflow_jobs_provider.operators import workflow_rerun
from tests.fakes.scripted_server import ScriptedServer
from tests.helpers.responses import OUTPUT
from tests.helpers.workflow_group import DONE, FAILED, RERUN, Airflow, sent, task, whole

ENDED = whole("TERMINATED", *FAILED)
REPAIRED_BY_OTHER = whole("RUNNING", *RERUN, repairs=1)
DONE_A = whole("RUNNING", *DONE, repairs=1)
DONE_B = whole("RUNNING", *FAILED, task("b", 201, "TERMINATED", "SUCCESS"), repairs=1)


def claim(airflow: Airflow, key: str, *, is_repairing: bool = True) -> None:
    """Let a task that is executed claim the repair, or give up its claim."""
    run_id = {"a": 100, "b": 101}[key]
    airflow.states[f"etl.{key}"] = "running"
    airflow.record(key, reported=run_id, wants_rerun_of=run_id, is_repairing=is_repairing)


def at(look: int, change: Callable[[], None]) -> Callable[[], None]:
    """Return a function that changes something when it is called for this time."""
    calls = 0

    def called() -> None:
        nonlocal calls
        calls += 1
        if calls == look:
            change()

    return called


def claims(airflow: Airflow, key: str) -> bool:
    """Return whether a task claims the repair."""
    return bool(airflow.recorded(key).get("is_repairing"))


def test_the_task_that_was_first_is_waited_for(cleared: Airflow, server: ScriptedServer) -> None:
    """It has repaired the run; the other task finds its new run, and claims nothing."""
    claim(cleared, "b")
    cleared.before_states = at(4, lambda: claim(cleared, "b", is_repairing=False))
    server.will(ENDED, REPAIRED_BY_OTHER, DONE_A, OUTPUT)
    with no_waiting() as waits:
        assert cleared.execute(2, 1) == "42"
    assert waits[:2] == [1.0, 1.0]
    assert sent(server, "runs/repair") == []
    assert not claims(cleared, "a")


@pytest.mark.parametrize("state", ["up_for_retry", "deferred", "failed"])
def test_the_claim_of_a_task_that_is_not_executed(
    state: str, cleared: Airflow, server: ScriptedServer
) -> None:
    """It is over, although the process has not said so."""
    claim(cleared, "b")
    cleared.states["etl.b"] = state
    server.will(ENDED, *cleared.repair(), DONE_A, OUTPUT)
    with no_waiting() as waits:
        assert cleared.execute(2, 1) == "42"
    assert 1.0 not in waits
    assert len(sent(server, "runs/repair")) == 1


def test_a_task_that_claims_too_long(
    cleared: Airflow, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process has died before the repair. The other task repairs the run for both."""
    monkeypatch.setattr(workflow_rerun, "CLAIM_SECONDS", 0.0)
    claim(cleared, "b")
    server.will(ENDED, ENDED, *cleared.repair(), DONE_A, OUTPUT)
    assert cleared.execute(2, 1) == "42"
    (repair,) = sent(server, "runs/repair")
    assert repair["rerun_tasks"] == ["a", "b"]
    assert not claims(cleared, "a")


def test_two_claims_at_the_same_moment(cleared: Airflow, server: ScriptedServer) -> None:
    """The task whose id comes first keeps its claim, and repairs once the other has none."""
    seen = list[bool]()

    def give_up() -> None:
        seen.append(claims(cleared, "a"))
        claim(cleared, "b", is_repairing=False)

    first, then = at(2, lambda: claim(cleared, "b")), at(4, give_up)
    cleared.before_states = lambda: (first(), then())
    server.will(ENDED, *cleared.repair(), DONE_A, OUTPUT)
    with no_waiting():
        assert cleared.execute(2, 1) == "42"
    assert seen == [True]
    (repair,) = sent(server, "runs/repair")
    assert repair["rerun_tasks"] == ["a", "b"]
    assert not claims(cleared, "a")


def test_the_other_of_two_claims_at_the_same_moment(
    cleared: Airflow, server: ScriptedServer
) -> None:
    """The task whose id comes second gives up its claim, and finds what the first has repaired."""
    claim(cleared, "a", is_repairing=False)
    cleared.states["etl.b"] = "running"
    seen = list[bool]()

    def end() -> None:
        seen.append(claims(cleared, "b"))
        claim(cleared, "a", is_repairing=False)

    first, then = at(2, lambda: claim(cleared, "a")), at(4, end)
    cleared.before_states = lambda: (first(), then())
    server.will(ENDED, REPAIRED_BY_OTHER, DONE_B, OUTPUT)
    with no_waiting():
        assert cleared.execute(2, 1, key="b") == "42"
    assert seen == [False]
    assert sent(server, "runs/repair") == []


def test_the_claim_of_an_earlier_attempt(cleared: Airflow, server: ScriptedServer) -> None:
    """It is over once the next attempt follows a run."""
    cleared.record("a", reported=100, wants_rerun_of=100, is_repairing=True)
    server.will(REPAIRED_BY_OTHER, DONE_A, OUTPUT)
    assert cleared.execute(3, 2) == "42"
    assert not claims(cleared, "a")


def test_no_task_waits_for_the_claim_of_an_attempt_that_has_died(
    cleared: Airflow, server: ScriptedServer
) -> None:
    """The next attempt gives it up before it waits for the claim of another task itself."""
    cleared.record("a", reported=100, wants_rerun_of=100, is_repairing=True)
    claim(cleared, "b")
    seen = list[bool]()

    def end() -> None:
        seen.append(claims(cleared, "a"))
        claim(cleared, "b", is_repairing=False)

    cleared.before_states = at(2, end)
    server.will(ENDED, REPAIRED_BY_OTHER, DONE_A, OUTPUT)
    with no_waiting():
        assert cleared.execute(3, 2) == "42"
    assert seen == [False]
    assert sent(server, "runs/repair") == []

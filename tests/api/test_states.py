"""The one table that says what a run's states mean."""

from __future__ import annotations

import copy
import itertools
import pickle
from typing import Any

import pytest

from airflow_jobs_provider.api.states import RunLifeCycleState, RunResultState, RunState, RunStatus

ACTIVE = ["QUEUED", "PENDING", "RUNNING", "TERMINATING", "BLOCKED", "WAITING_FOR_RETRY"]
TERMINATED = {
    None: RunStatus.FAILED,
    "SUCCESS": RunStatus.SUCCEEDED,
    "FAILED": RunStatus.FAILED,
    "TIMEDOUT": RunStatus.TIMED_OUT,
    "CANCELED": RunStatus.CANCELED,
    "MAXIMUM_CONCURRENT_RUNS_REACHED": RunStatus.SKIPPED,
    "EXCLUDED": RunStatus.SKIPPED,
    "SUCCESS_WITH_FAILURES": RunStatus.SUCCEEDED_WITH_FAILURES,
    "UPSTREAM_FAILED": RunStatus.FAILED,
    "UPSTREAM_CANCELED": RunStatus.CANCELED,
    "DISABLED": RunStatus.SKIPPED,
    "A_NEW_ONE": RunStatus.FAILED,
}
INTERNAL_ERROR = {
    result: verdict if verdict in (RunStatus.TIMED_OUT, RunStatus.CANCELED) else RunStatus.FAILED
    for result, verdict in TERMINATED.items()
}
CASES = [
    *(
        (life, result, RunStatus.ACTIVE)
        for life in (*ACTIVE, "A_NEW_ONE", "")
        for result in TERMINATED
    ),
    *(("SKIPPED", result, RunStatus.SKIPPED) for result in TERMINATED),
    *(("TERMINATED", result, verdict) for result, verdict in TERMINATED.items()),
    *(("INTERNAL_ERROR", result, verdict) for result, verdict in INTERNAL_ERROR.items()),
]


@pytest.mark.parametrize(("life", "result", "verdict"), CASES)
def test_every_pair_of_states_has_its_verdict(
    life: str, result: str | None, verdict: RunStatus
) -> None:
    """Only TERMINATED can succeed; what is not known to have ended is active."""
    state = RunState(life, result)
    assert state.status is verdict
    assert state.is_terminal == (verdict is not RunStatus.ACTIVE)
    assert state.is_successful == state.succeeded() == (verdict is RunStatus.SUCCEEDED)
    good = (RunStatus.SUCCEEDED, RunStatus.SUCCEEDED_WITH_FAILURES)
    assert state.succeeded(fail_on_partial_success=False) == (verdict in good)


def test_the_cases_above_are_all_pairs() -> None:
    """No state of the reference is left out."""
    pairs = {(life, result) for life, result, _ in CASES}
    assert pairs >= set(itertools.product(RunLifeCycleState, (None, *RunResultState)))


def test_a_state_is_read_from_a_run() -> None:
    """All fields of the reference's RunState are kept."""
    run = {
        "state": {
            "life_cycle_state": "TERMINATED",
            "result_state": "CANCELED",
            "state_message": "Run cancelled.",
            "user_cancelled_or_timedout": True,
        }
    }
    assert RunState.from_run(run) == RunState("TERMINATED", "CANCELED", "Run cancelled.", True)
    assert str(RunState.from_run(run)) == "TERMINATED/CANCELED: Run cancelled."
    assert RunState("RUNNING") == RunState("RUNNING", "", "", False)


@pytest.mark.parametrize("run", [{}, {"state": None}, {"state": {}}])
def test_a_missing_state_is_no_error(run: dict[str, object]) -> None:
    """A run whose answer lacks the state counts as active."""
    assert RunState.from_run(run).status is RunStatus.ACTIVE


def test_new_states_are_kept_and_known_to_be_unknown() -> None:
    """A value that the service adds survives as text."""
    state = RunState.from_run({"state": {"life_cycle_state": "HIBERNATING"}})
    assert (state.life_cycle_state, state.is_known) == ("HIBERNATING", False)
    assert RunState("TERMINATED", "SUCCESS").is_known
    assert not RunState("TERMINATED", "GREAT_SUCCESS").is_known


def test_a_state_is_made_from_the_services_object() -> None:
    """As the official provider's users make one: by position, or from all fields at once."""
    state = RunState("TERMINATED", "FAILED", "no file")
    assert (state.life_cycle_state, state.result_state) == ("TERMINATED", "FAILED")
    assert (state.state_message, state.is_terminal, state.is_successful) == ("no file", True, False)
    assert RunState("RUNNING").result_state == RunState("RUNNING").state_message == ""
    fields: dict[str, Any] = {
        "life_cycle_state": "RUNNING",
        "result_state": None,
        "queue_reason": "new",
        "x": 1,
    }
    assert RunState(**fields) == RunState("RUNNING")
    assert list(RunLifeCycleState) == RunState.RUN_LIFE_CYCLE_STATES


@pytest.mark.parametrize(
    "state",
    [
        RunState("TERMINATED", "SUCCESS", "m"),
        RunState("RUNNING"),
        RunState("TERMINATED", "CANCELED", "m", True),
    ],
)
def test_a_state_survives_json_pickle_and_copy(state: RunState) -> None:
    """It may be an XCom."""
    assert RunState.from_json(state.to_json()) == state
    assert pickle.loads(pickle.dumps(state)) == copy.copy(state) == state
    assert {state, copy.copy(state)} == {state}


def test_the_json_is_that_of_the_official_provider() -> None:
    """Stored XComs of it can be read, and the other way round."""
    written = '{"life_cycle_state": "TERMINATED", "result_state": "SUCCESS", "state_message": ""}'
    assert RunState.from_json(written) == RunState("TERMINATED", "SUCCESS")
    assert RunState("TERMINATED", "SUCCESS").to_json() == written

"""Whether a triggerer may have been paused: by its clocks, and by Airflow's answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_jobs_provider.airflow_compat import triggerer_health as module
from airflow_jobs_provider.airflow_compat.lines import airflow_line
from airflow_jobs_provider.airflow_compat.triggerer_health import triggerer_health

BEGIN = 1_000.0


class Clock:
    """Both clocks; each can be set alone."""

    def __init__(self) -> None:
        self.wall, self.steady = 1_000_000.0, BEGIN

    def time(self) -> float:
        """Return the time of day."""
        return self.wall

    def monotonic(self) -> float:
        """Return the time since the start of the machine."""
        return self.steady

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.wall += seconds
        self.steady += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Clocks that stand still; Airflow has answered all messages."""
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(airflow_line(), "pending_messages", dict, raising=False)
    return clock


def in_loop(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine in an event loop of its own."""
    asyncio.run(work())


def let_pass(clock: Clock, seconds: int) -> None:
    """Let seconds pass, with a look at the clocks after each."""
    for _ in range(seconds):
        clock.advance(1)
        triggerer_health().may_have_paused(clock.steady)


def test_nothing_is_known_before_the_first_look(clock: Clock) -> None:
    """Of the time since then it is known that there was no pause."""

    async def work() -> None:
        health = triggerer_health()
        assert not health.stores_xcoms
        let_pass(clock, 10)
        assert health.may_have_paused(BEGIN - 0.1)
        assert not health.may_have_paused(BEGIN)

    in_loop(work)


@pytest.mark.parametrize(
    ("wall", "steady", "is_pause"),
    [
        pytest.param(6.0, 6.0, True, id="stopped"),
        pytest.param(6.0, 0.1, True, id="suspended"),
        pytest.param(-60.0, 6.0, True, id="stopped, and its clock set back"),
        pytest.param(-60.0, 1.0, False, id="its clock set back"),
        pytest.param(5.0, 5.0, False, id="late"),
    ],
)
def test_a_gap_is_a_pause(clock: Clock, wall: float, steady: float, is_pause: bool) -> None:
    """It is noticed by whoever asks first; what begins later is not concerned."""

    async def work() -> None:
        health = triggerer_health()
        let_pass(clock, 10)
        since = clock.steady
        clock.wall += wall
        clock.steady += steady
        assert health.may_have_paused(since) is is_pause
        assert not health.may_have_paused(clock.steady)

    in_loop(work)


def test_the_event_loop_looks_by_itself(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a pause is noticed that ended before anybody asked."""
    monkeypatch.setattr(module, "_BEAT_SECONDS", 0.001)

    async def work() -> None:
        health = triggerer_health()
        looked = asyncio.Event()

        def look() -> dict[int, None]:
            looked.set()
            return {}

        monkeypatch.setattr(airflow_line(), "pending_messages", look)
        clock.advance(6)
        await asyncio.wait_for(looked.wait(), 10)
        monkeypatch.setattr(airflow_line(), "pending_messages", dict)
        clock.advance(1)
        assert health.may_have_paused(BEGIN + 5.9)
        assert not health.may_have_paused(BEGIN + 6)

    in_loop(work)


def test_a_message_without_an_answer_is_a_pause(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The main process does not notice that the trigger is no longer its own."""

    async def work() -> None:
        health = triggerer_health()
        pending: dict[int, None] = {}
        monkeypatch.setattr(airflow_line(), "pending_messages", lambda: pending)
        for number in range(20):  # always one, but another one
            pending.clear()
            pending[number] = None
            let_pass(clock, 1)
        assert not health.may_have_paused(BEGIN)
        let_pass(clock, 5)
        assert not health.may_have_paused(BEGIN)
        let_pass(clock, 1)
        assert health.may_have_paused(BEGIN)
        pending.clear()
        let_pass(clock, 1)
        answered = clock.steady
        assert health.may_have_paused(answered - 1.1)
        assert not health.may_have_paused(answered)

    in_loop(work)


def test_messages_that_wait_for_long_behind_others_are_no_pause(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is answered soon after the one before it: the main process is busy, and alive."""

    async def work() -> None:
        health = triggerer_health()
        pending: dict[int, None] = dict.fromkeys(range(100))
        monkeypatch.setattr(airflow_line(), "pending_messages", lambda: pending)
        let_pass(clock, 1)
        for number in range(95):
            del pending[number]
            pending[100 + number] = None
            clock.advance(0.1)
            assert not health.may_have_paused(BEGIN)
        answered = clock.steady
        let_pass(clock, 5)
        assert not health.may_have_paused(BEGIN)
        let_pass(clock, 1)
        assert health.may_have_paused(answered)

    in_loop(work)


@pytest.mark.parametrize("is_answered", [True, False])
def test_a_long_start_of_triggers_is_a_pause_only_without_messages(
    is_answered: bool, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow takes a triggerer that sends no messages for dead."""

    async def work() -> None:
        health = triggerer_health()
        pending: dict[int, None] = {}
        monkeypatch.setattr(airflow_line(), "pending_messages", lambda: pending)
        let_pass(clock, 10)
        since = clock.steady
        for _batch in range(10):  # one in each second
            let_pass(clock, 1)
            health.trigger_started()
            clock.advance(0.1)
            health.trigger_started()
        assert not health.may_have_paused(since)
        let_pass(clock, 1)
        began = clock.steady
        for number in range(70):
            if is_answered and number % 20 == 10:
                pending[number] = None
            health.trigger_started()
            pending.clear()
            is_pause = not is_answered and clock.steady - began > 5
            assert health.may_have_paused(since) is is_pause
            clock.advance(0.1)
        assert not health.may_have_paused(clock.steady)

    in_loop(work)


def test_without_knowledge_of_messages_a_pause_is_assumed_every_five_seconds(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a release of Airflow whose internals have changed."""
    monkeypatch.setattr(airflow_line(), "pending_messages", lambda: None)

    async def work() -> None:
        health = triggerer_health()
        let_pass(clock, 5)
        assert not health.may_have_paused(BEGIN)
        let_pass(clock, 1)
        assert health.may_have_paused(BEGIN + 5.9)
        assert not health.may_have_paused(BEGIN + 6)

    in_loop(work)


def test_each_event_loop_has_its_own(clock: Clock) -> None:
    """Those of closed loops are forgotten."""

    async def work() -> None:
        assert triggerer_health() is triggerer_health()
        triggerer_health().stores_xcoms = True

    in_loop(work)

    async def again() -> None:
        assert not triggerer_health().stores_xcoms
        assert len(module._healths._values) == 1

    in_loop(again)


def test_the_messages_are_those_of_airflows_own_object(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where this fails, each message about a pause is sent again, as if there were one."""
    runner = pytest.importorskip("airflow.jobs.triggerer_job_runner")
    if not airflow_line().renders_in_triggerer:
        assert airflow_line().pending_messages() is None
        return
    from airflow.sdk.execution_time import task_runner

    (pending,) = (
        one for one in runner.TriggerCommsDecoder.__attrs_attrs__ if one.name == "_pending"
    )
    assert isinstance(pending.default.factory(), dict)
    monkeypatch.setattr(
        task_runner, "SUPERVISOR_COMMS", SimpleNamespace(_pending={3: None}), raising=False
    )
    assert list(airflow_line().pending_messages() or ()) == [3]
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", SimpleNamespace(_pending=[3]))
    assert airflow_line().pending_messages() is None
    monkeypatch.delattr(task_runner, "SUPERVISOR_COMMS")
    assert airflow_line().pending_messages() is None


def test_an_outdated_trigger_runs_for_seconds_after_a_pause_at_most(clock: Clock) -> None:
    """Airflow cancels it then, once it has started the triggers that it starts together."""

    async def work() -> None:
        health = triggerer_health()
        let_pass(clock, 10)
        since = clock.steady
        assert not health.may_run_outdated(since)
        clock.advance(6)
        assert health.may_run_outdated(since)
        let_pass(clock, 3)
        health.trigger_started()
        let_pass(clock, 5)
        assert health.may_run_outdated(since)
        let_pass(clock, 1)
        assert not health.may_run_outdated(since)
        health.trigger_started()
        assert not health.may_run_outdated(since)
        assert health.may_have_paused(since)

    in_loop(work)

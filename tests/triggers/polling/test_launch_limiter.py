"""The rate limit for launches: its pace, turns between DAGs, and what a cancelled wait leaves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_jobs_provider.triggers.polling import launch_limiter, rate_limiter
from airflow_jobs_provider.triggers.polling.launch_limiter import HostLimiters, LaunchLimiter
from tests.helpers.virtual_time import VirtualTimeLoop, run_in_virtual_time

OPTION = "AIRFLOW__DATABRICKS_JOBS__LAUNCHES_PER_SECOND"


class Bench:
    """A limiter of 5 launches a second, in a time of its own.

    :ivar launched: the second and the DAG of each launch, in order.
    :ivar seconds: how long each launch takes.
    """

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self.loop, self.began = loop, loop.time()
        self.limiter = LaunchLimiter("w", "run-now", 5.0)
        self.launched: list[tuple[float, str]] = []
        self.seconds = 0.0

    def now(self) -> float:
        """Return the seconds since the test began."""
        return round(self.loop.time() - self.began, 6)

    async def launch(self, dag_id: str) -> None:
        """Launch a run."""
        async with self.limiter.acquire(dag_id):
            self.launched.append((self.now(), dag_id))
            await asyncio.sleep(self.seconds)

    def start(self, dag_id: str, count: int) -> list[asyncio.Task[None]]:
        """Launch runs of a DAG concurrently."""
        return [asyncio.create_task(self.launch(dag_id)) for _ in range(count)]

    def order(self) -> str:
        """Return the DAGs in the order of their launches."""
        return "".join(dag_id for _, dag_id in self.launched)


Scenario = Callable[[Bench], Coroutine[Any, Any, None]]
Play = Callable[[Scenario], Bench]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Play:
    """Plays a scenario in a time of its own."""

    def start(scenario: Scenario) -> Bench:
        loop = VirtualTimeLoop()
        for module in (launch_limiter, rate_limiter):
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=loop.time))

        async def run() -> Bench:
            bench = Bench(loop)
            await scenario(bench)
            return bench

        return run_in_virtual_time(run(), loop)

    return start


def test_three_launches_do_not_wait_for_a_thousand_of_another_dag(play: Play) -> None:
    """They take turns, at the pace of 5 a second over all."""

    async def scenario(bench: Bench) -> None:
        tasks = bench.start("many", 1000)
        await asyncio.sleep(0.1)
        few = bench.start("few", 3)
        await asyncio.gather(*few)
        assert bench.now() <= 1.6
        await asyncio.gather(*tasks)

    bench = play(scenario)
    assert [second for second, _ in bench.launched] == pytest.approx([n / 5 for n in range(1003)])
    assert [dag_id for _, dag_id in bench.launched].count("many") == 1000


def test_the_event_loop_is_free_while_a_thousand_wait(play: Play) -> None:
    """One timer is set, not a thousand, and each launch wakes nobody but the next one."""

    async def scenario(bench: Bench) -> None:
        tasks = bench.start("many", 1000)
        await asyncio.sleep(0.3)
        assert len(bench.loop._scheduled) <= 1  # type: ignore[attr-defined]
        rounds = bench.loop.rounds
        await asyncio.sleep(100)
        assert len(bench.launched) == 502
        # Per launch: the timer, the task that it wakes, and the task that gets the next turn.
        assert bench.loop.rounds - rounds <= 500 * 4
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    play(scenario)


def test_dags_take_turns_and_tasks_of_a_dag_keep_their_order(play: Play) -> None:
    """A DAG that has launched goes behind the others."""

    async def scenario(bench: Bench) -> None:
        tasks = [task for dag in "aaaabbc" for task in bench.start(dag, 1)]
        await asyncio.gather(*tasks)

    # The first two had their turns before the others asked.
    assert play(scenario).order() == "aa" + "abcab"


def test_a_cancelled_launch_leaves_nothing(play: Play) -> None:
    """Neither while it waits for its turn, nor when the turn has just come, nor in its turn."""

    async def scenario(bench: Bench) -> None:
        turns = bench.limiter._turns
        first, holder, waiting, given, last = (bench.start(dag, 1)[0] for dag in "abcde")
        await asyncio.sleep(0.05)
        assert bench.order() == "a"
        waiting.cancel()  # in the queue
        await asyncio.wait({waiting})
        assert (turns.waiting, turns.dag_ids) == (2, {"d", "e"})
        holder.cancel()  # it has the turn, and waits for the pace
        await asyncio.sleep(0)
        given.cancel()  # the turn has just come
        await asyncio.wait({holder, given})
        assert first.done()
        await last
        assert bench.order() == "ae"
        assert (turns.waiting, turns.dag_ids, turns._is_taken) == (0, set(), False)
        await bench.launch("f")
        assert bench.launched == [(0.0, "a"), (0.2, "e"), (0.4, "f")]

    play(scenario)


def test_all_of_a_thousand_can_be_cancelled(play: Play) -> None:
    """The next launch does not wait."""

    async def scenario(bench: Bench) -> None:
        tasks = bench.start("many", 1000)
        await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await bench.launch("b")
        assert bench.launched == [(0.0, "many"), (0.2, "b")]

    play(scenario)


def test_four_launches_are_in_flight_at_most(play: Play) -> None:
    """Slow launches leave room for the pollers' requests."""

    async def scenario(bench: Bench) -> None:
        bench.seconds = 10.0
        await asyncio.gather(*bench.start("a", 8))

    seconds = [second for second, _ in play(scenario).launched]
    assert seconds == pytest.approx([0, 0.2, 0.4, 0.6, 10, 10.2, 10.4, 10.6])


def test_a_429_pauses_and_halves_the_rate(play: Play) -> None:
    """By the rules of the limiter of all requests; the rate recovers with time."""

    async def scenario(bench: Bench) -> None:
        await bench.launch("a")
        bench.limiter.slow_down(30, sent_at=bench.loop.time())
        await asyncio.gather(*bench.start("b", 2))
        await asyncio.sleep(600)
        await asyncio.gather(*bench.start("c", 3))

    first, second, third, *later = (second for second, _ in play(scenario).launched)
    assert (first, second) == (0, 30)
    assert third - second == pytest.approx(1 / 2.5, rel=0.1)
    assert later[2] - later[1] == pytest.approx(0.2)


def test_a_rate_below_one_a_second_is_kept_after_a_429(play: Play) -> None:
    """The lowest rate of all requests, 1 a second, does not raise it."""

    async def scenario(bench: Bench) -> None:
        bench.limiter = LaunchLimiter("w", "run-now", 0.1)
        await bench.launch("a")
        bench.limiter.slow_down(0, sent_at=bench.loop.time())
        await asyncio.gather(*bench.start("b", 2))

    assert [second for second, _ in play(scenario).launched] == pytest.approx([0, 10, 20])


def test_holding_back_is_logged_once_for_all(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    """After five seconds, and again no earlier than ten minutes later."""
    caplog.set_level(logging.INFO)

    async def scenario(bench: Bench) -> None:
        tasks = bench.start("a", 20)
        await asyncio.gather(*tasks)
        assert caplog.messages == []
        await asyncio.sleep(60)
        tasks = [*bench.start("a", 900), *bench.start("b", 100)]
        await asyncio.gather(*tasks)
        (line,) = caplog.messages
        assert line == (
            "Launches are held back (waiting: 974, DAGs: 2). The rate of run-now to w is 5 a "
            "second, see [databricks_jobs] launches_per_second, and lower while Airflow stores the "
            "ids of runs more slowly."
        )
        await asyncio.sleep(600)
        await asyncio.gather(*bench.start("a", 100))

    play(scenario)
    assert len(caplog.messages) == 2


@pytest.mark.parametrize(("next_at", "lines"), [(599, 1), (600, 2)])
def test_holding_back_is_logged_after_five_seconds_and_ten_minutes(
    play: Play, caplog: pytest.LogCaptureFixture, next_at: float, lines: int
) -> None:
    """Not a second earlier. The third launch has waited for five seconds when its turn comes."""
    caplog.set_level(logging.INFO)

    async def scenario(bench: Bench) -> None:
        bench.limiter = LaunchLimiter("w", "run-now", 0.2)
        await asyncio.gather(*bench.start("a", 3))
        assert len(caplog.messages) == 1
        await asyncio.sleep(next_at - bench.now())
        await asyncio.gather(*bench.start("a", 3))

    play(scenario)
    assert len(caplog.messages) == lines


def rates() -> dict[str, float]:
    """Return the launches per second of a new host, by endpoint."""
    launches = HostLimiters.for_host("w").launches
    return {path: limiter._limiter.requests_per_second for path, limiter in launches.items()}


DEFAULT_RATES = {"runs/submit": 8.75, "run-now": 5.0}


async def test_the_pace_is_a_setting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says so of a value above the service's limit, and of one that is not used."""
    assert rates() == DEFAULT_RATES
    monkeypatch.setenv(OPTION, "2.5")
    assert rates() == {"runs/submit": 2.5, "run-now": 2.5}
    # One launch in ten seconds.
    monkeypatch.setenv(OPTION, "0.1")
    assert set(rates().values()) == {0.1}
    requests = HostLimiters.for_host("w").requests
    assert requests.requests_per_second == rate_limiter.REQUESTS_PER_SECOND
    assert caplog.messages == []
    for high, limits in (("20.5", "20 run-now"), ("36", "35 runs/submit and 20 run-now")):
        caplog.clear()
        monkeypatch.setenv(OPTION, high)
        assert set(rates().values()) == {float(high)}
        (line,) = caplog.messages
        assert line == (
            f"[databricks_jobs] launches_per_second is {high}, above the published limit of the "
            f"service: it allows a workspace {limits} per second, for all its clients together."
        )
        assert caplog.records[0].levelname == "WARNING"
        HostLimiters.for_host("another host")
        assert len(caplog.messages) == 1
    monkeypatch.setenv(OPTION, "20")
    caplog.clear()
    assert set(rates().values()) == {20}
    assert caplog.messages == []
    for wrong in ("0", "-1", "nan", "inf", "ten", ""):
        caplog.clear()
        monkeypatch.setenv(OPTION, wrong)
        assert rates() == DEFAULT_RATES
        assert len(caplog.messages) == 1
        assert "[databricks_jobs] launches_per_second is not used" in caplog.messages[0]

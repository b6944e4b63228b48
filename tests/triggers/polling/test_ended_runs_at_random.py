"""Runs that end at random, with outages, refusals and restarts: each is told once.

``ENDED_RUNS_SEEDS=FROM-TO`` selects other seeds than those of the checks.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from airflow_jobs_provider.triggers.polling import ended_runs
from tests.helpers.timeless_workspace import Workspace, play
from tests.helpers.watch_observer import Observer

WATCHES = 2
FIRST_SEED, _, LAST_SEED = os.environ.get("ENDED_RUNS_SEEDS", "0-4").partition("-")
# What ends so shortly before the end of a scenario need not be told yet.
UNTOLD_SECONDS = 100


@dataclass(frozen=True)
class Scenario:
    """What happens, by a seed.

    :ivar seconds: how long runs are started.
    :ivar rate: how often something happens, per second.
    :ivar api_version: version of the API.
    :ivar has_small_pages: whether pages have 25 runs in version 2.0, too.
    """

    seconds: int
    rate: float
    api_version: str
    has_small_pages: bool

    @classmethod
    def from_random(cls, chance: random.Random, seconds: int) -> Scenario:
        """Choose one."""
        return cls(
            seconds,
            chance.choice([0.1, 0.3, 1]),
            chance.choice(["2.0", "2.1"]),
            chance.random() < 0.5,
        )


@dataclass
class WatchWithRestarts:
    """A watch that a triggerer stops, and starts again with what it has stored.

    :ivar told: what was told before the present start, as id and end of each run.
    :ivar began_at: the time from which runs are to be told, in seconds of the clock.
    :ivar restart_at: when it is started again; None while it works.
    """

    workspace: Workspace
    began_at: float
    told: list[tuple[int, int]] = field(default_factory=list)
    position: Mapping[str, Any] = field(default_factory=dict)
    restart_at: float | None = None

    def start(self) -> None:
        """Start it. Without a position it looks back to its first start."""
        look_back = 0 if self.position else self.workspace.now() - self.began_at
        self.restart_at = None
        self.observer = Observer(
            self.workspace, position=self.position or None, look_back=look_back
        )

    async def stop(self, seconds: float) -> None:
        """Stop it for some time."""
        self.told = self.all_told()
        self.position = await self.observer.stop() or self.position
        self.observer.runs = []
        self.restart_at = self.workspace.now() + seconds

    def all_told(self) -> list[tuple[int, int]]:
        """Return what was told, as id and end of each run."""
        return self.told + [(one.run["run_id"], one.run["end_time"]) for one in self.observer.runs]


async def play_at_random(workspace: Workspace, chance: random.Random, scenario: Scenario) -> None:
    """Let runs start and end, and things go wrong; then compare what was told."""
    refusals: deque[int] = deque()
    answer = workspace.answer

    async def refuse_some(request: Any) -> Any:
        if refusals:
            return web.Response(status=refusals.popleft(), text="no")
        return await answer(request)

    workspace.answer = refuse_some  # type: ignore[method-assign]
    if scenario.has_small_pages:
        workspace.max_page = 25
    ids = iter(range(1, 10**9))
    for _ in range(chance.choice([0, 40, 200])):
        ago = chance.uniform(0, 50 * 86_400)
        workspace.start(next(ids), ago=ago, lasting=ago + chance.uniform(1, 2000))
    for _ in range(chance.choice([0, 100])):
        ago = chance.uniform(100, 80_000)
        workspace.start(next(ids), ago=ago, lasting=chance.uniform(0, 90))
    began_at = workspace.now()
    watches = [WatchWithRestarts(workspace, began_at) for _ in range(WATCHES)]
    for watch in watches:
        watch.start()
    down_until = 0.0
    while workspace.now() < began_at + scenario.seconds:
        await asyncio.sleep(chance.expovariate(scenario.rate))
        longest = chance.choice([5, 100, 800])
        for _ in range(chance.choice([1, 1, 1, 5])):
            workspace.start(next(ids), lasting=chance.uniform(0, longest))
        now, event = workspace.now(), chance.random() * max(1.0, scenario.rate)
        workspace.is_down = now < down_until
        if event < 0.01:
            down_until = now + chance.uniform(1, 300)
        elif event < 0.02:
            refusals.extend(chance.choices([500, 503, 429, 403, 401], k=chance.randint(1, 3)))
        elif event < 0.03:
            watch = chance.choice(watches)
            if watch.restart_at is None:
                await watch.stop(chance.choice([0, 5, 400]))
        for watch in watches:
            if watch.restart_at is not None and now >= watch.restart_at:
                watch.start()
    workspace.is_down = False
    refusals.clear()
    for watch in watches:
        if watch.restart_at is not None:
            watch.start()
    await asyncio.sleep(700)
    until = (workspace.now() - UNTOLD_SECONDS) * 1000
    ends = ((run.run_id, int(run.end * 1000)) for run in workspace.runs.values())
    expected = Counter(one for one in ends if began_at * 1000 < one[1] < until)
    for watch in watches:
        told = Counter(one for one in watch.all_told() if one[1] < until)
        assert told == expected, (told - expected, expected - told)


def play_seed(monkeypatch: pytest.MonkeyPatch, seed: int, seconds: int) -> None:
    """Play the scenario of a seed."""
    chance = random.Random(seed)
    if chance.random() < 0.5:
        monkeypatch.setattr(ended_runs, "MAX_ACTIVE_IDS", 5)
    scenario = Scenario.from_random(chance, seconds)
    play(monkeypatch, play_at_random, chance, scenario, api_version=scenario.api_version)


def test_a_few_minutes_at_random(monkeypatch: pytest.MonkeyPatch) -> None:
    """One short scenario."""
    play_seed(monkeypatch, 1, seconds=200)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(int(FIRST_SEED), int(LAST_SEED) + 1))
def test_each_run_is_told_once(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Whatever goes wrong, and however often the watches are restarted."""
    play_seed(monkeypatch, seed, seconds=600)

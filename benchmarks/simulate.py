"""Simulate the waits of a poller for hours, in virtual time, with a service in memory.

    python -m benchmarks.simulate

The poller, the workflows and the rate limiters are the real ones. The clock of the event loop jumps
to the next timer, so an hour takes seconds. The service is in memory: its responses are not parsed,
and no HTTP library works. So the CPU time is that of the poller alone.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import itertools
import json
import logging
import pkgutil
import random
import resource
import statistics
import subprocess
import sys
import time
from bisect import bisect_left, bisect_right
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from airflow_jobs_provider.api.calls import Page
from airflow_jobs_provider.api.errors import BadRequestError, RateLimitError
from airflow_jobs_provider.api.retry import RetryPolicy
from airflow_jobs_provider.api.workflows.follow import follow_run
from airflow_jobs_provider.api.workflows.progress import RunProgress
from tests.helpers.virtual_time import VirtualTimeLoop, run_in_virtual_time

# As the service answers: bytes of a run, the largest offset, seconds of a request.
RUN_BYTES = 1_500
MAX_OFFSET = 10_000
LATENCY = 0.1
# After so long each of 10,000 runs has been seen once, on pages of 25.
SETTLED_SECONDS = 120.0
QUIET = logging.getLogger("benchmarks.simulate")


def _millis(seconds: float) -> int:
    """Return a time of the loop's clock, which begins at 1000 s, in milliseconds of an epoch."""
    return int((1e9 + seconds) * 1000)


@dataclass(slots=True)
class Run:
    """A run of the service: its state follows from the clock."""

    run_id: int
    start: float
    end: float

    def as_response(self, now: float) -> dict[str, Any]:
        """Return the run as the API does."""
        state: dict[str, Any] = {"life_cycle_state": "RUNNING"}
        if now >= self.end:
            state = {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"}
        start = _millis(self.start)
        return {
            "run_id": self.run_id,
            "state": state,
            "start_time": start,
            "end_time": 0,
            "cluster_spec": {"new_cluster": {"num_workers": 2}},
            "run_type": "SUBMIT_RUN",
        }


@dataclass
class Service:
    """A workspace with many runs.

    :ivar loop: its clock.
    :ivar api_version: ``2.0`` for pages of 1,000, ``2.1`` for pages of 25.
    :ivar requests_per_second: above it the answer is 429; None for no limit.
    """

    loop: VirtualTimeLoop
    api_version: str = "2.0"
    requests_per_second: float | None = None
    asked: Counter[str] = field(default_factory=Counter)
    throttled: int = 0
    # In order of start. Runs are only added at the end.
    runs: list[Run] = field(default_factory=list)
    by_id: dict[int, Run] = field(default_factory=dict)
    last_response_bytes: int = 0
    host: str = "w"
    metrics: None = None
    _recent: deque[float] = field(default_factory=deque)

    def add(self, run: Run) -> Run:
        """Add a run that starts no earlier than the others."""
        self.runs.append(run)
        self.by_id[run.run_id] = run
        return run

    def forget_before(self, start: float) -> None:
        """Forget the runs that started before this time, as the service does after 60 days."""
        first = bisect_left(self.runs, start, key=lambda run: run.start)
        for run in self.runs[:first]:
            del self.by_id[run.run_id]
        del self.runs[:first]

    def version_of(self, call: Any) -> str:
        """Return the version of the API, as a client of a connection without version does."""
        return str(call.api_version(None if self.api_version == "2.0" else self.api_version))

    @asynccontextmanager
    async def async_client(self) -> AsyncIterator[Any]:
        """Open the client, as the hook does."""
        yield self

    def retry_policy(self) -> RetryPolicy:
        """Return the hook's policy."""
        return RetryPolicy(clock=self.loop.time)

    async def send(self, call: Any, *, rate_limit: Any, **_others: Any) -> Any:
        """Answer a call, as a client does; one try."""
        async with rate_limit():
            await asyncio.sleep(LATENCY)
            return self._answer(call)

    def _answer(self, call: Any) -> Any:
        asked = call.parameters
        self.asked[" ".join([call.path, *(n for n in asked if n.endswith("_only"))])] += 1
        now = self.loop.time()
        if self.requests_per_second is not None:
            while self._recent and self._recent[0] <= now - 1:
                self._recent.popleft()
            if len(self._recent) >= self.requests_per_second:
                self.throttled += 1
                raise RateLimitError(status=429, retry_after=1.0)
            self._recent.append(now)
        if call.path == "runs/get":
            return self.by_id[asked["run_id"]].as_response(now)
        return self._page(self.version_of(call), asked, now)

    def _page(self, api_version: str, asked: Any, now: float) -> Page[Any]:
        limit, offset = asked.get("limit", 20), asked.get("offset", 0)
        most = 1000 if api_version == "2.0" else 25
        if offset > MAX_OFFSET or limit > most:
            raise BadRequestError(
                status=400, api_message="The supplied offset or limit is too large."
            )
        first, last = 0, len(self.runs)
        if (since := asked.get("start_time_from")) is not None:
            first = bisect_left(self.runs, since, key=lambda run: _millis(run.start))
        if (until := asked.get("start_time_to")) is not None:
            last = bisect_right(self.runs, until, key=lambda run: _millis(run.start))
        if (token := asked.get("page_token")) is not None:
            last = min(last, int(token))
        found: list[dict[str, Any]] = []
        place = last - 1
        active, ended = asked.get("active_only"), asked.get("completed_only")
        while place >= first and len(found) < limit:
            run = self.runs[place]
            if not (active and now >= run.end) and not (ended and now < run.end):
                if offset:
                    offset -= 1
                else:
                    found.append(run.as_response(now))
            place -= 1
        self.last_response_bytes = RUN_BYTES * len(found)
        more = place >= first
        if api_version == "2.0":
            return Page(found, has_more=more)
        return Page(found, token=str(place + 1) if more else None)


@dataclass
class Waits:
    """The waits of one poller.

    :ivar late: seconds from the end of each run to its event.
    :ivar late_once_settled: those of the runs that ended later than :data:`SETTLED_SECONDS` after
        the first wait, when each run has been seen once.
    """

    service: Service
    began: float
    limiters: dict[str, Any] = field(default_factory=dict)
    late: list[float] = field(default_factory=list)
    late_once_settled: list[float] = field(default_factory=list)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    poller: Any = None

    def start(self, run: Run, period: float) -> None:
        """Wait for a run as a deferred task does."""
        task = asyncio.get_running_loop().create_task(self._wait(run, period))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _wait(self, run: Run, period: float) -> None:
        from airflow_jobs_provider.triggers.polling.poller import RunPoller

        if self.poller is None:
            hook: Any = self.service

            def close() -> None:
                self.poller = None

            self.poller = RunPoller(hook, self.limiters, close)
        clock = self.service.loop.time
        progress = RunProgress(run.run_id, QUIET, known_life_cycle_state="RUNNING", clock=clock)
        steps = follow_run(
            run.run_id, polling_period=lambda: period, progress=progress, clock=clock
        )
        await self.poller.run_workflow(steps, period=period, life_cycle_state="RUNNING")
        self.late.append(clock() - run.end)
        if run.end >= self.began + SETTLED_SECONDS:
            self.late_once_settled.append(clock() - run.end)


def use_virtual_time(loop: VirtualTimeLoop) -> None:
    """Let all modules of the poller read the clock of an event loop."""
    from airflow_jobs_provider.triggers import polling

    clock = SimpleNamespace(monotonic=loop.time, time=loop.time)
    for module in pkgutil.iter_modules(polling.__path__):
        loaded = importlib.import_module(f"{polling.__name__}.{module.name}")
        if hasattr(loaded, "time"):
            loaded.time = clock  # type: ignore[attr-defined]


def measures(service: Service, began: float, cpu: float, *pollers: Waits) -> dict[str, Any]:
    """Return what was measured of the waits of all pollers of a service.

    :param began: when the waits began, by the clock of the loop.
    :param cpu: the seconds of CPU.
    """
    seconds = service.loop.time() - began
    late = [delay for waits in pollers for delay in waits.late]
    settled = [delay for waits in pollers for delay in waits.late_once_settled]
    requests = sum(service.asked.values())
    return {
        "events": len(late),
        "late_median": statistics.median(late),
        "late_worst": max(late),
        "late_worst_once_settled": max(settled, default=None),
        "requests": requests,
        "requests_per_second": requests / seconds,
        "throttled": service.throttled,
        "cpu_percent": 100 * cpu / seconds,
        "asked": dict(service.asked),
    }


def own_memory() -> dict[str, float]:
    """Return what the process keeps: megabytes in memory, and objects of the garbage collector."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "megabytes": pages * resource.getpagesize() / 1e6,
        "objects": len(gc.get_objects()),
    }


async def burst(
    loop: VirtualTimeLoop,
    *,
    runs: int,
    others: int = 0,
    triggerers: int = 1,
    api_version: str = "2.0",
    limit: float | None = None,
    period: float = 10.0,
    first_end: float = 30.0,
    last_end: float = 150.0,
) -> dict[str, Any]:
    """Wait for runs that have started at once and end evenly over a stretch of time.

    :param others: active runs of others that have started between ours.
    :param triggerers: among so many pollers the waits are divided.
    :param limit: requests a second that the service allows.
    """
    service, now = Service(loop, api_version, limit), loop.time()
    ends = [now + first_end + n * (last_end - first_end) / runs for n in range(runs)]
    random.Random(5).shuffle(ends)
    own = {n * (runs + others) // runs for n in range(runs)}
    pollers, mine = [Waits(service, now) for _ in range(triggerers)], iter(ends)
    turns = itertools.cycle(pollers)
    for n in range(runs + others):
        is_own = n in own
        end = next(mine) if is_own else now + 1e6
        run = service.add(Run(n + 1, now - 60 + n * 50 / (runs + others), end))
        if is_own:
            next(turns).start(run, period)
    cpu = time.process_time()
    await asyncio.wait([task for waits in pollers for task in waits.tasks])
    return measures(service, now, time.process_time() - cpu, *pollers)


async def steady(
    loop: VirtualTimeLoop,
    *,
    runs: int,
    mean_seconds: float,
    hours: float,
    others: int = 0,
    api_version: str = "2.0",
    limit: float | None = None,
    period: float = 10.0,
    spread: float = 1.0,
    memory: bool = False,
) -> dict[str, Any]:
    """Wait for runs that start all the time: as many as end, so that ``runs`` are active.

    :param mean_seconds: how long a run takes in the mean.
    :param spread: 1 for exponentially distributed durations, 0 for equal ones.
    :param others: active runs of others, which do not end, among ours.
    :param memory: measure the memory after each hour.
    """
    service, now = Service(loop, api_version, limit), loop.time()
    shuffle, waits = random.Random(5), Waits(service, now)

    def duration() -> float:
        return mean_seconds * (1 - spread + spread * shuffle.expovariate(1.0))

    ids = iter(range(1, 10**9))
    begun = [(now - 10 - shuffle.uniform(0, mean_seconds), True) for _ in range(runs)]
    begun += [(now - 10 - shuffle.uniform(0, mean_seconds), False) for _ in range(others)]
    for start, is_own in sorted(begun):
        left = shuffle.expovariate(1 / mean_seconds) if spread else start + mean_seconds - now
        run = service.add(Run(next(ids), start, now + max(1.0, left) if is_own else now + 1e9))
        if is_own:
            waits.start(run, period)
    hours_memory: list[dict[str, float]] = []
    cpu, hour, pause = time.process_time(), 1, mean_seconds / runs
    until, next_start = now + hours * 3600, now
    while loop.time() < until:
        next_start += pause
        if next_start > loop.time():
            await asyncio.sleep(next_start - loop.time())
        run = service.add(Run(next(ids), loop.time(), loop.time() + duration()))
        waits.start(run, period)
        if loop.time() >= now + hour * 3600:
            service.forget_before(loop.time() - 20 * mean_seconds)
            if memory:
                hours_memory.append(own_memory())
            hour += 1
    found = measures(service, now, time.process_time() - cpu, waits)
    for task in list(waits.tasks):
        task.cancel()
    await asyncio.sleep(0)
    return {**found, "memory": hours_memory}


def run(scenario: Callable[..., Any], **options: Any) -> dict[str, Any]:
    """Play a scenario in virtual time; return its measures."""
    logging.disable(logging.WARNING)
    # The pollers' own random waits: the same in each run of the simulation.
    random.seed(1)
    loop = VirtualTimeLoop()
    use_virtual_time(loop)
    result: dict[str, Any] = run_in_virtual_time(scenario(loop, **options), loop)
    return result


PAGES_OF_25: dict[str, Any] = {"api_version": "2.1", "limit": 10}
SCENARIOS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "10,000 runs end within 2 minutes": (burst, {"runs": 10_000}),
    "the same among 30,000 active runs of others, two triggerers": (
        burst,
        {"runs": 10_000, "others": 30_000, "triggerers": 2},
    ),
    "50,000 runs end within 10 minutes": (burst, {"runs": 50_000, "last_end": 630}),
    "10,000 runs end within 2 minutes, pages of 25": (burst, {"runs": 10_000, **PAGES_OF_25}),
    "10,000 active runs of 10 minutes in the mean, pages of 25": (
        steady,
        {"runs": 10_000, "mean_seconds": 600, "hours": 0.4, **PAGES_OF_25},
    ),
    "10,000 active runs of an hour in the mean, pages of 25": (
        steady,
        {"runs": 10_000, "mean_seconds": 3600, "hours": 0.4, **PAGES_OF_25},
    ),
    "10,000 active runs of an hour each, pages of 25": (
        steady,
        {"runs": 10_000, "mean_seconds": 3600, "hours": 0.4, "spread": 0, **PAGES_OF_25},
    ),
    "a day with 100,000 runs of 5 minutes in the mean": (
        steady,
        {"runs": 347, "mean_seconds": 300, "hours": 24.01, "memory": True},
    ),
}
COLUMNS = {
    "requests_per_second": "requests a second",
    "throttled": "answered 429",
    "cpu_percent": "of a core",
    "late_median": "event delay s (median)",
    "late_worst": "(worst)",
    "late_worst_once_settled": "(worst after the first 2 minutes)",
}


def main() -> None:
    """Play the scenarios and print their measures, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", type=int, nargs="+", help="numbers of scenarios, from 0; all")
    parser.add_argument("--one", type=int, help="play this one and print its measures as JSON")
    arguments = parser.parse_args()
    if arguments.one is not None:
        scenario, options = list(SCENARIOS.values())[arguments.one]
        print(json.dumps(run(scenario, **options)))
        return
    print(
        "| | " + " | ".join(COLUMNS.values()) + " |", "| --- " * (1 + len(COLUMNS)) + "|", sep="\n"
    )
    for number, name in enumerate(SCENARIOS):
        if arguments.only and number not in arguments.only:
            continue
        command = [sys.executable, "-m", "benchmarks.simulate", "--one", str(number)]
        played = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(played.stdout.splitlines()[-1])
        cells = ["" if found[key] is None else f"{found[key]:,.1f}" for key in COLUMNS]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
        for hour, kept in enumerate(found.get("memory", ()), 1):
            print(
                f"hour {hour}: {kept['megabytes']:.1f} MB, {kept['objects']:,} objects",
                file=sys.stderr,
            )


if __name__ == "__main__":
    main()

"""Simulate the waits of a poller for hours, in virtual time, with a service in memory.

    python -m benchmarks.simulate --scenario day

The poller, the workflows and the rate limiters are the real ones. The clock of the event loop jumps
to the next timer, so an hour takes seconds. The service is in memory: its responses are not parsed,
and no HTTP library works. So the CPU time is that of the poller alone.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import logging
import pkgutil
import random
import statistics
import time
from bisect import bisect_left, bisect_right
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
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

    def version_of(self, _call: Any) -> str:
        """Return the version of the API, as a client does."""
        return self.api_version

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
        return self._page(asked, now)

    def _page(self, asked: Any, now: float) -> Page[Any]:
        limit, offset = asked.get("limit", 20), asked.get("offset", 0)
        most = 1000 if self.api_version == "2.0" else 25
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
        if self.api_version == "2.0":
            return Page(found, has_more=more)
        return Page(found, token=str(place + 1) if more else None)


@dataclass
class Waits:
    """The waits of one poller.

    :ivar late: seconds from the end of each run to its event.
    """

    service: Service
    limiters: dict[str, Any] = field(default_factory=dict)
    late: list[float] = field(default_factory=list)
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


def use_virtual_time(loop: VirtualTimeLoop) -> None:
    """Let all modules of the poller read the clock of an event loop."""
    from airflow_jobs_provider.triggers import polling

    clock = SimpleNamespace(monotonic=loop.time, time=loop.time)
    for module in pkgutil.iter_modules(polling.__path__):
        loaded = importlib.import_module(f"{polling.__name__}.{module.name}")
        if hasattr(loaded, "time"):
            loaded.time = clock  # type: ignore[attr-defined]


def measures(waits: Waits, began: float, cpu: float) -> dict[str, Any]:
    """Return what was measured of one poller's waits."""
    seconds = waits.service.loop.time() - began
    late = sorted(waits.late)
    requests = sum(waits.service.asked.values())
    return {
        "events": len(late),
        "late_median": statistics.median(late) if late else None,
        "late_p99": late[int(0.99 * (len(late) - 1))] if late else None,
        "late_worst": late[-1] if late else None,
        "late_worst_later": max(waits.late[len(late) // 3 :], default=None),
        "requests": requests,
        "requests_per_second": requests / seconds,
        "throttled": waits.service.throttled,
        "cpu_percent": 100 * cpu / seconds,
        "asked": dict(waits.service.asked),
    }


async def burst(
    loop: VirtualTimeLoop,
    *,
    runs: int,
    others: int = 0,
    api_version: str = "2.0",
    limit: float | None = None,
    period: float = 10.0,
    first_end: float = 30.0,
    last_end: float = 150.0,
    in_order: bool = False,
) -> dict[str, Any]:
    """Wait for runs that have started at once and end evenly over a stretch of time.

    :param others: active runs of others that have started between ours.
    :param in_order: whether the runs end in the order of their start.
    """
    service, now = Service(loop, api_version, limit), loop.time()
    shuffle = random.Random(5)
    ends = [now + first_end + n * (last_end - first_end) / runs for n in range(runs)]
    if not in_order:
        shuffle.shuffle(ends)
    own = {n * (runs + others) // runs for n in range(runs)}
    waits, mine = Waits(service), iter(ends)
    for n in range(runs + others):
        start = now - 60 + n * 50 / (runs + others)
        is_own = n in own
        run = service.add(Run(n + 1, start, next(mine) if is_own else now + 1e6))
        if is_own:
            waits.start(run, period)
    cpu = time.process_time()
    await asyncio.wait(waits.tasks)
    return measures(waits, now, time.process_time() - cpu)


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
    each_hour: Callable[[float, Waits], None] | None = None,
) -> dict[str, Any]:
    """Wait for runs that start all the time: as many as end, so that ``runs`` are active.

    :param mean_seconds: how long a run takes in the mean.
    :param spread: 1 for exponentially distributed durations, 0 for equal ones.
    :param others: active runs of others, which do not end, among ours.
    :param each_hour: called after each hour with its number.
    """
    service, now = Service(loop, api_version, limit), loop.time()
    shuffle, waits = random.Random(5), Waits(service)

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
            if each_hour is not None:
                each_hour(hour, waits)
            hour += 1
    found = measures(waits, now, time.process_time() - cpu)
    for task in list(waits.tasks):
        task.cancel()
    await asyncio.sleep(0)
    return found


def run(scenario: Callable[..., Any], **options: Any) -> dict[str, Any]:
    """Play a scenario in virtual time; return its measures."""
    logging.disable(logging.WARNING)
    loop = VirtualTimeLoop()
    use_virtual_time(loop)
    result: dict[str, Any] = run_in_virtual_time(scenario(loop, **options), loop)
    return result


def main() -> None:
    """Play a scenario and print its measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenario", choices=("burst", "steady"), required=True)
    parser.add_argument("--options", type=json.loads, default={}, help="its arguments as JSON")
    arguments = parser.parse_args()
    began = time.process_time()
    scenarios: dict[str, Callable[..., Any]] = {"burst": burst, "steady": steady}
    scenario = scenarios[arguments.scenario]
    found = run(scenario, **arguments.options)
    print(
        json.dumps({"options": arguments.options, **found}), round(time.process_time() - began, 1)
    )


if __name__ == "__main__":
    main()

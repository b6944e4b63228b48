"""The calls and workflows that the poller executes."""

from __future__ import annotations

import asyncio
from typing import Any

from airflow_jobs_provider.api.endpoints import get_run, get_run_output, run_now
from airflow_jobs_provider.api.errors import ConnectError
from airflow_jobs_provider.api.retry import RetryPolicy
from airflow_jobs_provider.api.workflows.base import Wait
from airflow_jobs_provider.api.workflows.events import RunIdentified
from tests.helpers.poller_bench import ENDED, RUNNING, PollerBench, RunBench


def test_pollers_of_one_host_share_its_limits(run_bench: RunBench) -> None:
    """Whichever comes first makes them."""

    async def scenario(bench: PollerBench) -> None:
        bench.poller()
        await asyncio.sleep(1)
        (limiters,) = bench.limiters.values()
        bench.poller()
        await asyncio.sleep(1)
        assert bench.limiters == {"w": limiters}

    run_bench(scenario)


def test_launches_of_several_dags_take_turns(run_bench: RunBench) -> None:
    """At five a second by default; other requests do not wait for them."""

    async def scenario(bench: PollerBench) -> None:
        poller = bench.poller()
        launches = [
            poller.send(run_now({"job_id": job_id}), dag_id=dag_id)
            for job_id, dag_id in [(1, "many")] * 9 + [(2, "few")]
        ]
        answers = asyncio.gather(*launches)
        await asyncio.sleep(0.5)
        await poller.send(get_run(7))
        await answers

    asked = run_bench(scenario).asked
    assert [second for second, what in asked if what != 7] == [n / 5 for n in range(10)]
    assert (0.5, 7) in asked


def test_a_call_is_sent_at_once_with_the_wanted_retries(run_bench: RunBench) -> None:
    """Without a deadline by default; else with the client's own policy, or a given one."""

    async def scenario(bench: PollerBench) -> None:
        poller, own = bench.poller(), RetryPolicy(max_attempts=3)
        call: Any = get_run_output(7)
        assert (await poller.send(call))["run_id"] == 7
        await poller.send(call, without_deadline=False)
        await poller.send(call, retries=own)
        await poller.send(call, retries=own, without_deadline=False)
        first, *others = bench.retries
        assert first is not None
        assert first.no_deadline
        assert others == [None, own, own]
        assert bench.now() == 0

    run_bench(scenario)


def follow(*pauses: float) -> Any:
    """Read run 7 with these pauses between the reads; return the reads."""
    runs = [(yield get_run(7))]
    for pause in pauses:
        yield Wait(pause)
        runs.append((yield get_run(7)))
    return runs


def test_a_workflow_gets_a_run_when_it_has_changed(run_bench: RunBench) -> None:
    """The first read is its own; a wait of the workflow is the period until the next change."""

    async def scenario(bench: PollerBench) -> None:
        bench.ends[7] = 25
        first, second = await bench.poller().run_workflow(follow(5), period=10)
        # The tasks are for the log.
        assert first == {"run_id": 7, "state": RUNNING, "tasks": [7]}
        assert second == {"run_id": 7, "state": ENDED, "tasks": [7]}
        assert bench.now() == 28

    assert [at for at, _ in run_bench(scenario).asked] == [8, 13, 18, 23, 28]


def test_a_workflow_may_know_the_state_of_its_run(run_bench: RunBench) -> None:
    """Then its first read returns with the first change."""

    async def scenario(bench: PollerBench) -> None:
        bench.ends[7] = 25
        steps = follow()
        runs = await bench.poller().run_workflow(steps, period=10, life_cycle_state="RUNNING")
        assert [run["state"] for run in runs] == [ENDED]
        assert bench.now() == 28

    run_bench(scenario)


def test_a_workflow_can_get_every_read(run_bench: RunBench) -> None:
    """Such as one that has a limit of its own for a queued run."""

    async def scenario(bench: PollerBench) -> None:
        runs = await bench.poller().run_workflow(follow(10, 10), period=10, every_read=True)
        assert [run["state"] for run in runs] == [RUNNING] * 3
        assert bench.now() == 28

    run_bench(scenario)


def test_a_read_without_a_wait_before_it_is_a_first_one(run_bench: RunBench) -> None:
    """Its period is that of the poller's caller, as at the beginning."""

    def steps() -> Any:
        yield get_run(7)
        yield get_run(7)

    async def scenario(bench: PollerBench) -> None:
        await bench.poller().run_workflow(steps(), period=10, every_read=True)

    assert run_bench(scenario).asked == [(8, 7), (16, 7)]


def test_a_workflow_gets_its_run_every_ten_minutes(run_bench: RunBench) -> None:
    """So that it can log that the run goes on."""

    async def scenario(bench: PollerBench) -> None:
        runs = await bench.poller().run_workflow(follow(10), period=10)
        assert [run["state"] for run in runs] == [RUNNING, RUNNING]
        assert bench.now() == 608

    run_bench(scenario)


def test_a_workflow_that_goes_on_with_another_run(run_bench: RunBench) -> None:
    """What is known of the first one says nothing about it."""

    def steps() -> Any:
        yield get_run(7)
        yield RunIdentified(8)
        yield Wait(10)
        return (yield get_run(8))

    async def scenario(bench: PollerBench) -> None:
        events: list[Any] = []
        run = await bench.poller().run_workflow(steps(), period=10, on_event=events.append)
        assert run["run_id"] == 8
        assert events == [RunIdentified(8)]
        assert bench.now() == 18

    assert run_bench(scenario).asked == [(8, 7), (18, 8)]


def test_other_calls_of_a_workflow_are_sent_by_themselves(run_bench: RunBench) -> None:
    """After its wait; a read with more than the run's id is one of them. Its events may be lost."""

    def steps() -> Any:
        yield RunIdentified(7)
        yield get_run_output(7)
        yield Wait(5)
        yield get_run(7, include_history=True)
        yield get_run_output(7)

    async def scenario(bench: PollerBench) -> None:
        await bench.poller().run_workflow(steps(), period=10)
        assert bench.now() == 5

    assert run_bench(scenario).asked == [
        (0, "runs/get-output"),
        (5, "runs/get"),
        (5, "runs/get-output"),
    ]


def test_a_wait_counts_once_also_where_the_call_fails(run_bench: RunBench) -> None:
    """The next call is sent without it."""

    def steps() -> Any:
        yield Wait(5)
        try:
            yield get_run_output(7)
        except ConnectError:
            return (yield get_run_output(8))

    async def scenario(bench: PollerBench) -> None:
        poller, send = bench.poller(), bench.send

        async def fail_once(call: Any, **how: Any) -> Any:
            bench.send = send  # type: ignore[method-assign]
            raise ConnectError("refused")

        bench.send = fail_once  # type: ignore[method-assign]
        run = await poller.run_workflow(steps(), period=10)
        assert (run["run_id"], bench.now()) == (8, 5)

    run_bench(scenario)

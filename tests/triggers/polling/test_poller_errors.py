"""The poller over real HTTP: errors of single runs, and responses that do not fit."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from aiohttp import web

from airflow_jobs_provider.api import retry
from airflow_jobs_provider.api.errors import (
    AuthenticationError,
    JobsAPIError,
    UnexpectedResponseError,
)
from airflow_jobs_provider.api.retry import Backoff
from airflow_jobs_provider.triggers.polling import (
    list_pages,
)
from tests.fakes.many_runs import ManyRuns
from tests.helpers.polling import (
    PERIOD,
    poller,
    poller_lines,
    result_states,
    start_waits,
    wait_until,
)


async def test_errors_are_typed(service: ManyRuns) -> None:
    """An error that is not retried is raised in every wait."""
    service.trouble.extend([404] * 50)
    tasks = start_waits(poller(), service.add(3))
    for task in tasks:
        with pytest.raises(JobsAPIError):
            await task


@pytest.mark.parametrize("others_period", [PERIOD, 30.0])
async def test_a_forbidden_run_fails_its_waiter_only(
    service: ManyRuns,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    others_period: float,
) -> None:
    """It fails after its retries; all others keep their period, be it short or long."""
    caplog.set_level("INFO")
    monkeypatch.setattr(retry, "_REFUSED_CREDENTIALS", Backoff(0.5, 0.5, 1.0, always_limited=True))
    service.lists_refused = True
    forbidden, *run_ids = service.add(3)
    service.refused = {forbidden}
    one = poller(retry_delay=None)
    tasks = start_waits(one, run_ids, others_period)
    (alone,) = start_waits(one, [forbidden])
    began = time.monotonic()
    async with asyncio.timeout(10):
        with pytest.raises(AuthenticationError):
            await alone
    assert time.monotonic() - began >= 1.0
    assert not any(task.done() for task in tasks)
    if others_period == PERIOD:
        # Each of the two was read more often than the one that is refused.
        assert service.found_active > 2 * (service.asked["runs/get"] - service.found_active)
        for run_id in run_ids:
            service.end(run_id)
        assert set(await result_states(tasks)) == {"SUCCESS"}
    (line,) = poller_lines(caplog)
    assert line.startswith(f"Run {forbidden} cannot be read for now, while others can: ")
    for task in tasks:
        task.cancel()


async def test_a_run_that_can_be_read_again(
    service: ManyRuns, caplog: pytest.LogCaptureFixture
) -> None:
    """Its waiter gets the run, and the log says so."""
    caplog.set_level("INFO")
    service.lists_refused = True
    run_ids = service.add(3)
    service.refused = set(run_ids[:1])
    tasks = start_waits(poller(retry_delay=0.1), run_ids)
    async with asyncio.timeout(10):
        await wait_until(lambda: bool(poller_lines(caplog)))
        service.refused = set()
        for run_id in run_ids:
            service.end(run_id)
        assert set(await result_states(tasks)) == {"SUCCESS"}
    assert poller_lines(caplog)[1:] == [f"Run {run_ids[0]} can be read again, after 0 s."]


@pytest.mark.parametrize("passes", [True, False])
async def test_unexpected_responses_for_all_requests(
    service: ManyRuns, monkeypatch: pytest.MonkeyPatch, passes: bool
) -> None:
    """After runs were read it is an outage, not a wrong address, with a limit of its own."""
    monkeypatch.setattr(list_pages, "SECOND_TRY_SECONDS", 0.01)
    monkeypatch.setattr(
        retry, "_UNEXPECTED_WHILE_POLLING", Backoff(0.1, 0.1, 1.0, always_limited=True)
    )
    run_ids = service.add(5)
    tasks = start_waits(poller(retry_delay=None), run_ids)
    async with asyncio.timeout(10):
        await wait_until(lambda: sum(service.asked.values()) >= 2)
        service.trouble.extend([404] * (10 if passes else 10_000))
        for run_id in run_ids:
            service.end(run_id)
        if passes:
            assert set(await result_states(tasks)) == {"SUCCESS"}
        else:
            for task in tasks:
                with pytest.raises(UnexpectedResponseError):
                    await task


DEEP = b'{"run_id": 1, "state": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"


# The odd run is run 1, of these bytes, a status and headers.
ODD_ANSWERS: dict[str, tuple[bytes, int, dict[str, str]]] = {
    "a state that is text": (b'{"run_id": 1, "state": "RUNNING"}', 200, {}),
    "an id that is a list": (b'{"run_id": [1]}', 200, {}),
    "an empty object": (b"{}", 200, {}),
    "nothing": (b"", 200, {}),
    "null": (b"null", 200, {}),
    "another run": (b'{"run_id": 4, "state": {"life_cycle_state": "RUNNING"}}', 200, {}),
    "nested deeply": (DEEP, 200, {}),
}


@pytest.mark.parametrize("name", ODD_ANSWERS)
async def test_an_invalid_response_fails_its_waiter_only(
    service: ManyRuns, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """Its run is read again within limits; then its wait raises the response, and no other does."""
    monkeypatch.setattr(
        retry, "_INVALID_BODY", Backoff(0.01, 0.05, max_attempts=5, always_limited=True)
    )
    body, status, headers = ODD_ANSWERS[name]
    odd, *run_ids = service.add(5)
    service.lists_refused = True
    service.odd[odd] = lambda: web.Response(body=body, status=status, headers=headers)
    one = poller(retry_delay=None)
    (alone,), tasks = start_waits(one, [odd]), start_waits(one, run_ids)
    async with asyncio.timeout(10):
        with pytest.raises(UnexpectedResponseError, match="does not fit") as caught:
            await alone
        if body.startswith(b"{"):
            assert body[:400].decode() in str(caught.value)
        assert not any(task.done() for task in tasks)
        for run_id in run_ids:
            service.end(run_id)
        assert set(await result_states(tasks)) == {"SUCCESS"}
    lines = poller_lines(caplog)
    assert [line.split(",")[0] for line in lines] == ["Run 1 cannot be read for now"]


async def test_a_run_id_given_as_text(service: ManyRuns) -> None:
    """The waiter gets the run, and it is read no more often than its period says."""
    (run_id,) = service.add(1)

    def as_text() -> web.Response:
        return web.json_response(
            {**service.runs[run_id].as_json(time.time()), "run_id": str(run_id)}
        )

    service.odd[run_id] = as_text
    tasks = start_waits(poller(), [run_id])
    began = time.monotonic()
    async with asyncio.timeout(10):
        await wait_until(lambda: service.asked["runs/get"] >= 3)
        service.end(run_id)
        (run,) = await asyncio.gather(*tasks)
    assert run["run_id"] == run_id
    assert service.asked["runs/get"] <= 2 + (time.monotonic() - began) / (0.8 * PERIOD)


async def test_invalid_items_in_a_list(service: ManyRuns) -> None:
    """The other runs of the page are published; the invalid ones are read by their ids."""
    run_ids = service.add(100)
    odd = dict(zip(run_ids, (7, {"run_id": 2, "state": "RUNNING"}, {"run_id": None}), strict=False))

    async def with_odd_items(request: web.Request) -> web.Response:
        answer = json.loads((await service._list(request)).text or "")
        answer["runs"] = [odd.get(run["run_id"], run) for run in answer["runs"]]
        return web.json_response(answer)

    service.list_runs = with_odd_items
    tasks = start_waits(poller(), run_ids)
    async with asyncio.timeout(10):
        await wait_until(lambda: service.asked["runs/list active_only"] >= 3)
        for run_id in run_ids:
            service.end(run_id)
        assert set(await result_states(tasks)) == {"SUCCESS"}
    assert set(service.latest) == set(odd)

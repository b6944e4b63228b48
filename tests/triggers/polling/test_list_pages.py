"""Reading one page of a list: what is tried again, how often, and what is raised."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_jobs_provider.api.calls import Page
from airflow_jobs_provider.api.endpoints import list_runs
from airflow_jobs_provider.api.errors import (
    AuthenticationError,
    BadRequestError,
    JobsAPIError,
    RateLimitError,
    ResponseLostError,
    ServerError,
    UnexpectedResponseError,
)
from airflow_jobs_provider.api.retry import RetryPolicy, no_waiting
from airflow_jobs_provider.triggers.polling import list_pages, outages
from airflow_jobs_provider.triggers.polling.list_pages import ListPageReader, PageTimeoutError
from airflow_jobs_provider.triggers.polling.rate_limiter import RateLimiter
from airflow_jobs_provider.triggers.polling.sender import Sender

CALL = list_runs()
PAGE: Page[Any] = Page([{"run_id": 7}])
DOWN, SLOWER = ServerError(status=503), RateLimitError(status=429)
FORBIDDEN, HTML = AuthenticationError(status=403), UnexpectedResponseError(status=404)


class Bench:
    """A page reader; its client answers with the given errors, then with a page."""

    def __init__(self, waits: list[float], *errors: Exception, waiting_runs: int = 5) -> None:
        self.waits, self.errors, self.waiting_runs = waits, list(errors), waiting_runs
        self.tries = self.renewed = 0
        self.answer: Callable[[], Any] = lambda: asyncio.sleep(0)
        self.limiter = RateLimiter()
        client: Any = SimpleNamespace(send=self.send, renew_credentials=self.renew)
        policy = RetryPolicy(no_deadline=True, random=lambda: 0.0, clock=self.now)
        self.sender = Sender(client, self.limiter, policy, {})
        self.sender.record_answer()
        self.reader = ListPageReader(self.sender, lambda: self.waiting_runs)

    def now(self) -> float:
        """Return the time, which runs only in waits."""
        return 1_000.0 + sum(self.waits)

    async def send(self, call: Any, *, retries: Any, rate_limit: Any) -> Any:
        """Answer a call within the given rate limit, as a client does."""
        assert call is CALL
        assert retries.max_attempts == 1
        async with rate_limit():
            self.tries += 1
            await self.answer()
            if self.errors:
                raise self.errors.pop(0)
        return PAGE

    async def renew(self, _error: JobsAPIError) -> None:
        """Count the renewals of the credentials."""
        self.renewed += 1

    async def read(self) -> Any:
        """Read the page."""
        return await self.reader.read(CALL)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The waits, which end at once."""
    with no_waiting() as recorded:
        clock = SimpleNamespace(monotonic=lambda: 1_000.0 + sum(recorded))
        monkeypatch.setattr(outages, "time", clock)
        yield recorded


def test_the_times_of_a_page() -> None:
    """All runs wait for a page, so it is given up early."""
    assert (list_pages.PAGE_SECONDS, list_pages.SECOND_TRY_SECONDS) == (30, 1)
    assert list_pages.SHORT_OUTAGE_SECONDS == 60


async def test_a_page_ends_an_outage(waits: list[float]) -> None:
    """The service answers."""
    bench = Bench(waits)
    bench.sender.outage.record_failure(DOWN, 5)
    assert await bench.read() == PAGE
    assert bench.sender.outage.failures == 0
    assert (bench.tries, waits) == (1, [])


async def test_a_page_that_does_not_come_is_given_up(
    waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no second try, and the error names the time."""
    monkeypatch.setattr(list_pages, "PAGE_SECONDS", 0.02)
    bench = Bench(waits)
    bench.answer = lambda: asyncio.Event().wait()
    async with asyncio.timeout(10):
        with pytest.raises(PageTimeoutError, match=r"^a page did not come within 0\.02 s$"):
            await bench.read()
    assert (bench.tries, waits) == (1, [])


@pytest.mark.parametrize(("error", "renewals"), [(FORBIDDEN, 1), (HTML, 0)])
async def test_a_refusal_has_one_more_try(
    waits: list[float], error: JobsAPIError, renewals: int
) -> None:
    """After a second, with fresh credentials if these were refused; a second one is raised."""
    bench = Bench(waits, error)
    assert await bench.read() == PAGE
    assert (bench.tries, waits, bench.renewed) == (2, [1.0], renewals)
    bench = Bench(waits, error, error)
    with pytest.raises(type(error)):
        await bench.read()
    assert (bench.tries, waits, bench.renewed) == (2, [1.0, 1.0], renewals)


async def test_a_short_outage_is_waited_out(waits: list[float]) -> None:
    """An outage of a minute ends the page, so that the runs are read by their ids."""
    bench = Bench(waits, DOWN)
    assert await bench.read() == PAGE
    assert (bench.tries, waits) == (2, [30])
    bench = Bench(waits, *[DOWN] * 9)
    with pytest.raises(ServerError):
        await bench.read()
    # 30 seconds, then a minute: the outage has lasted for 90 seconds then.
    assert (bench.tries, waits) == (3, [30, 30, 60])


@pytest.mark.parametrize("error", [DOWN, ResponseLostError("it was closed")])
async def test_an_outage_that_is_not_to_be_waited_out(
    waits: list[float], error: JobsAPIError
) -> None:
    """It is raised at once, and is no outage of the runs that are waited for."""
    bench = Bench(waits, error)
    with pytest.raises(type(error)):
        await bench.reader.read(CALL, waits_out_outages=False)
    assert (bench.tries, waits, bench.sender.outage.failures) == (1, [], 0)
    bench = Bench(waits, SLOWER)
    bench.sender.retries = RetryPolicy(no_deadline=True, initial_wait=0.01)
    assert await bench.reader.read(CALL, waits_out_outages=False) == PAGE


async def test_an_outage_of_a_minute_is_not_short(waits: list[float]) -> None:
    """A minute is the limit."""
    for lasted, tries in ((59.0, 2), (60.0, 1)):
        bench = Bench(waits, DOWN)
        bench.sender.outage.record_failure(DOWN, 5)
        waits.append(lasted)
        if tries == 1:
            with pytest.raises(ServerError):
                await bench.read()
        else:
            assert await bench.read() == PAGE
        assert bench.tries == tries


async def test_a_rate_limit_is_waited_for_however_long(waits: list[float]) -> None:
    """It would concern the reads of single runs as well; each 429 slows down all requests."""
    bench = Bench(waits, SLOWER)
    # The limiter's own clock runs on: it would pause for the seconds of the answer.
    bench.sender.retries = RetryPolicy(
        no_deadline=True, is_host_known=True, initial_wait=0.01, random=lambda: 0.0
    )
    bench.sender.outage.record_failure(SLOWER, 5)
    waits.append(600.0)
    assert await bench.read() == PAGE
    assert bench.tries == 2
    assert bench.limiter.requests_per_second == pytest.approx(10, abs=1)


@pytest.mark.parametrize("error", [DOWN, FORBIDDEN, HTML])
async def test_nothing_is_tried_again_if_nobody_waits(
    waits: list[float], error: JobsAPIError
) -> None:
    """The error is raised at once."""
    bench = Bench(waits, error, waiting_runs=0)
    with pytest.raises(type(error)):
        await bench.read()
    assert (bench.tries, waits) == (1, [])


async def test_an_error_of_the_request_is_raised(waits: list[float]) -> None:
    """Another try would have the same answer; it is no outage."""
    bench = Bench(waits, BadRequestError(status=400))
    with pytest.raises(BadRequestError):
        await bench.read()
    assert (bench.tries, waits, bench.sender.outage.failures) == (1, [], 0)


async def test_an_error_is_raised_where_the_policy_gives_up(waits: list[float]) -> None:
    """Such as one with a deadline that has passed."""
    bench = Bench(waits, DOWN)
    bench.sender.retries = RetryPolicy(clock=bench.now)
    bench.sender.outage.consecutive.since = 0.0
    with pytest.raises(ServerError):
        await bench.read()
    assert (bench.tries, waits) == (1, [])


async def test_the_log_says_how_many_runs_wait(
    waits: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    """When the outage begins."""
    await Bench(waits, DOWN, waiting_runs=3).read()
    assert caplog.messages[0] == f"3 runs cannot be followed for now: {DOWN}"

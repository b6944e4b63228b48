"""Reading one page of a list of runs, with retries of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from airflow_jobs_provider.api.errors import (
    AuthenticationError,
    JobsAPIError,
    RateLimitError,
    ResponseLostError,
    ServerError,
    UnexpectedResponseError,
)
from airflow_jobs_provider.api.retry import async_sleep

if TYPE_CHECKING:
    from airflow_jobs_provider.api.calls import Call, Page
    from airflow_jobs_provider.api.schema.types import Run
    from airflow_jobs_provider.triggers.polling.sender import Sender

__all__ = ["ListPageReader", "PageRuns", "PageTimeoutError"]


# A page that takes longer is given up: all runs wait for it, and each can be read by its id.
PAGE_SECONDS = 30.0
# After a refusal or an unexpected answer a page gets one more try, this much later.
SECOND_TRY_SECONDS = 1.0
# A page is tried again in an outage that has lasted no longer than this. After that the runs are
# read by their ids.
SHORT_OUTAGE_SECONDS = 60.0


class PageTimeoutError(ResponseLostError):
    """A page of a list did not come within :data:`PAGE_SECONDS`."""


class PageRuns(list[Any]):
    """The runs of a page.

    :ivar asked_at: when the page was asked for (monotonic clock). It shows nothing later.
    """

    __slots__ = ("asked_at",)

    def __init__(self, runs: Iterable[Any], asked_at: float) -> None:
        super().__init__(runs)
        self.asked_at = asked_at


class ListPageReader:
    """Reads pages of lists.

    :param sender: sends the requests.
    :param waiting_runs: returns the number of runs that are waited for.
    """

    def __init__(self, sender: Sender, waiting_runs: Callable[[], int]) -> None:
        self._sender = sender
        self._waiting_runs = waiting_runs

    async def read(self, call: Call[Page[Run]], *, waits_out_outages: bool = True) -> Page[Run]:
        """Read a page, with retries, so that the pages before it need not be read again.

        :param call: the call for the page.
        :param waits_out_outages: try again after a 5xx or a lost response; default True. False: all
            runs can be read without this page, and what cannot be read is no outage of theirs.
        :raises JobsAPIError: the page cannot be read, or nobody waits for a run any more.
        """
        had_second_try = False
        asked_at = 0.0

        @asynccontextmanager
        async def rate_limit() -> AsyncIterator[None]:
            nonlocal asked_at
            async with self._sender.rate_limit(call.name), _page_timeout():
                asked_at = time.monotonic()
                yield

        while True:
            try:
                page = await self._sender.send_once(call, rate_limit)
            except PageTimeoutError:
                # No second try: all runs wait for this page.
                raise
            except (AuthenticationError, UnexpectedResponseError) as error:
                # One short wait only: the list may not work where the runs can be read.
                if had_second_try or not self._waiting_runs():
                    raise
                had_second_try = True
                await async_sleep(SECOND_TRY_SECONDS)
                await self._sender.renew_credentials(error)
            except JobsAPIError as error:
                is_outage = isinstance(error, (ServerError, ResponseLostError))
                if (is_outage and not waits_out_outages) or not self._is_worth_waiting(error):
                    raise
                if not await self._sender.wait_out(error, self._waiting_runs()):
                    raise
            else:
                self._sender.outage.record_success()
                return page._replace(items=PageRuns(page.items, asked_at))

    def _is_worth_waiting(self, error: JobsAPIError) -> bool:
        if not self._waiting_runs():
            return False
        if self._sender.retries.backoff_for(error, idempotent=True) is None:
            return False
        is_short = self._sender.outage.seconds < SHORT_OUTAGE_SECONDS
        return isinstance(error, RateLimitError) or is_short


@asynccontextmanager
async def _page_timeout() -> AsyncIterator[None]:
    """Limit the time of one request for a page and of its answer.

    :raises PageTimeoutError: it took too long.
    """
    try:
        async with asyncio.timeout(PAGE_SECONDS):
            yield
    except TimeoutError:
        raise PageTimeoutError(f"a page did not come within {PAGE_SECONDS:g} s") from None

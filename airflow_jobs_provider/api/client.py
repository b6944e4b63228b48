"""Two thin faces over the same calls: :class:`JobsClient` (blocking), :class:`AsyncJobsClient`.

All that is decided is decided in :mod:`.exchange`, :mod:`.errors` and :mod:`.retries`. A face only
sends, receives and sleeps, and names its HTTP library's faults.
"""

from __future__ import annotations

import asyncio
import copy
import os
import ssl
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import AbstractAsyncContextManager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, cast

import tenacity

from airflow_jobs_provider.api.calls import Call, Page
from airflow_jobs_provider.api.errors import JobsApiError, NoAnswer
from airflow_jobs_provider.api.exchange import (
    CONNECT_SECONDS,
    BaseClient,
    Tries,
    environment_proxy,
    reason_of,
)
from airflow_jobs_provider.api.retries import RetryPolicy, a_pause, pause
from airflow_jobs_provider.api.steps import Exchange, Step, Wait

if TYPE_CHECKING:
    import aiohttp
    import requests

__all__ = ["AsyncJobsClient", "JobsClient"]

T = TypeVar("T")
OnTry = Callable[[Call[Any], JobsApiError | None], None]


def _ignore(_call: Call[Any], _error: JobsApiError | None) -> None:
    pass


class JobsClient(BaseClient):
    """The blocking face, on one pooled ``requests`` session. Use it as a context manager."""

    _session: requests.Session | None = None

    def send(
        self, call: Call[T], *, retries: RetryPolicy | None = None, on_try: OnTry = _ignore
    ) -> T:
        """Send a call, again where that is safe and may help, and return what its answer says.

        :param call: what to ask, from :mod:`.calls`.
        :param retries: a policy for this call only.
        :param on_try: called with the call and None before each try to send it, and with its error
            after a try that did not work.
        :raises JobsApiError: what went wrong in the end; see :mod:`.errors`.
        """
        tries = Tries(call)

        def once() -> T:
            if tries.refused:
                self.renew_credentials()
            tries.begin()
            on_try(call, None)
            try:
                return self._send_once(call)
            except JobsApiError as error:
                on_try(call, error)
                if tries.is_done(error):
                    return cast("T", None)
                raise

        retrying = tenacity.Retrying(sleep=self._sleep, **self._retrying(call, retries))
        try:
            result: T = retrying(once)
        except JobsApiError as error:
            tries.gave_up(error, retrying.statistics.get("idle_for", 0.0))
            raise
        tries.worked(retrying.statistics.get("idle_for", 0.0))
        return result

    def carry_out(
        self,
        steps: Generator[Step, Any, T],
        *,
        patient: bool = True,
        on_try: OnTry = _ignore,
    ) -> T:
        """Carry out an exchange of :mod:`.steps` and return its result.

        :param patient: let reads wait out any outage, since what an exchange reads is known to be
            there; default True.
        :param on_try: as for :meth:`send`.
        """
        reads = self._retries.patient() if patient else None
        exchange = Exchange(steps)
        while (step := exchange.step) is not None:
            if isinstance(step, Wait):
                exchange.answer(self._sleep(step.seconds))
                continue
            retries = reads if step.verb == "GET" else None
            try:
                answer = self.send(step, retries=retries, on_try=on_try)
            except JobsApiError as error:
                exchange.fail(error)
            else:
                exchange.answer(answer)
        return exchange.result

    def iterate(self, call: Call[Page[T]]) -> Iterator[T]:
        """Yield the items of a list, fetching a page only when the one before is used up."""
        following: Call[Page[T]] | None = call
        while following is not None:
            page = self.send(following)
            yield from page.items
            following = page.next

    def renew_credentials(self) -> None:
        """Take fresh credentials, where the client was told how to get some."""
        if self._renew_credentials is not None:
            self._credentials = self._renew_credentials()

    def twin(self) -> JobsClient:
        """Return a client with the same settings and connections of its own.

        For a signal handler, which may have interrupted this one in the middle of a call. It does
        not renew its credentials, since that may ask whoever keeps them in the middle of an answer.
        """
        twin = copy.copy(self)
        twin._session = None  # noqa: SLF001 - its own class
        twin._renew_credentials = None  # noqa: SLF001
        return twin

    def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    _default_sleep: ClassVar[Any] = staticmethod(pause)

    def _send_once(self, call: Call[T]) -> T:
        import requests

        request = self._request(call, self._credentials.authorization())
        if self._session is None:
            self._session = requests.Session()
        try:
            response = self._session.request(
                request.verb,
                request.url,
                params=request.query,
                json=request.body,
                headers=request.headers,
                auth=_keep_header,
                # Given at each request: on a session, REQUESTS_CA_BUNDLE would win over it.
                verify=self._verify,
                allow_redirects=False,
                timeout=(CONNECT_SECONDS, self._timeout_seconds),
            )
        except requests.RequestException as error:
            raise self._fault(error) from None
        return self._read(call, response.status_code, response.headers, response.content)

    def _fault(self, error: requests.RequestException) -> NoAnswer:
        """Name a fault of requests; urllib3's own error, inside, tells sent from not sent."""
        import requests
        import urllib3.exceptions as inner

        cause: Any = error.args[0] if error.args else error
        cause = getattr(cause, "reason", None) or cause
        if isinstance(error, requests.exceptions.SSLError):
            return self._insecure(reason_of(cause))
        if isinstance(cause, inner.NameResolutionError):
            return self._host_not_found()
        if isinstance(error, requests.ConnectTimeout):
            return self._connection_failed(f"not established within {CONNECT_SECONDS:.0f} s")
        if isinstance(cause, (inner.NewConnectionError, inner.ProxyError)):
            return self._connection_failed(reason_of(cause))
        if isinstance(error, requests.Timeout):
            return self._answer_lost(f"nothing came for {self._timeout_seconds:.0f} s")
        return self._answer_lost(reason_of(cause))


class AsyncJobsClient(BaseClient):
    """The asyncio face, on one pooled ``aiohttp`` session. Use it as an async context manager."""

    _session: aiohttp.ClientSession | None = None
    #: Size of the last answer's body, for who weighs one way of asking against another.
    answered_bytes: int = 0

    async def send(
        self,
        call: Call[T],
        *,
        retries: RetryPolicy | None = None,
        turn: Callable[[], AbstractAsyncContextManager[Any]] = nullcontext,
    ) -> T:
        """Send a call, again where that is safe and may help, and return what its answer says.

        :param call: what to ask, from :mod:`.calls`.
        :param retries: a policy for this call only.
        :param turn: what each try is made within, and no wait between two: a pace; default none.
        :raises JobsApiError: what went wrong in the end; see :mod:`.errors`.
        """
        tries = Tries(call)

        async def once() -> T:
            if tries.refused:
                await self.renew_credentials()
            tries.begin()
            try:
                async with turn():
                    return await self._send_once(call)
            except JobsApiError as error:
                if tries.is_done(error):
                    return cast("T", None)
                raise

        retrying = tenacity.AsyncRetrying(sleep=self._sleep, **self._retrying(call, retries))
        try:
            result: T = await retrying(once)
        except JobsApiError as error:
            tries.gave_up(error, retrying.statistics.get("idle_for", 0.0))
            raise
        tries.worked(retrying.statistics.get("idle_for", 0.0))
        return result

    async def carry_out(self, steps: Generator[Step, Any, T], *, patient: bool = True) -> T:
        """Carry out an exchange of :mod:`.steps` and return its result.

        :param patient: let reads wait out any outage, since what an exchange reads is known to be
            there; default True.
        """
        reads = self._retries.patient() if patient else None
        exchange = Exchange(steps)
        while (step := exchange.step) is not None:
            if isinstance(step, Wait):
                exchange.answer(await self._sleep(step.seconds))
                continue
            try:
                answer = await self.send(step, retries=reads if step.verb == "GET" else None)
            except JobsApiError as error:
                exchange.fail(error)
            else:
                exchange.answer(answer)
        return exchange.result

    async def iterate(self, call: Call[Page[T]]) -> AsyncIterator[T]:
        """Yield the items of a list, fetching a page only when the one before is used up."""
        following: Call[Page[T]] | None = call
        while following is not None:
            page = await self.send(following)
            for item in page.items:
                yield item
            following = page.next

    async def renew_credentials(self) -> None:
        """Take fresh credentials, where the client was told how to get some."""
        if self._renew_credentials is not None:
            self._credentials = await self._renew_credentials()

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    _default_sleep: ClassVar[Any] = staticmethod(a_pause)

    async def _send_once(self, call: Call[T]) -> T:
        import aiohttp

        request = self._request(call, self._credentials.authorization())
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # Not trust_env: it would also set an Authorization header of its own from .netrc.
                proxy=environment_proxy(self.base_url),
                timeout=aiohttp.ClientTimeout(
                    total=None,
                    sock_connect=CONNECT_SECONDS,
                    sock_read=self._timeout_seconds,
                ),
            )
        try:
            async with self._session.request(
                request.verb,
                request.url,
                params=request.query,
                json=request.body,
                headers=request.headers,
                ssl=await self._ssl(),
                allow_redirects=False,
            ) as response:
                body = await response.read()
                self.answered_bytes = len(body)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._fault(error) from None
        return self._read(call, response.status, response.headers, body)

    async def _ssl(self) -> Any:
        verify = self._verify
        if verify is True:
            # As requests does, so that a company's CA bundle serves both faces.
            bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
            verify = bundle or True
        if isinstance(verify, bool):
            return verify
        if self._ssl_context is None:
            # In a thread: to read all certificates of a bundle would hold up the event loop.
            reading = asyncio.to_thread(ssl.create_default_context, cafile=verify)
            self._ssl_context = asyncio.ensure_future(reading)
        # For all requests that are waiting for it, whichever of them is cancelled.
        return await asyncio.shield(self._ssl_context)

    _ssl_context: asyncio.Future[ssl.SSLContext] | None = None

    def _fault(self, error: Exception) -> NoAnswer:
        """Name a fault of aiohttp."""
        import aiohttp

        if isinstance(error, (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch)):
            return self._insecure(reason_of(error))
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return self._host_not_found()
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return self._connection_failed(f"not established within {CONNECT_SECONDS:.0f} s")
        if isinstance(error, aiohttp.ClientConnectorError):
            return self._connection_failed(reason_of(error))
        if isinstance(error, TimeoutError):
            return self._answer_lost(f"nothing came for {self._timeout_seconds:.0f} s")
        return self._answer_lost(reason_of(error))


def _keep_header(request: Any) -> Any:
    """Tell requests that the Authorization header is set, else a .netrc entry would replace it."""
    return request

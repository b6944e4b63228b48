"""The asyncio client, on ``aiohttp``; import it from :mod:`.client`."""

from __future__ import annotations

import asyncio
import functools
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, cast
from urllib.parse import urlsplit

import tenacity

from airflow_jobs_provider.api.base_client import (
    CONNECT_SECONDS,
    LIBRARY_ERRORS,
    AttemptTracker,
    BaseClient,
    Request,
    error_reason,
    strip_traceback,
)
from airflow_jobs_provider.api.endpoints import Call, Page
from airflow_jobs_provider.api.errors import APIConnectionError, JobsAPIError
from airflow_jobs_provider.api.pagination import Paginator
from airflow_jobs_provider.api.proxies import Route, choose_route, ssl_context
from airflow_jobs_provider.api.retry import RetryPolicy, async_sleep
from airflow_jobs_provider.api.workflows.base import Workflow, run_workflow_async

if TYPE_CHECKING:
    import aiohttp

__all__ = ["AsyncJobsClient"]

T = TypeVar("T")

# An answer up to this size is read in the event loop, a larger one in a thread.
READ_AT_ONCE_BYTES = 128 * 1024


class AsyncJobsClient(BaseClient):
    """The asyncio face, on one pooled ``aiohttp`` session. Use it as an async context manager."""

    _session: aiohttp.ClientSession | None = None
    #: Size of the last answer's body, for who weighs one way of asking against another.
    last_response_bytes: int = 0

    async def send(
        self,
        call: Call[T],
        *,
        retries: RetryPolicy | None = None,
        rate_limit: Callable[[], AbstractAsyncContextManager[Any]] = nullcontext,
    ) -> T:
        """Send a call, again where that is safe and may help, and return what its answer says.

        :param call: what to ask, from :mod:`.endpoints`.
        :param retries: a policy for this call only.
        :param turn: what each try is made within, and no wait between two: a pace; default none.
        :raises JobsAPIError: what went wrong in the end; see :mod:`.errors`.
        """
        tries = AttemptTracker(call)
        request = self._request(call)

        async def once() -> T:
            if tries.refused:
                await self.renew_credentials()
            tries.begin()
            try:
                async with rate_limit():
                    return await self._send_once(call, request)
            except JobsAPIError as error:
                if tries.is_done(error):
                    return cast("T", None)
                raise

        retrying = tenacity.AsyncRetrying(sleep=self.sleep, **self._retrying(call, retries))
        try:
            result: T = await retrying(once)
        except JobsAPIError as error:
            tries.gave_up(error, retrying.statistics.get("idle_for", 0.0))
            raise
        tries.worked(retrying.statistics.get("idle_for", 0.0))
        return result

    async def run(self, steps: Workflow[T], *, without_deadline: bool = True) -> T:
        """Execute a workflow and return its result; see :mod:`.workflows.base`.

        :param steps: the workflow.
        :param without_deadline: let reads wait out any outage, since a workflow reads what is known
            to exist; default True.
        :raises JobsAPIError: an error that the workflow does not handle.
        """
        reads = self._retries.without_deadline() if without_deadline else None

        def send(call: Call[Any]) -> Awaitable[Any]:
            return self.send(call, retries=reads if call.verb == "GET" else None)

        return await run_workflow_async(steps, send=send, wait=self.sleep)

    async def iterate(self, call: Call[Page[T]]) -> AsyncIterator[T]:
        """Yield the items of a list, fetching a page only when the one before is used up."""
        pages = Paginator(call)
        while not pages.is_exhausted:
            for item in await self.run(pages.next_page(), without_deadline=False):
                yield item

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

    _default_sleep: ClassVar[Any] = staticmethod(async_sleep)

    async def _send_once(self, call: Call[T], request: Request) -> T:
        import aiohttp
        import yarl

        route, trust = await self._choose_route()
        started = time.monotonic()
        progress = _Progress()
        faults: tuple[type[Exception], ...] = (aiohttp.ClientError, *LIBRARY_ERRORS)
        fault: BaseException
        try:
            async with self._session_for(route).request(
                request.verb,
                yarl.URL(request.url, encoded=True),
                data=request.body,
                headers=self._headers(request),
                proxy=route.proxy,
                ssl=trust,
                allow_redirects=False,
                trace_request_ctx=progress,
            ) as response:
                body = await self._body(call, response)
        except faults as error:
            is_late = time.monotonic() - started >= self._answer_seconds and progress.is_connected
            fault = self._answer_too_slow() if is_late else self._fault(error, route, progress)
        except BaseException as error:  # noqa: BLE001 - such as the cancellation of the task
            fault = strip_traceback(error)
        else:
            answer = (response.status, response.headers, body)
            if len(body) <= READ_AT_ONCE_BYTES and not response.headers.get("Content-Encoding"):
                result, self.last_response_bytes = self._read(call, route, *answer)
            else:
                # In a thread: to unpack and read it would hold up the event loop.
                read = functools.partial(self._read, call, route, *answer)
                result, self.last_response_bytes = await asyncio.to_thread(read)
            return result
        # Raised here, so that no frame of the library is shown with it: they hold the headers.
        raise fault

    async def _body(self, call: Call[Any], response: aiohttp.ClientResponse) -> bytes:
        """Read an answer's body, or so much of it as shows that it is too large."""
        limit = self._max_bytes(call, response.status)
        parts: list[bytes] = []
        size = 0
        async for part in response.content.iter_any():
            parts.append(part)
            size += len(part)
            if size > limit:
                response.close()
                break
        return b"".join(parts)

    def _session_for(self, route: Route) -> aiohttp.ClientSession:
        if self._session is None:
            import aiohttp

            traces = aiohttp.TraceConfig()
            traces.on_connection_create_end.append(_note_connection)
            traces.on_connection_reuseconn.append(_note_connection)
            self._session = aiohttp.ClientSession(
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(
                    total=self._answer_seconds,
                    # The proxy's answer to CONNECT is waited for as long as the blocking face does.
                    connect=CONNECT_SECONDS if route.proxy else None,
                    sock_connect=CONNECT_SECONDS,
                    sock_read=self._timeout_seconds,
                ),
                trace_configs=[traces],
            )
        return self._session

    async def _choose_route(self) -> tuple[Route, ssl.SSLContext | bool]:
        if self._route is None or (self._route.done() and self._route.exception() is not None):
            # In a thread: to read all certificates of a bundle would hold up the event loop.
            self._route = asyncio.ensure_future(asyncio.to_thread(self._route_and_trust))
        # For all requests that are waiting for it, whichever of them is cancelled.
        return await asyncio.shield(self._route)

    def _route_and_trust(self) -> tuple[Route, ssl.SSLContext | bool]:
        route = choose_route(self.base_url, self._proxies, self._verify)
        if self.base_url.startswith("https:") or route.address.startswith("https:"):
            return route, ssl_context(route.verify, self.host)
        return route, True

    _route: asyncio.Future[tuple[Route, ssl.SSLContext | bool]] | None = None

    def _fault(self, error: Exception, route: Route, progress: _Progress) -> APIConnectionError:
        """Name a fault of aiohttp."""
        import aiohttp

        if route.proxy and not progress.is_connected:
            if isinstance(error, aiohttp.ClientHttpProxyError):
                return self._proxy_failed(route, error.message, error.status)
            is_services = isinstance(error, aiohttp.ClientSSLError) and self._is_of_service(error)
            if not is_services:
                return self._proxy_failed(route, self._proxy_reason(error))
        if isinstance(error, (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch)):
            return self._insecure(error_reason(error))
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return self._host_not_found()
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return self._connection_failed(f"not established within {CONNECT_SECONDS:.0f} s")
        if isinstance(error, aiohttp.ClientConnectorError):
            return self._connection_failed(error_reason(error))
        if isinstance(error, TimeoutError):
            return self._answer_lost(f"nothing came for {self._timeout_seconds:.0f} s")
        return self._answer_lost(error_reason(error))

    def _proxy_reason(self, error: Exception) -> str:
        import aiohttp

        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return "its host name does not resolve"
        if isinstance(error, TimeoutError):
            return f"not established within {CONNECT_SECONDS:.0f} s"
        return error_reason(error)

    def _is_of_service(self, error: aiohttp.ClientSSLError) -> bool:
        """Whether TLS failed with the service and not with its proxy."""
        parts = urlsplit(self.base_url)
        return (error.host, error.port) == (parts.hostname, parts.port or 443)


class _Progress:
    """How far a request has come."""

    is_connected = False


async def _note_connection(_session: Any, context: Any, _parameters: Any) -> None:
    context.trace_request_ctx.is_connected = True

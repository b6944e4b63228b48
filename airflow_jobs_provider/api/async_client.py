"""The asyncio client, on ``aiohttp``; :mod:`.client` exports it."""

from __future__ import annotations

import asyncio
import functools
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, cast
from urllib.parse import urlsplit

import tenacity

from airflow_jobs_provider.api.attempts import AttemptTracker, OnAttempt, ignore_attempt
from airflow_jobs_provider.api.base_client import (
    CONNECT_SECONDS,
    LIBRARY_ERRORS,
    BaseClient,
    Request,
    error_reason,
    strip_traceback,
)
from airflow_jobs_provider.api.calls import Call, Page
from airflow_jobs_provider.api.errors import APIConnectionError, AuthenticationError, JobsAPIError
from airflow_jobs_provider.api.pagination import Paginator
from airflow_jobs_provider.api.proxies import Route, choose_route, ssl_context
from airflow_jobs_provider.api.responses import LARGE_BYTES
from airflow_jobs_provider.api.retry import RetryPolicy, async_sleep
from airflow_jobs_provider.api.workflows.base import Workflow, run_workflow_async

if TYPE_CHECKING:
    import aiohttp

__all__ = ["AsyncJobsClient"]

T = TypeVar("T")


class AsyncJobsClient(BaseClient):
    """The asyncio client, on one pooled ``aiohttp`` session. It is an async context manager."""

    _session: aiohttp.ClientSession | None = None
    #: Decoded size in bytes of the last response.
    last_response_bytes: int = 0

    async def send(
        self,
        call: Call[T],
        *,
        retries: RetryPolicy | None = None,
        rate_limit: Callable[[], AbstractAsyncContextManager[Any]] = nullcontext,
        on_attempt: OnAttempt = ignore_attempt,
    ) -> T:
        """Send a call, with retries, and return its result.

        :param call: the call, from :mod:`.endpoints`.
        :param retries: retry policy for this call; default that of the client.
        :param rate_limit: returns an async context manager; each attempt is made inside it, the
            waits between two are not. Default: no limit.
        :param on_attempt: called with the call and None before each attempt, and with the call and
            the error after a failed attempt.
        :raises JobsAPIError: how the last attempt failed; see :mod:`.errors`.
        """
        attempts, arguments = self._attempts(call, retries)
        request = self._request(call)

        async def attempt() -> T:
            if attempts.refusal is not None:
                await self.renew_credentials(attempts.refusal)
            attempts.start()
            try:
                async with rate_limit():
                    on_attempt(call, None)
                    attempts.begin_request()
                    result = await self._send_once(call, request, attempts)
                attempts.end_request()
                return result
            except JobsAPIError as error:
                attempts.end_request(error)
                on_attempt(call, error)
                if attempts.is_already_done(error):
                    return cast("T", None)
                raise

        retrying = tenacity.AsyncRetrying(sleep=self.sleep, **arguments)
        try:
            result: T = await retrying(attempt)
        except JobsAPIError as error:
            attempts.record_attempts(error, retrying.statistics.get("idle_for", 0.0))
            raise
        attempts.log_recovery(retrying.statistics.get("idle_for", 0.0))
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
            return self.send(call, retries=reads if call.waits_out_outages else None)

        return await run_workflow_async(steps, send=send, wait=self.sleep)

    async def iterate(self, call: Call[Page[T]]) -> AsyncIterator[T]:
        """Yield the items of a list. A page is read when the items of the page before are used up.

        :param call: the call for the first page.
        :raises JobsAPIError: a page cannot be read.
        """
        pages = Paginator(call)
        while not pages.is_exhausted:
            for item in await self.run(pages.next_page(), without_deadline=False):
                yield item

    async def renew_credentials(self, error: JobsAPIError) -> None:
        """Drop refused credentials, and replace them if the client has ``renew_credentials``.

        :param error: the refusal, of the service or of an identity service.
        """
        if isinstance(error, AuthenticationError):
            self._credentials.invalidate(error.refused_credentials)
        if self._renew_credentials is not None:
            self._take_renewed(await self._renew_credentials())

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

    async def _send_once(self, call: Call[T], request: Request, attempts: AttemptTracker) -> T:
        import aiohttp
        import yarl

        route, ssl_setting = await self._choose_route()
        started = time.monotonic()
        progress = _ConnectionProgress()
        library_errors: tuple[type[Exception], ...] = (aiohttp.ClientError, *LIBRARY_ERRORS)
        failure: BaseException
        try:
            async with self._session_for(route).request(
                request.verb,
                yarl.URL(request.url, encoded=True),
                data=request.body,
                headers=self._headers(
                    request, attempts.record_credentials(await self._authentication())
                ),
                proxy=route.proxy,
                ssl=ssl_setting,
                allow_redirects=False,
                trace_request_ctx=progress,
            ) as response:
                body = await self._body(call, response)
        except library_errors as error:
            is_late = (
                time.monotonic() - started >= self._response_timeout_seconds
                and progress.is_connected
            )
            failure = (
                self._response_too_slow()
                if is_late
                else self._translate_error(error, route, progress)
            )
        except BaseException as error:  # noqa: BLE001 - such as the cancellation of the task
            failure = strip_traceback(error)
        else:
            attempts.status = response.status
            received = (response.status, response.headers, body)
            if len(body) <= LARGE_BYTES and not response.headers.get("Content-Encoding"):
                result, self.last_response_bytes = self._parse_response(call, route, *received)
            else:
                # In a thread, since it takes long enough to block the event loop.
                parse = functools.partial(self._parse_response, call, route, *received)
                result, self.last_response_bytes = await asyncio.to_thread(parse)
            return result
        # Raised here, so that the traceback has no frame of the library, which holds the headers.
        raise failure

    async def _body(self, call: Call[Any], response: aiohttp.ClientResponse) -> bytes:
        """Read the body of a response; stop once it is too large."""
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
            traces.on_connection_create_end.append(_record_connection)
            traces.on_connection_reuseconn.append(_record_connection)
            self._session = aiohttp.ClientSession(
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(
                    total=self._response_timeout_seconds,
                    # For the proxy's response to CONNECT, as in the blocking client.
                    connect=CONNECT_SECONDS if route.proxy else None,
                    sock_connect=CONNECT_SECONDS,
                    sock_read=self._timeout_seconds,
                ),
                trace_configs=[traces],
            )
        return self._session

    async def _authentication(self) -> Mapping[str, str]:
        try:
            return await self._credentials.a_headers()
        except JobsAPIError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever an authentication library raises
            failure = self._credentials_error(error)
        raise failure

    async def _choose_route(self) -> tuple[Route, ssl.SSLContext | bool]:
        if self._route is None or (self._route.done() and self._route.exception() is not None):
            # In a thread: reading the certificates of a bundle would block the event loop.
            self._route = asyncio.ensure_future(asyncio.to_thread(self._route_and_ssl))
        # Shielded, since other requests wait for it too.
        return await asyncio.shield(self._route)

    def _route_and_ssl(self) -> tuple[Route, ssl.SSLContext | bool]:
        route = choose_route(self.base_url, self._proxies, self._verify)
        if self.base_url.startswith("https:") or route.address.startswith("https:"):
            return route, ssl_context(route.verify, self.host)
        return route, True

    _route: asyncio.Future[tuple[Route, ssl.SSLContext | bool]] | None = None

    def _translate_error(
        self, error: Exception, route: Route, progress: _ConnectionProgress
    ) -> APIConnectionError:
        """Return the package's exception for one of aiohttp."""
        import aiohttp

        if route.proxy and not progress.is_connected:
            if isinstance(error, aiohttp.ClientHttpProxyError):
                return self._proxy_failed(route, error.message, error.status)
            is_services = isinstance(error, aiohttp.ClientSSLError) and self._is_of_service(error)
            if not is_services:
                return self._proxy_failed(route, self._proxy_reason(error))
        if isinstance(error, (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch)):
            return self._certificate_error(error_reason(error))
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return self._host_not_found()
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return self._connection_failed(f"not established within {CONNECT_SECONDS:.0f} s")
        if isinstance(error, aiohttp.ClientConnectorError):
            return self._connection_failed(error_reason(error))
        if isinstance(error, TimeoutError):
            return self._response_lost(f"nothing came for {self._timeout_seconds:.0f} s")
        return self._response_lost(error_reason(error))

    def _proxy_reason(self, error: Exception) -> str:
        import aiohttp

        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return "its host name does not resolve"
        if isinstance(error, TimeoutError):
            return f"not established within {CONNECT_SECONDS:.0f} s"
        return error_reason(error)

    def _is_of_service(self, error: aiohttp.ClientSSLError) -> bool:
        """Whether TLS failed between client and service, not between client and proxy."""
        parts = urlsplit(self.base_url)
        return (error.host, error.port) == (parts.hostname, parts.port or 443)


class _ConnectionProgress:
    """Whether a request has a connection: set by the trace of the session."""

    is_connected = False


async def _record_connection(_session: Any, context: Any, _parameters: Any) -> None:
    context.trace_request_ctx.is_connected = True

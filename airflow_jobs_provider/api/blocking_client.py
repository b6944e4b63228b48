"""The blocking client, on ``http.client``; :mod:`.client` exports it."""

from __future__ import annotations

import copy
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar, cast

import tenacity

from airflow_jobs_provider.api.base_client import (
    CONNECT_SECONDS,
    AttemptTracker,
    BaseClient,
    OnAttempt,
    Request,
    error_reason,
    strip_traceback,
)
from airflow_jobs_provider.api.calls import Call, Page
from airflow_jobs_provider.api.errors import (
    APIConnectionError,
    AuthenticationError,
    JobsAPIError,
    is_success,
)
from airflow_jobs_provider.api.http_connection import (
    HTTP_ERRORS,
    ConnectionPool,
    NotConnectedError,
    Response,
    TunnelRefusedError,
)
from airflow_jobs_provider.api.pagination import Paginator
from airflow_jobs_provider.api.proxies import Route, choose_route
from airflow_jobs_provider.api.retry import RetryPolicy, blocking_sleep
from airflow_jobs_provider.api.workflows.base import OnEvent, Workflow, run_workflow

__all__ = ["JobsClient"]

T = TypeVar("T")


def _ignore(*_arguments: object) -> None:
    pass


class JobsClient(BaseClient):
    """The blocking client, on connections that stay open. It is a context manager.

    ::

        with JobsClient("https://example.cloud.databricks.com", Token("...")) as client:
            run = client.send(endpoints.get_run(7))
    """

    _pool: ConnectionPool | None = None
    _route: Route | None = None

    def send(
        self, call: Call[T], *, retries: RetryPolicy | None = None, on_attempt: OnAttempt = _ignore
    ) -> T:
        """Send a call, with retries, and return its result.

        :param call: the call, from :mod:`.endpoints`.
        :param retries: retry policy for this call; default that of the client.
        :param on_attempt: called with the call and None before each attempt, and with the call and
            the error after a failed attempt.
        :raises JobsAPIError: how the last attempt failed; see :mod:`.errors`.
        """
        attempts = AttemptTracker(call)
        request = self._request(call)

        def attempt() -> T:
            if attempts.refusal is not None:
                self.renew_credentials(attempts.refusal)
            attempts.start()
            on_attempt(call, None)
            try:
                return self._send_once(call, request, attempts)
            except JobsAPIError as error:
                on_attempt(call, error)
                if attempts.is_already_done(error):
                    return cast("T", None)
                raise

        retrying = tenacity.Retrying(sleep=self.sleep, **self._retrying(call, retries))
        try:
            result: T = retrying(attempt)
        except JobsAPIError as error:
            attempts.record_attempts(error, retrying.statistics.get("idle_for", 0.0))
            raise
        attempts.log_recovery(retrying.statistics.get("idle_for", 0.0))
        return result

    def run(
        self,
        steps: Workflow[T],
        *,
        without_deadline: bool = True,
        on_attempt: OnAttempt = _ignore,
        on_event: OnEvent = _ignore,
        before_step: Callable[[], None] = _ignore,
        wait: Callable[[float], object] | None = None,
    ) -> T:
        """Execute a workflow and return its result; see :mod:`.workflows.base`.

        :param steps: the workflow.
        :param without_deadline: let reads wait out any outage, since a workflow reads what is known
            to exist; default True.
        :param on_attempt: as for :meth:`send`.
        :param on_event: called with each event of the workflow.
        :param before_step: called before each call and after each wait; what it raises ends the
            workflow.
        :param wait: lets so many seconds pass; default the client's own :attr:`sleep`.
        :raises JobsAPIError: an error that the workflow does not handle.
        """
        reads = self._retries.without_deadline() if without_deadline else None

        def send(call: Call[Any]) -> Any:
            return self.send(
                call, retries=reads if call.waits_out_outages else None, on_attempt=on_attempt
            )

        return run_workflow(
            steps, send=send, wait=wait or self.sleep, on_event=on_event, before_step=before_step
        )

    def iterate(self, call: Call[Page[T]]) -> Iterator[T]:
        """Yield the items of a list. A page is read when the items of the page before are used up.

        :param call: the call for the first page.
        :raises JobsAPIError: a page cannot be read.
        """
        pages = Paginator(call)
        while not pages.is_exhausted:
            yield from self.run(pages.next_page(), without_deadline=False)

    def renew_credentials(self, error: JobsAPIError) -> None:
        """Drop refused credentials, and replace them if the client has ``renew_credentials``.

        :param error: the refusal, of the service or of an identity service.
        """
        if isinstance(error, AuthenticationError):
            self._credentials.invalidate(error.refused_credentials)
        if self._renew_credentials is not None:
            self._credentials = self._renew_credentials()

    def clone(self) -> JobsClient:
        """Return a client with the same settings and connections of its own.

        For a signal handler, which may have interrupted this client in the middle of a call. The
        clone does not call ``renew_credentials``: that may ask Airflow, whose channel the signal
        may have interrupted, too.
        """
        clone = copy.copy(self)
        clone._pool = None  # noqa: SLF001 - its own class
        clone._renew_credentials = None  # noqa: SLF001
        return clone

    def close(self) -> None:
        """Close the connections."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    _default_sleep: ClassVar[Any] = staticmethod(blocking_sleep)

    def _send_once(self, call: Call[T], request: Request, attempts: AttemptTracker) -> T:
        route = self._choose_route()
        started = time.monotonic()
        failure: BaseException
        is_stream = False
        body = b""
        try:
            response = self._connections(route).send(
                request.verb,
                request.url,
                self._headers(request, attempts.record_credentials(self._authentication())),
                request.body,
            )
            is_stream = call.parse_stream is not None and is_success(response.status)
            if not is_stream:
                with response:
                    body = response.read(self._max_bytes(call, response.status))
        except HTTP_ERRORS as error:
            failure = self._translate(error, route, started)
        except BaseException as error:  # noqa: BLE001 - of a signal handler, such as the task's time-out
            failure = strip_traceback(error)
        else:
            status, headers = response.status, response.headers
            if is_stream:
                with response:
                    parts = self._parts(response, route, started)
                    self._record_response(route)
                    return self._parse_stream(call, status, headers, parts)
            return self._parse_response(call, route, status, headers, body)[0]
        # Raised here, so that the traceback has no frame that holds the headers.
        raise failure

    def _parts(self, response: Response, route: Route, started: float) -> Iterator[bytes]:
        """Yield the chunks of a body as they arrive, undecoded."""
        parts = response.chunks()
        failure: BaseException
        while True:
            try:
                part: bytes | None = next(parts, None)
            except HTTP_ERRORS as error:
                failure = self._translate(error, route, started)
                break
            except BaseException as error:  # noqa: BLE001 - of a signal handler
                failure = strip_traceback(error)
                break
            if part is None:
                return
            yield part
        raise failure

    def _translate(self, error: Exception, route: Route, started: float) -> APIConnectionError:
        is_late = time.monotonic() - started >= self._response_timeout_seconds
        return self._response_too_slow() if is_late else self._translate_error(error, route)

    def _authentication(self) -> Mapping[str, str]:
        try:
            return self._credentials.headers()
        except JobsAPIError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever an authentication library raises
            failure = self._credentials_error(error)
        raise failure

    def _choose_route(self) -> Route:
        if self._route is None:
            self._route = choose_route(self.base_url, self._proxies, self._verify)
        return self._route

    def _connections(self, route: Route) -> ConnectionPool:
        if self._pool is None:
            self._pool = ConnectionPool(
                self.base_url,
                route,
                connect_seconds=CONNECT_SECONDS,
                timeout_seconds=self._timeout_seconds,
                response_timeout_seconds=self._response_timeout_seconds,
            )
        return self._pool

    def _translate_error(self, error: Exception, route: Route) -> APIConnectionError:
        """Return the package's exception for one of the HTTP connection."""
        if isinstance(error, NotConnectedError):
            return self._not_connected(error.cause, route, at_proxy=error.at_proxy)
        if isinstance(error, TimeoutError):
            return self._response_lost(f"nothing came for {self._timeout_seconds:.0f} s")
        return self._response_lost(error_reason(error))

    def _not_connected(
        self, cause: Exception, route: Route, *, at_proxy: bool
    ) -> APIConnectionError:
        if isinstance(cause, ssl.SSLError) and not at_proxy:
            return self._certificate_error(error_reason(cause))
        is_unknown = isinstance(cause, (socket.gaierror, UnicodeError))
        is_late = isinstance(cause, TimeoutError)
        took = f"not established within {CONNECT_SECONDS:.0f} s"
        reason = took if is_late else error_reason(cause)
        if not route.proxy:
            return self._host_not_found() if is_unknown else self._connection_failed(reason)
        if isinstance(cause, TunnelRefusedError):
            return self._proxy_failed(route, cause.reason, cause.status)
        return self._proxy_failed(route, "its host name does not resolve" if is_unknown else reason)

"""The blocking client, on ``requests``; :mod:`.client` exports it."""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, cast

import tenacity

from airflow_jobs_provider.api.attempts import AttemptTracker, OnAttempt
from airflow_jobs_provider.api.base_client import (
    CONNECT_SECONDS,
    LIBRARY_ERRORS,
    BaseClient,
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
from airflow_jobs_provider.api.proxies import Route, choose_route
from airflow_jobs_provider.api.retry import RetryPolicy, blocking_sleep
from airflow_jobs_provider.api.workflows.base import OnEvent, Workflow, run_workflow

if TYPE_CHECKING:
    import requests

__all__ = ["JobsClient", "keep_header"]

T = TypeVar("T")
# Compiled at first use: most tasks have no proxy that fails.
_REFUSED_TUNNEL = r"Tunnel connection failed: (\d+) *([^'\")]*)"


def _ignore(*_arguments: object) -> None:
    pass


class JobsClient(BaseClient):
    """The blocking client, on pooled connections of ``requests``. It is a context manager.

    ::

        with JobsClient("https://example.cloud.databricks.com", Token("...")) as client:
            run = client.send(endpoints.get_run(7))
    """

    _adapter: requests.adapters.BaseAdapter | None = None
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
        attempts, arguments = self._attempts(call, retries)
        request = self._request(call)

        def attempt() -> T:
            if attempts.refusal is not None:
                self.renew_credentials(attempts.refusal)
            attempts.start()
            on_attempt(call, None)
            attempts.begin_request()
            try:
                result = self._send_once(call, request, attempts)
                attempts.end_request()
                return result
            except JobsAPIError as error:
                attempts.end_request(error)
                on_attempt(call, error)
                if attempts.is_already_done(error):
                    return cast("T", None)
                raise

        retrying = tenacity.Retrying(sleep=self.sleep, **arguments)
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
        from airflow_jobs_provider.api.pagination import Paginator

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
            self._take_renewed(self._renew_credentials())

    def clone(self) -> JobsClient:
        """Return a client with the same settings and connections of its own.

        For a signal handler, which may have interrupted this client in the middle of a call. The
        clone does not call ``renew_credentials``: that may ask Airflow, whose channel the signal
        may have interrupted, too.
        """
        clone = copy.copy(self)
        clone._adapter = None  # noqa: SLF001 - its own class
        clone._renew_credentials = None  # noqa: SLF001
        return clone

    def close(self) -> None:
        """Close the connections."""
        if self._adapter is not None:
            self._adapter.close()
            self._adapter = None

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
        import requests
        from urllib3.exceptions import HTTPError

        route = self._choose_route()
        started = time.monotonic()
        library_errors: tuple[type[Exception], ...]
        library_errors = (requests.RequestException, HTTPError, *LIBRARY_ERRORS)
        failure: BaseException
        is_stream = False
        body = b""
        try:
            prepared = requests.Request(
                request.verb,
                request.url,
                headers=self._headers(request, attempts.record_credentials(self._authentication())),
                data=request.body,
                auth=keep_header,
            ).prepare()
            # Not through a session, which handles cookies and redirects.
            response = self._send_prepared(prepared, route)
            is_stream = call.parse_stream is not None and is_success(response.status_code)
            if not is_stream:
                with response:
                    body = self._body(call, response)
        except library_errors as error:
            failure = self._translate(error, route, started)
        except BaseException as error:  # noqa: BLE001 - of a signal handler, such as the task's time-out
            failure = strip_traceback(error)
        else:
            status, headers = response.status_code, response.headers
            attempts.status = status
            if is_stream:
                with response:
                    parts = self._parts(response, library_errors, route, started)
                    self._record_response(route)
                    return self._parse_stream(call, status, headers, parts)
            return self._parse_response(call, route, status, headers, body)[0]
        # Raised here, so that the traceback has no frame of the library, which holds the headers.
        raise failure

    def _body(self, call: Call[Any], response: requests.Response) -> bytes:
        """Read the body of a response; stop once it is too large."""
        limit = self._max_bytes(call, response.status_code)
        parts: list[bytes] = []
        size = 0
        for part in response.raw.stream(64 * 1024, decode_content=False):
            parts.append(part)
            size += len(part)
            if size > limit:
                break
        return b"".join(parts)

    def _parts(
        self,
        response: requests.Response,
        library_errors: tuple[type[Exception], ...],
        route: Route,
        started: float,
    ) -> Iterator[bytes]:
        """Yield the chunks of a body as they arrive, undecoded."""
        parts = response.raw.stream(64 * 1024, decode_content=False)
        failure: BaseException
        while True:
            try:
                part: bytes | None = next(parts, None)
            except library_errors as error:
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

    def _send_prepared(self, prepared: requests.PreparedRequest, route: Route) -> requests.Response:
        """Send a request by a route; the body of the response is not read yet."""
        return self._sender().send(
            prepared,
            stream=True,
            timeout=(CONNECT_SECONDS, self._timeout_seconds),
            verify=route.verify,
            proxies={"all": route.proxy} if route.proxy else {},
        )

    def _sender(self) -> requests.adapters.BaseAdapter:
        if self._adapter is None:
            from airflow_jobs_provider.api.http_adapter import TotalTimeoutAdapter

            self._adapter = TotalTimeoutAdapter(self._response_timeout_seconds)
        return self._adapter

    def _translate_error(self, error: Exception, route: Route) -> APIConnectionError:
        """Return the package's exception for one of requests.

        The exception of urllib3 inside it shows whether the request was sent.
        """
        import requests
        import urllib3.exceptions as inner

        from airflow_jobs_provider.api.http_adapter import failed_before_send

        cause: Any = error.args[0] if error.args else error
        cause = getattr(cause, "reason", None) or cause
        if isinstance(error, requests.exceptions.SSLError):
            return self._certificate_error(error_reason(cause))
        took = f"not established within {CONNECT_SECONDS:.0f} s"
        if route.proxy and failed_before_send(error):
            was_refused = re.search(_REFUSED_TUNNEL, str(cause))
            if was_refused:
                return self._proxy_failed(route, was_refused[2], int(was_refused[1]))
            inside = getattr(cause, "original_error", cause)
            if isinstance(inside, inner.NameResolutionError):
                return self._proxy_failed(route, "its host name does not resolve")
            is_late = isinstance(inside, inner.TimeoutError) and not isinstance(
                inside, inner.NewConnectionError
            )
            return self._proxy_failed(route, took if is_late else error_reason(inside))
        if isinstance(cause, inner.NameResolutionError):
            return self._host_not_found()
        if isinstance(error, requests.ConnectTimeout):
            return self._connection_failed(took)
        if isinstance(cause, inner.NewConnectionError):
            return self._connection_failed(error_reason(cause))
        if isinstance(error, (requests.Timeout, inner.TimeoutError)):
            return self._response_lost(f"nothing came for {self._timeout_seconds:.0f} s")
        return self._response_lost(error_reason(cause))


def keep_header(request: Any) -> Any:
    """Keep the Authorization header; without this, requests replaces it by a .netrc entry.

    :param request: the prepared request.
    """
    return request

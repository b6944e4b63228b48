"""The blocking client, on ``requests``; import it from :mod:`.client`."""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, cast

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
from airflow_jobs_provider.api.errors import APIConnectionError, JobsAPIError, is_success
from airflow_jobs_provider.api.pagination import Paginator
from airflow_jobs_provider.api.proxies import Route, choose_route
from airflow_jobs_provider.api.retry import RetryPolicy, blocking_sleep
from airflow_jobs_provider.api.workflows.base import OnEvent, Workflow, run_workflow

if TYPE_CHECKING:
    import requests

__all__ = ["JobsClient"]

T = TypeVar("T")
OnAttempt = Callable[[Call[Any], JobsAPIError | None], None]
_REFUSED_TUNNEL = re.compile(r"Tunnel connection failed: (\d+) *([^'\")]*)")


def _ignore(*_arguments: object) -> None:
    pass


class JobsClient(BaseClient):
    """The blocking face, on pooled connections of ``requests``. Use it as a context manager."""

    _adapter: requests.adapters.BaseAdapter | None = None
    _route: Route | None = None

    def send(
        self, call: Call[T], *, retries: RetryPolicy | None = None, on_attempt: OnAttempt = _ignore
    ) -> T:
        """Send a call, again where that is safe and may help, and return what its answer says.

        :param call: what to ask, from :mod:`.endpoints`.
        :param retries: a policy for this call only.
        :param on_attempt: called with the call and None before each attempt, and with the call and
            the error after a failed attempt.
        :raises JobsAPIError: what went wrong in the end; see :mod:`.errors`.
        """
        tries = AttemptTracker(call)
        request = self._request(call)

        def once() -> T:
            if tries.refused:
                self.renew_credentials()
            tries.begin()
            on_attempt(call, None)
            try:
                return self._send_once(call, request)
            except JobsAPIError as error:
                on_attempt(call, error)
                if tries.is_done(error):
                    return cast("T", None)
                raise

        retrying = tenacity.Retrying(sleep=self.sleep, **self._retrying(call, retries))
        try:
            result: T = retrying(once)
        except JobsAPIError as error:
            tries.gave_up(error, retrying.statistics.get("idle_for", 0.0))
            raise
        tries.worked(retrying.statistics.get("idle_for", 0.0))
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
                call, retries=reads if call.verb == "GET" else None, on_attempt=on_attempt
            )

        return run_workflow(
            steps, send=send, wait=wait or self.sleep, on_event=on_event, before_step=before_step
        )

    def iterate(self, call: Call[Page[T]]) -> Iterator[T]:
        """Yield the items of a list, fetching a page only when the one before is used up."""
        pages = Paginator(call)
        while not pages.is_exhausted:
            yield from self.run(pages.next_page(), without_deadline=False)

    def renew_credentials(self) -> None:
        """Take fresh credentials, where the client was told how to get some."""
        if self._renew_credentials is not None:
            self._credentials = self._renew_credentials()

    def clone(self) -> JobsClient:
        """Return a client with the same settings and connections of its own.

        For a signal handler, which may have interrupted this one in the middle of a call. It does
        not renew its credentials, since that may ask whoever keeps them in the middle of an answer.
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

    def _send_once(self, call: Call[T], request: Request) -> T:
        import requests
        from urllib3.exceptions import HTTPError

        route = self._choose_route()
        started = time.monotonic()
        faults: tuple[type[Exception], ...]
        faults = (requests.RequestException, HTTPError, *LIBRARY_ERRORS)
        fault: BaseException
        is_stream = False
        body = b""
        try:
            prepared = requests.Request(
                request.verb,
                request.url,
                headers=self._headers(request),
                data=request.body,
                auth=_keep_header,
            ).prepare()
            # Not through a session: one looks at cookies and at where a redirect leads.
            response = self._sender().send(
                prepared,
                stream=True,
                timeout=(CONNECT_SECONDS, self._timeout_seconds),
                verify=route.verify,
                proxies={"all": route.proxy} if route.proxy else {},
            )
            is_stream = call.read_stream is not None and is_success(response.status_code)
            if not is_stream:
                with response:
                    body = self._body(call, response)
        except faults as error:
            fault = self._named_fault(error, route, started)
        except BaseException as error:  # noqa: BLE001 - a signal's, such as a time-out of the task
            fault = strip_traceback(error)
        else:
            status, headers = response.status_code, response.headers
            if is_stream:
                with response:
                    parts = self._parts(response, faults, route, started)
                    self._answered(route)
                    return self._read_stream(call, status, headers, parts)
            return self._read(call, route, status, headers, body)[0]
        # Raised here, so that no frame of the library is shown with it: they hold the headers.
        raise fault

    def _body(self, call: Call[Any], response: requests.Response) -> bytes:
        """Read an answer's body, or so much of it as shows that it is too large."""
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
        faults: tuple[type[Exception], ...],
        route: Route,
        started: float,
    ) -> Iterator[bytes]:
        """Yield an answer's body as it arrives, undecoded."""
        parts = response.raw.stream(64 * 1024, decode_content=False)
        fault: BaseException
        while True:
            try:
                part: bytes | None = next(parts, None)
            except faults as error:
                fault = self._named_fault(error, route, started)
                break
            except BaseException as error:  # noqa: BLE001 - a signal's
                fault = strip_traceback(error)
                break
            if part is None:
                return
            yield part
        raise fault

    def _named_fault(self, error: Exception, route: Route, started: float) -> APIConnectionError:
        is_late = time.monotonic() - started >= self._answer_seconds
        return self._answer_too_slow() if is_late else self._fault(error, route)

    def _choose_route(self) -> Route:
        if self._route is None:
            self._route = choose_route(self.base_url, self._proxies, self._verify)
        return self._route

    def _sender(self) -> requests.adapters.BaseAdapter:
        if self._adapter is None:
            from airflow_jobs_provider.api.http_adapter import TotalTimeoutAdapter

            self._adapter = TotalTimeoutAdapter(self._answer_seconds)
        return self._adapter

    def _fault(self, error: Exception, route: Route) -> APIConnectionError:
        """Name a fault of requests; urllib3's own error, inside, tells sent from not sent."""
        import requests
        import urllib3.exceptions as inner

        from airflow_jobs_provider.api.http_adapter import failed_before_send

        cause: Any = error.args[0] if error.args else error
        cause = getattr(cause, "reason", None) or cause
        if isinstance(error, requests.exceptions.SSLError):
            return self._insecure(error_reason(cause))
        took = f"not established within {CONNECT_SECONDS:.0f} s"
        if route.proxy and failed_before_send(error):
            refused = _REFUSED_TUNNEL.search(str(cause))
            if refused:
                return self._proxy_failed(route, refused[2], int(refused[1]))
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
            return self._answer_lost(f"nothing came for {self._timeout_seconds:.0f} s")
        return self._answer_lost(error_reason(cause))


def _keep_header(request: Any) -> Any:
    """Tell requests that the Authorization header is set, else a .netrc entry would replace it."""
    return request

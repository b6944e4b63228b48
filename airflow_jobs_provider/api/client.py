"""Two thin faces over the same calls: :class:`JobsClient` (blocking), :class:`AsyncJobsClient`.

All that is decided (the address, the headers, what an answer means, whether to try again and when)
is decided in a shared base, in :mod:`.errors` and in :mod:`.retries`. A face only sends, receives
and sleeps, and names its HTTP library's faults.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, cast
from urllib.parse import urlsplit

import tenacity

from airflow_jobs_provider import __version__
from airflow_jobs_provider.api.auth import Credentials
from airflow_jobs_provider.api.calls import Call, Page
from airflow_jobs_provider.api.errors import (
    AnswerLost,
    ConnectionFailed,
    CredentialsError,
    DoesNotExist,
    HostNotFound,
    InsecureConnection,
    JobsApiError,
    NoAnswer,
    answer_error,
    read_json_object,
)
from airflow_jobs_provider.api.retries import RetryPolicy

if TYPE_CHECKING:
    import aiohttp
    import requests

__all__ = ["AsyncJobsClient", "JobsClient"]

T = TypeVar("T")
log = logging.getLogger(__name__)

_THIS_MACHINE = frozenset({"127.0.0.1", "localhost", "::1"})
_CONNECT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class _Request:
    verb: str
    url: str
    headers: dict[str, str]
    query: dict[str, str] | None
    body: Any | None


class _Client:
    """What both faces share: everything but sending, receiving and sleeping."""

    _default_sleep: ClassVar[Any]

    def __init__(
        self,
        base_url: str,
        credentials: Credentials,
        *,
        retries: RetryPolicy | None = None,
        timeout_seconds: float = 60.0,
        api_version: str = "2.0",
        allow_http: bool = False,
        verify: bool | str = True,
        user_agent_suffix: str = "",
        sleep: Callable[[float], Any] | None = None,
    ) -> None:
        """Prepare a client; nothing is sent yet.

        :param base_url: the workspace's address, such as ``https://adb-1.2.azuredatabricks.net``;
            a path is kept.
        :param credentials: what to authenticate with.
        :param retries: when to try again; the policy of :mod:`.retries` by default.
        :param timeout_seconds: longest wait for the next bytes of an answer; default 60.
        :param api_version: version in the path; default ``2.0``.
        :param allow_http: send credentials over plain http to another machine; default False.
        :param verify: check TLS certificates (default), or the path of a CA bundle.
        :param user_agent_suffix: added to the User-Agent.
        :param sleep: what waits between tries, in seconds; the face's own by default. Give a test
            one that does not wait.
        :raises CredentialsError: the address is plain http to another machine.
        """
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"base_url is not an http or https address: {base_url!r}")
        if parts.scheme == "http" and parts.hostname not in _THIS_MACHINE and not allow_http:
            raise CredentialsError(
                f"credentials are not sent to {parts.hostname} over plain http. Use https, or "
                'set "allow_http": true in the connection\'s extra'
            )
        self.base_url = base_url.rstrip("/")
        self.host = parts.netloc.rpartition("@")[2]
        self._credentials = credentials
        self._retries = retries or RetryPolicy()
        self._timeout_seconds = timeout_seconds
        self._jobs_url = f"{self.base_url}/api/{api_version}/jobs/"
        self._verify = verify
        self._sleep = sleep or self._default_sleep
        suffix = f" {user_agent_suffix}" if user_agent_suffix else ""
        self._user_agent = f"airflow-jobs-provider/{__version__}{suffix}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r}, {self._credentials!r})"

    def _request(self, call: Call[Any], authorization: str) -> _Request:
        is_get = call.verb == "GET"
        return _Request(
            verb=call.verb,
            url=self._jobs_url + call.path,
            headers={"Authorization": authorization, "User-Agent": self._user_agent},
            query={k: _query_text(v) for k, v in call.parameters.items()} if is_get else None,
            body=None if is_get else dict(call.parameters),
        )

    def _read(self, call: Call[T], status: int, headers: Mapping[str, str], body: bytes) -> T:
        error = answer_error(status, headers, body)
        if error is not None:
            raise error
        answer = read_json_object(body)
        assert answer is not None  # answer_error vouches for it
        return call.read(answer)

    def _retrying(self, call: Call[Any], retries: RetryPolicy | None) -> dict[str, Any]:
        return (retries or self._retries).tenacity(call.path, repeatable=call.repeatable)

    def _connection_failed(self, reason: object) -> ConnectionFailed:
        return ConnectionFailed(
            f"no connection to {self.host} ({reason}). "
            "Check the connection's host and port, and the network",
            host=self.host,
        )

    def _host_not_found(self) -> HostNotFound:
        return HostNotFound(
            f"the host name {self.host} does not resolve. Check the connection's host",
            host=self.host,
        )

    def _insecure(self, reason: object) -> InsecureConnection:
        return InsecureConnection(
            f"the TLS certificate of {self.host} is not trusted ({reason}). Check the "
            'connection\'s host, or name your CA bundle as "verify" in its extra',
            host=self.host,
        )

    def _answer_lost(self, reason: object) -> AnswerLost:
        return AnswerLost(f"no whole answer came from {self.host} ({reason})", host=self.host)


class _Tries:
    """Keeps count of one call's tries, and settles how the call ends."""

    def __init__(self, call: Call[Any]) -> None:
        self.call = call
        self.count = 0
        self.maybe_done = False
        self._started = time.monotonic()

    def begin(self) -> None:
        self.count += 1

    def is_done(self, error: JobsApiError) -> bool:
        """Whether the error says that an earlier try did what the call asks for."""
        if isinstance(error, DoesNotExist) and self.call.done_if_gone and self.maybe_done:
            return True
        if not isinstance(error, ConnectionFailed):
            self.maybe_done = True
        return False

    def gave_up(self, error: JobsApiError, idle_seconds: float) -> None:
        elapsed = max(time.monotonic() - self._started, idle_seconds)
        error.gave_up(self.call.path, self.count, elapsed)


class JobsClient(_Client):
    """The blocking face, on one pooled ``requests`` session. Use it as a context manager."""

    _session: requests.Session | None = None

    def send(self, call: Call[T], *, retries: RetryPolicy | None = None) -> T:
        """Send a call, again where that is safe and may help, and return what its answer says.

        :param call: what to ask, from :mod:`.calls`.
        :param retries: a policy for this call only.
        :raises JobsApiError: what went wrong in the end; see :mod:`.errors`.
        """
        tries = _Tries(call)

        def once() -> T:
            tries.begin()
            try:
                return self._send_once(call)
            except JobsApiError as error:
                if tries.is_done(error):
                    return cast("T", None)
                raise

        retrying = tenacity.Retrying(sleep=self._sleep, **self._retrying(call, retries))
        try:
            return retrying(once)
        except JobsApiError as error:
            tries.gave_up(error, retrying.statistics.get("idle_for", 0.0))
            raise

    def iterate(self, call: Call[Page[T]]) -> Iterator[T]:
        """Yield the items of a list, fetching a page only when the one before is used up."""
        following: Call[Page[T]] | None = call
        while following is not None:
            page = self.send(following)
            yield from page.items
            following = page.next

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

    _default_sleep: ClassVar[Any] = staticmethod(time.sleep)

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
                timeout=(_CONNECT_SECONDS, self._timeout_seconds),
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
            return self._insecure(_reason(cause))
        if isinstance(cause, inner.NameResolutionError):
            return self._host_not_found()
        if isinstance(error, requests.ConnectTimeout):
            return self._connection_failed(f"not established within {_CONNECT_SECONDS:.0f} s")
        if isinstance(cause, (inner.NewConnectionError, inner.ProxyError)):
            return self._connection_failed(_reason(cause))
        if isinstance(error, requests.Timeout):
            return self._answer_lost(f"nothing came for {self._timeout_seconds:.0f} s")
        return self._answer_lost(_reason(cause))


class AsyncJobsClient(_Client):
    """The asyncio face, on one pooled ``aiohttp`` session. Use it as an async context manager."""

    _session: aiohttp.ClientSession | None = None

    async def send(self, call: Call[T], *, retries: RetryPolicy | None = None) -> T:
        """Send a call, again where that is safe and may help, and return what its answer says.

        :param call: what to ask, from :mod:`.calls`.
        :param retries: a policy for this call only.
        :raises JobsApiError: what went wrong in the end; see :mod:`.errors`.
        """
        tries = _Tries(call)

        async def once() -> T:
            tries.begin()
            try:
                return await self._send_once(call)
            except JobsApiError as error:
                if tries.is_done(error):
                    return cast("T", None)
                raise

        retrying = tenacity.AsyncRetrying(sleep=self._sleep, **self._retrying(call, retries))
        try:
            return await retrying(once)
        except JobsApiError as error:
            tries.gave_up(error, retrying.statistics.get("idle_for", 0.0))
            raise

    async def iterate(self, call: Call[Page[T]]) -> AsyncIterator[T]:
        """Yield the items of a list, fetching a page only when the one before is used up."""
        following: Call[Page[T]] | None = call
        while following is not None:
            page = await self.send(following)
            for item in page.items:
                yield item
            following = page.next

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

    _default_sleep: ClassVar[Any] = staticmethod(asyncio.sleep)

    async def _send_once(self, call: Call[T]) -> T:
        import aiohttp

        request = self._request(call, self._credentials.authorization())
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # Not trust_env: it would also set an Authorization header of its own from .netrc.
                proxy=_environment_proxy(self.base_url),
                timeout=aiohttp.ClientTimeout(
                    total=None,
                    sock_connect=_CONNECT_SECONDS,
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
                ssl=self._ssl(),
                allow_redirects=False,
            ) as response:
                body = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._fault(error) from None
        return self._read(call, response.status, response.headers, body)

    def _ssl(self) -> Any:
        verify = self._verify
        if verify is True:
            # As requests does, so that a company's CA bundle serves both faces.
            bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
            verify = bundle or True
        if isinstance(verify, bool):
            return verify
        if self._ssl_context is None:
            self._ssl_context = ssl.create_default_context(cafile=verify)
        return self._ssl_context

    _ssl_context: Any = None

    def _fault(self, error: Exception) -> NoAnswer:
        """Name a fault of aiohttp."""
        import aiohttp

        if isinstance(error, (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch)):
            return self._insecure(_reason(error))
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return self._host_not_found()
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return self._connection_failed(f"not established within {_CONNECT_SECONDS:.0f} s")
        if isinstance(error, aiohttp.ClientConnectorError):
            return self._connection_failed(_reason(error))
        if isinstance(error, TimeoutError):
            return self._answer_lost(f"nothing came for {self._timeout_seconds:.0f} s")
        return self._answer_lost(_reason(error))


def _keep_header(request: Any) -> Any:
    """Tell requests that the Authorization header is set, else a .netrc entry would replace it."""
    return request


def _environment_proxy(url: str) -> str | None:
    """The proxy that the environment names for an address, as requests finds it by itself."""
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)


def _query_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _reason(error: object) -> str:
    """The bare reason inside the layers that HTTP libraries wrap it in; never a request."""
    error = getattr(error, "os_error", None) or error
    number = getattr(error, "errno", None)
    if (
        isinstance(number, int)
        and number in errno.errorcode
        and not isinstance(error, ssl.SSLError)
    ):
        return os.strerror(number)
    text = re.sub(r"^.*?\[(Errno|SSL)[^]]*\] *", "", str(error).rpartition("> ")[2])
    text = re.sub(r" *\(_ssl\.c:\d+\)", "", text)
    return text.strip("()'\" ") or type(error).__name__

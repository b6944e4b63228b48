"""What both faces of the client share: everything but sending, receiving and sleeping.

The address, the headers, what an answer means, how often a call was tried, and what the faults of
the HTTP libraries are called here.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlsplit

from airflow_jobs_provider import __version__
from airflow_jobs_provider.api.auth import Credentials
from airflow_jobs_provider.api.calls import Call
from airflow_jobs_provider.api.errors import (
    AnswerLost,
    AuthenticationFailed,
    ConnectionFailed,
    CredentialsError,
    DoesNotExist,
    HostNotFound,
    InsecureConnection,
    JobsApiError,
    answer_error,
    is_success,
    read_json_object,
)
from airflow_jobs_provider.api.retries import RetryPolicy

__all__ = ["CONNECT_SECONDS", "BaseClient", "Request", "Tries", "environment_proxy", "reason_of"]

T = TypeVar("T")
log = logging.getLogger(__name__)

_THIS_MACHINE = frozenset({"127.0.0.1", "localhost", "::1"})
CONNECT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Request:
    """A call as HTTP, ready to be sent."""

    verb: str
    url: str
    # Not in the repr: a traceback with local variables would show the credential.
    headers: dict[str, str] = field(repr=False)
    query: dict[str, str] | None
    body: Any | None


class BaseClient:
    """What both faces share: everything but sending, receiving and sleeping."""

    _default_sleep: ClassVar[Any]

    def __init__(
        self,
        base_url: str,
        credentials: Credentials,
        *,
        retries: RetryPolicy | None = None,
        timeout_seconds: float = 60.0,
        api_version: str | None = None,
        allow_http: bool = False,
        verify: bool | str = True,
        user_agent_suffix: str = "",
        sleep: Callable[[float], Any] | None = None,
        renew_credentials: Callable[[], Any] | None = None,
    ) -> None:
        """Prepare a client; nothing is sent yet.

        :param base_url: the workspace's address, such as ``https://adb-1.2.azuredatabricks.net``;
            a path is kept.
        :param credentials: what to authenticate with.
        :param retries: when to try again; the policy of :mod:`.retries` by default.
        :param timeout_seconds: longest wait for the next bytes of an answer; default 60.
        :param api_version: version of the Jobs API for all calls, ``2.0``, ``2.1`` or ``2.2``; by
            default each call is sent to the version that it needs.
        :param allow_http: send credentials over plain http to another machine; default False.
        :param verify: check TLS certificates (default), or the path of a CA bundle.
        :param user_agent_suffix: added to the User-Agent.
        :param sleep: what waits between tries, in seconds; the face's own by default. Give a test
            one that does not wait.
        :param renew_credentials: gives fresh credentials after a 401 or 403, before the next try;
            awaited by the asyncio face.
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
        self.api_version = api_version
        self._credentials = credentials
        self._retries = retries or RetryPolicy()
        self._timeout_seconds = timeout_seconds
        self._verify = verify
        self._sleep = sleep or self._default_sleep
        self._renew_credentials = renew_credentials
        suffix = f" {user_agent_suffix}" if user_agent_suffix else ""
        self._user_agent = f"airflow-jobs-provider/{__version__}{suffix}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r}, {self._credentials!r})"

    def version_of(self, call: Call[Any]) -> str:
        """Return the version of the API that this client sends a call to."""
        return call.api_version(self.api_version)

    def _request(self, call: Call[Any], authorization: str) -> Request:
        is_get = call.verb == "GET"
        return Request(
            verb=call.verb,
            url=f"{self.base_url}/api/{self.version_of(call)}/{call.service}/{call.path}",
            headers={"Authorization": authorization, "User-Agent": self._user_agent},
            query={k: _query_text(v) for k, v in call.parameters.items()} if is_get else None,
            body=None if is_get else dict(call.parameters),
        )

    def _read(self, call: Call[T], status: int, headers: Mapping[str, str], body: bytes) -> T:
        # A page of a thousand runs is a megabyte; a good answer is parsed once.
        if is_success(status) and (answer := read_json_object(body)) is not None:
            return call.read(answer)
        raise answer_error(status, headers, body)

    def _retrying(self, call: Call[Any], retries: RetryPolicy | None) -> dict[str, Any]:
        return (retries or self._retries).tenacity(
            call.name, repeatable=call.repeatable, refusal_tells=call.refusal_tells
        )

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


class Tries:
    """Keeps count of one call's tries, and settles how the call ends."""

    def __init__(self, call: Call[Any]) -> None:
        self.call = call
        self.count = 0
        self.outcome_unknown = False
        self.refused = False
        self._started = time.monotonic()

    def begin(self) -> None:
        """Count a try."""
        self.count += 1

    def is_done(self, error: JobsApiError) -> bool:
        """Whether the error says that an earlier try did what the call asks for."""
        self.refused = isinstance(error, AuthenticationFailed)
        self.outcome_unknown = self.outcome_unknown or error.outcome_unknown
        is_gone = isinstance(error, DoesNotExist)
        return is_gone and self.call.done_if_gone and self.outcome_unknown

    def worked(self, idle_seconds: float) -> None:
        """Say that trouble is over, if there was any."""
        if self.count > 1:
            log.info(
                "%s works again, after %d tries in %.0f s.",
                self.call.name,
                self.count,
                max(time.monotonic() - self._started, idle_seconds),
            )

    def gave_up(self, error: JobsApiError, idle_seconds: float) -> None:
        """Put what was tried into the last error."""
        elapsed = max(time.monotonic() - self._started, idle_seconds)
        error.gave_up(self.call.name, self.count, elapsed, outcome_unknown=self.outcome_unknown)


def environment_proxy(url: str) -> str | None:
    """The proxy that the environment names for an address, as requests finds it by itself."""
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)


def _query_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def reason_of(error: object) -> str:
    """The bare reason inside the layers that HTTP libraries wrap it in; never a request."""
    error = getattr(error, "os_error", None) or error
    # urllib3 puts a sentence of its own before the cause.
    parts: Sequence[object] = getattr(error, "args", ())
    if len(parts) > 1 and isinstance(parts[-1], Exception):
        error = parts[-1]
    number = getattr(error, "errno", None)
    if (
        isinstance(number, int)
        and number in errno.errorcode
        and not isinstance(error, ssl.SSLError)
    ):
        return os.strerror(number)
    text = re.sub(r"^.*?\[(Errno|SSL)[^]]*\] *", "", str(error).rpartition("> ")[2])
    text = re.sub(r" *\(_ssl\.c:\d+\)|: <\w+Error: .*", "", text, flags=re.DOTALL)
    return text.strip("()'\" ") or type(error).__name__

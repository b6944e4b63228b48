"""What both faces of the client share: everything but sending, receiving and sleeping.

The address, the headers, what an answer means, how often a call was tried, and what the faults of
the HTTP libraries are called here.
"""

from __future__ import annotations

import errno
import http.client
import logging
import os
import re
import ssl
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlsplit

from airflow_jobs_provider import __version__
from airflow_jobs_provider.api.auth import Credentials
from airflow_jobs_provider.api.encoding import (
    ACCEPT_ENCODING,
    BodyDecodeError,
    BodyTooLargeError,
    decode_body,
    encode_json,
    encode_query,
    iter_decoded,
)
from airflow_jobs_provider.api.endpoints import Call
from airflow_jobs_provider.api.error_mapping import error_from_response, invalid_response_error
from airflow_jobs_provider.api.errors import (
    AuthenticationError,
    CertificateError,
    ConnectError,
    CredentialsError,
    HostNotFoundError,
    JobsAPIError,
    NotFoundError,
    ProxyAuthenticationError,
    ProxyError,
    ResponseLostError,
    UnexpectedResponseError,
    is_success,
)
from airflow_jobs_provider.api.proxies import (
    WHERE_PROXIES_ARE_SET,
    Proxies,
    Route,
    is_loopback,
    record_reached,
    route_name,
    was_reached,
)
from airflow_jobs_provider.api.responses import (
    InvalidResponseError,
    NotJSONError,
    parse_json_object,
)
from airflow_jobs_provider.api.retry import RetryPolicy

__all__ = [
    "CONNECT_SECONDS",
    "LIBRARY_ERRORS",
    "AttemptTracker",
    "BaseClient",
    "Request",
    "error_reason",
    "strip_traceback",
]

T = TypeVar("T")
log = logging.getLogger(__name__)

_AZURE_DOMAINS = (".azuredatabricks.net", ".databricks.azure.cn", ".databricks.azure.us")
CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 180.0
MAX_ANSWER_BYTES = 64 * 1024 * 1024
# More of a page that is not the API's tells nobody anything.
MAX_ERROR_BYTES = 1024 * 1024
# Of an answer that is read as it arrives, for the error where it does not fit.
_BEGIN_BYTES = 4_096


@dataclass(frozen=True, slots=True)
class Request:
    """A call as HTTP, but for its headers: a traceback with local variables shows no credential.

    :ivar verb: HTTP verb.
    :ivar url: address, with the query.
    :ivar body: the body as sent; None for none.
    """

    verb: str
    url: str
    body: bytes | None


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
        proxies: Proxies | None = None,
        response_timeout_seconds: float = ANSWER_SECONDS,
        max_response_bytes: int = MAX_ANSWER_BYTES,
        user_agent_suffix: str = "",
        sleep: Callable[[float], Any] | None = None,
        renew_credentials: Callable[[], Any] | None = None,
    ) -> None:
        """Prepare a client; nothing is sent yet.

        :param base_url: the workspace's address, such as ``https://adb-1.2.azuredatabricks.net``;
            a path is kept.
        :param credentials: what to authenticate with.
        :param retries: when to try again; the policy of :mod:`.retry` by default.
        :param timeout_seconds: longest wait for the next bytes of an answer; default 60.
        :param api_version: version of the Jobs API for all calls, ``2.0``, ``2.1`` or ``2.2``; by
            default each call is sent to the version that it needs.
        :param allow_http: send credentials over plain http to another machine; default False.
        :param verify: check TLS certificates (default), or the path of a CA bundle; see
            :mod:`.proxies`.
        :param proxies: proxies that win over the environment's; see :mod:`.proxies`.
        :param response_timeout_seconds: longest time from a request to the end of its
            response; default 180.
        :param max_response_bytes: size that a decoded answer may have; default 64 MiB. A call may
            allow more.
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
        if parts.scheme == "http" and not is_loopback(parts.hostname) and not allow_http:
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
        self._proxies = proxies or Proxies()
        self._answer_seconds = response_timeout_seconds
        self._max_answer_bytes = max_response_bytes
        #: How the host has answered this client, in the words of :func:`.proxies.route_name`.
        self.reached_by: str | None = None
        #: What waits between two tries, and in a workflow.
        self.sleep = sleep or self._default_sleep
        self._renew_credentials = renew_credentials
        suffix = f" {user_agent_suffix}" if user_agent_suffix else ""
        self._user_agent = f"airflow-jobs-provider/{__version__}{suffix}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r}, {self._credentials!r})"

    @property
    def is_azure(self) -> bool:
        """Whether the workspace is known to be on Azure, by its host name."""
        return (urlsplit(self.base_url).hostname or "").endswith(_AZURE_DOMAINS)

    def validate(self, call_name: str, payload: Mapping[str, Any]) -> None:
        """Check a payload against the rules for this client's API version and workspace.

        :param call_name: the endpoint, such as ``runs/submit``.
        :param payload: the body of a POST, or the query of a GET.
        :raises InvalidRequestError: the payload breaks a rule; the error lists all problems.
        """
        # Imported here, since not every client validates.
        from airflow_jobs_provider.api.schema.validation import validate

        validate(call_name, payload, api_version=self.api_version, is_azure=self.is_azure)

    def version_of(self, call: Call[Any]) -> str:
        """Return the version of the API that this client sends a call to.

        :raises InvalidRequestError: the client's ``api_version`` does not know what the call asks
            for.
        """
        return call.api_version(self.api_version)

    def _request(self, call: Call[Any]) -> Request:
        parts = urlsplit(self.base_url)
        # Without user and password, which an HTTP library would send in place of the credentials.
        url = (
            f"{parts.scheme}://{self.host}{parts.path}"
            f"/api/{self.version_of(call)}/{call.service}/{call.path}"
        )
        if call.verb == "GET":
            query = encode_query(call.name, call.parameters)
            return Request(call.verb, f"{url}?{query}" if query else url, None)
        return Request(call.verb, url, encode_json(call.name, call.parameters))

    def _headers(self, request: Request) -> dict[str, str]:
        headers = {
            "Authorization": self._credentials.authorization(),
            "User-Agent": self._user_agent,
            "Accept": "*/*",
            "Accept-Encoding": ACCEPT_ENCODING,
        }
        if request.body is not None:
            headers["Content-Type"] = "application/json"
        return headers

    def _max_bytes(self, call: Call[Any], status: int) -> int:
        """Return the size that an answer may have."""
        if not is_success(status):
            return MAX_ERROR_BYTES
        return max(self._max_answer_bytes, call.max_response_bytes or 0)

    def _read(
        self, call: Call[T], route: Route, status: int, headers: Mapping[str, str], raw: bytes
    ) -> tuple[T, int]:
        """Return what an answer says, and its decoded size.

        :param raw: the body as received; as far as it was read, where it is too large.
        """
        if status == 407 and route.proxy:
            raise self._proxy_failed(route, "Proxy Authentication Required", status)
        self._answered(route)
        if call.read_stream is not None and is_success(status):
            return self._read_stream(call, status, headers, (raw,)), len(raw)
        limit = self._max_bytes(call, status)
        body = raw[:limit]
        fault: JobsAPIError | None = None
        try:
            body = decode_body(raw, headers.get("content-encoding") or "", limit)
        except BodyTooLargeError:
            fault = _too_large(status, limit)
        except BodyDecodeError as error:
            fault = self._answer_lost(error)
        if is_success(status) and fault is not None:
            raise fault
        # A page of a thousand runs is a megabyte; a good answer is parsed once.
        if is_success(status):
            try:
                if (answer := parse_json_object(body)) is not None:
                    return call.read(answer), len(body)
            except InvalidResponseError as error:
                raise invalid_response_error(status, headers, body, error) from None
        raise error_from_response(status, headers, body)

    def _read_stream(
        self, call: Call[T], status: int, headers: Mapping[str, str], raw: Iterable[bytes]
    ) -> T:
        """Return what a good answer says, read as it arrives.

        :param raw: the parts of the body as received.
        """
        assert call.read_stream is not None
        limit = self._max_bytes(call, status)
        begin = bytearray()  # for an error

        def parts() -> Iterator[bytes]:
            for part in iter_decoded(raw, headers.get("content-encoding") or "", limit):
                begin.extend(part[: _BEGIN_BYTES - len(begin)])
                yield part

        fault: JobsAPIError
        try:
            return call.read_stream(parts())
        except BodyTooLargeError:
            fault = _too_large(status, limit)
        except BodyDecodeError as error:
            fault = self._answer_lost(error)
        except NotJSONError:
            fault = error_from_response(status, headers, bytes(begin))
        except InvalidResponseError as error:
            fault = invalid_response_error(status, headers, bytes(begin), error)
        raise fault

    def _retrying(self, call: Call[Any], retries: RetryPolicy | None) -> dict[str, Any]:
        return (retries or self._retries).tenacity(
            call.name, idempotent=call.idempotent, forbidden_is_final=call.forbidden_is_final
        )

    def _answered(self, route: Route) -> None:
        self.reached_by = route_name(self.host, route.address)
        record_reached(self.reached_by)

    def _is_first_contact(self, proxy: str = "") -> bool:
        return not was_reached(route_name(self.host, proxy))

    def _connection_failed(self, reason: object) -> ConnectError:
        return ConnectError(
            f"no connection to {self.host} ({reason}). "
            "Check the connection's host and port, and the network",
            host=self.host,
            first_contact=self._is_first_contact(),
        )

    def _host_not_found(self) -> HostNotFoundError:
        return HostNotFoundError(
            f"the host name {self.host} does not resolve. Check the connection's host",
            host=self.host,
            first_contact=self._is_first_contact(),
        )

    def _proxy_failed(self, route: Route, reason: object, status: int | None = None) -> ProxyError:
        if status == 407:
            return ProxyAuthenticationError(
                f"the proxy {route.address} does not accept the user and password of its URL, or "
                f"wants some (407 {reason}). {WHERE_PROXIES_ARE_SET}",
                host=self.host,
                proxy=route.address,
                status=status,
                first_contact=self._is_first_contact(route.address),
            )
        what = "cannot be used" if status is None else f"does not connect to {self.host}"
        code = "" if status is None else f"{status} "
        return ProxyError(
            f"the proxy {route.address} {what} ({code}{reason}). {WHERE_PROXIES_ARE_SET}",
            host=self.host,
            proxy=route.address,
            status=status,
            first_contact=self._is_first_contact(route.address),
        )

    def _insecure(self, reason: object) -> CertificateError:
        return CertificateError(
            f"the TLS certificate of {self.host} is not trusted ({reason}). Check the "
            'connection\'s host, or name your CA bundle as "verify" in its extra',
            host=self.host,
        )

    def _answer_lost(self, reason: object) -> ResponseLostError:
        return ResponseLostError(
            f"no whole answer came from {self.host} ({reason})", host=self.host
        )

    def _answer_too_slow(self) -> ResponseLostError:
        return self._answer_lost(f"it was not whole within {self._answer_seconds:g} s")


def _too_large(status: int, limit: int) -> UnexpectedResponseError:
    return UnexpectedResponseError(status=status, excerpt=f"more than {limit / 1024 / 1024:g} MiB")


class AttemptTracker:
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

    def is_done(self, error: JobsAPIError) -> bool:
        """Whether the error says that an earlier try did what the call asks for."""
        self.refused = isinstance(error, AuthenticationError)
        self.outcome_unknown = self.outcome_unknown or error.outcome_unknown
        is_gone = isinstance(error, NotFoundError)
        return is_gone and self.call.missing_ok and self.outcome_unknown

    def worked(self, idle_seconds: float) -> None:
        """Say that trouble is over, if there was any."""
        if self.count > 1:
            log.info(
                "%s succeeded after %d attempts in %.0f s.",
                self.call.name,
                self.count,
                max(time.monotonic() - self._started, idle_seconds),
            )

    def gave_up(self, error: JobsAPIError, idle_seconds: float) -> None:
        """Put what was tried into the last error."""
        elapsed = max(time.monotonic() - self._started, idle_seconds)
        error.gave_up(self.call.name, self.count, elapsed, outcome_unknown=self.outcome_unknown)


# What HTTP libraries raise beside their own errors, such as for an answer that they cannot read.
LIBRARY_ERRORS: tuple[type[Exception], ...] = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RecursionError,
    http.client.HTTPException,
    zlib.error,
)


def strip_traceback(error: BaseException) -> BaseException:
    """Return an exception without the frames that it came through, to be raised again.

    Those of an HTTP library hold the headers, and so the credential.
    """
    error.__context__ = None
    return error.with_traceback(None)


def error_reason(error: object) -> str:
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

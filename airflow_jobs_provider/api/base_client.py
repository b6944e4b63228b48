"""What the blocking and the asyncio client share: everything but sending and receiving.

It builds requests, parses responses, counts attempts, and names the errors of the HTTP libraries.
"""

from __future__ import annotations

import errno
import http.client
import logging
import os
import re
import ssl
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar
from urllib.parse import urlsplit

from airflow_jobs_provider._version import __version__
from airflow_jobs_provider.api.attempts import AttemptTracker, ClientObserver
from airflow_jobs_provider.api.auth import Credentials
from airflow_jobs_provider.api.calls import Call
from airflow_jobs_provider.api.encoding import (
    ACCEPT_ENCODING,
    BodyDecodeError,
    BodyTooLargeError,
    decode_body,
    encode_json,
    encode_query,
    iter_decoded,
)
from airflow_jobs_provider.api.error_mapping import error_from_response, invalid_response_error
from airflow_jobs_provider.api.errors import (
    AuthenticationError,
    CertificateError,
    ConnectError,
    CredentialsError,
    HostNotFoundError,
    JobsAPIError,
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
    "MAX_ERROR_BYTES",
    "MAX_RESPONSE_BYTES",
    "RESPONSE_TIMEOUT_SECONDS",
    "BaseClient",
    "Request",
    "error_reason",
    "strip_traceback",
]

log = logging.getLogger(__name__)

T = TypeVar("T")

_AZURE_DOMAINS = (".azuredatabricks.net", ".databricks.azure.cn", ".databricks.azure.us")
CONNECT_SECONDS = 10.0
RESPONSE_TIMEOUT_SECONDS = 180.0
MAX_RESPONSE_BYTES = 64 * 1024 * 1024
# An error body beyond this size says nothing more.
MAX_ERROR_BYTES = 1024 * 1024
_NO_RETRIES = RetryPolicy(max_attempts=1)
# What is kept of a streamed response, for the error message if it is invalid.
_EXCERPT_BYTES = 4_096


class Request(NamedTuple):
    """A call as an HTTP request without headers.

    A traceback that shows local variables therefore shows no credential.

    :ivar verb: HTTP verb.
    :ivar url: URL with the query.
    :ivar body: the body as sent; None for none.
    """

    verb: str
    url: str
    body: bytes | None


class BaseClient:
    """Base of :class:`~.client.JobsClient` and :class:`~.client.AsyncJobsClient`."""

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
        response_timeout_seconds: float = RESPONSE_TIMEOUT_SECONDS,
        max_response_bytes: int = MAX_RESPONSE_BYTES,
        user_agent_suffix: str = "",
        sleep: Callable[[float], Any] | None = None,
        renew_credentials: Callable[[], Any] | None = None,
        observer: ClientObserver | None = None,
    ) -> None:
        """Make a client; nothing is sent yet.

        :param base_url: the workspace's URL, such as ``https://adb-1.2.azuredatabricks.net``; a
            path is kept.
        :param credentials: the credentials; see :mod:`.auth`.
        :param retries: the retry policy; default that of :mod:`.retry`.
        :param timeout_seconds: longest wait in seconds for the next bytes of a response; default
            60.
        :param api_version: version of the Jobs API for all calls, ``2.0``, ``2.1`` or ``2.2``; by
            default each call is sent to the version that it needs.
        :param allow_http: send credentials over plain http to another machine; default False.
        :param verify: whether to check TLS certificates, or the path of a CA bundle; default True.
            See :mod:`.proxies`.
        :param proxies: proxies that take precedence over the environment's; see :mod:`.proxies`.
        :param response_timeout_seconds: longest time in seconds from a request to the end of its
            response; default 180.
        :param max_response_bytes: largest decoded response; default 64 MiB. A call may allow more.
        :param user_agent_suffix: appended to the User-Agent; default empty.
        :param sleep: called with the seconds to wait between two attempts, and awaited by the
            asyncio client; default :func:`~.retry.blocking_sleep` or :func:`~.retry.async_sleep`.
        :param renew_credentials: returns new credentials after a 401 or 403, before the next
            attempt, or the reason, as text, why the present ones stay; awaited by the asyncio
            client. Default None: they stay.
        :param observer: is told of the requests, for metrics; default None: nobody is.
        :raises ValueError: ``base_url`` is not an http or https URL.
        :raises CredentialsError: it is plain http to another machine, without ``allow_http``.
        """
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"base_url is not an http or https URL: {base_url!r}")
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
        self._response_timeout_seconds = response_timeout_seconds
        self._max_response_bytes = max_response_bytes
        #: The route by which the host has answered, from :func:`.proxies.route_name`; None before.
        self.reached_by: str | None = None
        #: Waits between two attempts, and in a workflow.
        self.sleep = sleep or self._default_sleep
        self._renew_credentials = renew_credentials
        # Why refused credentials were not replaced; empty if they were, or none were refused.
        self._stay_because = ""
        self._observer = observer
        suffix = f" {user_agent_suffix}" if user_agent_suffix else ""
        self._user_agent = f"airflow-jobs-provider/{__version__}{suffix}"

    @property
    def authentication(self) -> str:
        """The authentication method and the principal, without secrets."""
        return self._credentials.description

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

        :param call: the call.
        :raises InvalidRequestError: the client's ``api_version`` lacks the endpoint or a field.
        """
        return call.api_version(self.api_version)

    def _request(self, call: Call[Any]) -> Request:
        parts = urlsplit(self.base_url)
        # Without user and password: an HTTP library would send them instead of the credentials.
        url = (
            f"{parts.scheme}://{self.host}{parts.path}/api/{self.version_of(call)}/{call.full_path}"
        )
        if call.verb == "GET":
            query = encode_query(call.name, call.parameters)
            return Request(call.verb, f"{url}?{query}" if query else url, None)
        return Request(call.verb, url, encode_json(call.name, call.parameters))

    def _headers(self, request: Request, authentication: Mapping[str, str]) -> dict[str, str]:
        headers = {
            **authentication,
            "User-Agent": self._user_agent,
            "Accept": "*/*",
            "Accept-Encoding": ACCEPT_ENCODING,
        }
        if request.body is not None:
            headers["Content-Type"] = "application/json"
        return headers

    def _max_bytes(self, call: Call[Any], status: int) -> int:
        """Return the largest size of a response."""
        if not is_success(status):
            return MAX_ERROR_BYTES
        return max(self._max_response_bytes, call.max_response_bytes or 0)

    def _take_renewed(self, renewed: Credentials | str) -> None:
        """Take new credentials. Given a reason instead, keep the present ones and log it once."""
        if not isinstance(renewed, str):
            self._credentials, self._stay_because = renewed, ""
        elif renewed != self._stay_because:
            self._stay_because = renewed
            log.warning("The refused credentials stay, since there are no others: %s", renewed)

    def _parse_response(
        self, call: Call[T], route: Route, status: int, headers: Mapping[str, str], raw: bytes
    ) -> tuple[T, int]:
        """Return the call's result from its response, and the decoded size of the body.

        :param raw: the body as received; truncated if it is too large.
        """
        if status == 407 and route.proxy:
            raise self._proxy_failed(route, "Proxy Authentication Required", status)
        self._record_response(route)
        if call.parse_stream is not None and is_success(status):
            return self._parse_stream(call, status, headers, (raw,)), len(raw)
        limit = self._max_bytes(call, status)
        body = raw[:limit]
        failure: JobsAPIError | None = None
        try:
            body = decode_body(raw, headers.get("content-encoding") or "", limit)
        except BodyTooLargeError:
            failure = _too_large(status, limit)
        except BodyDecodeError as error:
            failure = self._response_lost(error)
        if is_success(status) and failure is not None:
            raise failure
        # A page of a thousand runs is a megabyte, so a response is parsed once.
        if is_success(status):
            try:
                if (response_values := parse_json_object(body, call.item_hook)) is not None:
                    return call.parse(response_values), len(body)
            except InvalidResponseError as error:
                raise invalid_response_error(status, headers, body, error) from None
        refusal = error_from_response(status, headers, body)
        if self._stay_because and isinstance(refusal, AuthenticationError):
            refusal.message += f". They were not replaced: {self._stay_because}"
        raise refusal

    def _parse_stream(
        self, call: Call[T], status: int, headers: Mapping[str, str], raw: Iterable[bytes]
    ) -> T:
        """Return the call's result from a successful response that is parsed while it arrives.

        :param raw: the chunks of the body as received.
        """
        assert call.parse_stream is not None
        limit = self._max_bytes(call, status)
        excerpt = bytearray()

        def parts() -> Iterator[bytes]:
            for part in iter_decoded(raw, headers.get("content-encoding") or "", limit):
                excerpt.extend(part[: _EXCERPT_BYTES - len(excerpt)])
                yield part

        failure: JobsAPIError
        try:
            return call.parse_stream(parts())
        except BodyTooLargeError:
            failure = _too_large(status, limit)
        except BodyDecodeError as error:
            failure = self._response_lost(error)
        except NotJSONError:
            failure = error_from_response(status, headers, bytes(excerpt))
        except InvalidResponseError as error:
            failure = invalid_response_error(status, headers, bytes(excerpt), error)
        raise failure

    def _attempts(
        self, call: Call[Any], retries: RetryPolicy | None
    ) -> tuple[AttemptTracker, dict[str, Any]]:
        """Return what counts the attempts of a call, and the arguments for tenacity."""
        policy = _NO_RETRIES if call.is_optional else retries or self._retries
        attempts = AttemptTracker(call, self._observer, policy.clock)
        return attempts, policy.tenacity(
            call.name,
            idempotent=call.idempotent,
            forbidden_is_final=call.forbidden_is_final,
            turn_seconds=lambda: attempts.turn_seconds,
        )

    def _credentials_error(self, error: Exception) -> CredentialsError:
        # The message of an unknown exception may quote a secret.
        return CredentialsError(f"the credentials cannot be read ({type(error).__name__})")

    def _record_response(self, route: Route) -> None:
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

    def _certificate_error(self, reason: object) -> CertificateError:
        return CertificateError(
            f"the TLS certificate of {self.host} is not trusted ({reason}). Check the "
            'connection\'s host, or name your CA bundle as "verify" in its extra',
            host=self.host,
        )

    def _response_lost(self, reason: object) -> ResponseLostError:
        return ResponseLostError(
            f"no complete response came from {self.host} ({reason})", host=self.host
        )

    def _response_too_slow(self) -> ResponseLostError:
        return self._response_lost(
            f"it was not complete within {self._response_timeout_seconds:g} s"
        )


def _too_large(status: int, limit: int) -> UnexpectedResponseError:
    return UnexpectedResponseError(status=status, excerpt=f"more than {limit / 1024 / 1024:g} MiB")


# What HTTP libraries raise beside their own errors, such as for a response that they cannot parse.
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
    """Return an exception without traceback and context, to be raised again.

    The frames of an HTTP library hold the headers, and so the credential.

    :param error: the exception; changed in place.
    """
    error.__context__ = None
    return error.with_traceback(None)


def error_reason(error: object) -> str:
    """Return the reason of a failed request without what HTTP libraries wrap it in.

    :param error: the exception of the library.
    """
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

"""Exceptions of the Jobs API client.

::

    JobsAPIError
    ├── CredentialsError            no usable credentials, or none that may be sent there
    │   └── TokenRefusedError       an identity service refuses a token (status, error_code)
    ├── InvalidSettingsError        the settings of the client are unusable
    ├── InvalidRequestError         not sent: the reference forbids it (problems)
    ├── DuplicateNameError          several jobs or pipelines have the name (ids)
    ├── APIConnectionError          no response (host)
    │   ├── ConnectError            the request never reached the service
    │   │   ├── HostNotFoundError   the host's name does not resolve
    │   │   ├── CertificateError    the TLS certificate is not trusted
    │   │   ├── TokenUnavailableError     an identity service cannot issue a token now
    │   │   └── ProxyError          the proxy does not answer or does not connect (proxy)
    │   │       ├── InvalidProxyError         its address is unusable, or of an unsupported kind
    │   │       └── ProxyAuthenticationError  it does not accept user and password (407)
    │   └── ResponseLostError       the request may have reached the service
    └── APIStatusError              the service, or a gateway before it, responded
        │                           (status, error_code, message, request_id)
        ├── BadRequestError         400 and other 4xx
        │   ├── NotFoundError       the run or job does not exist (400 or 404)
        │   └── ConflictError       400 COULD_NOT_ACQUIRE_LOCK
        ├── AuthenticationError     401 or 403
        ├── RateLimitError          429 (retry_after)
        ├── ServerError             5xx
        └── UnexpectedResponseError  no response of the API: a redirect, HTML, or JSON that
                                    does not fit (is_page, does_not_fit)

The facts are attributes of the exception. A client adds ``call``, ``attempts`` and
``elapsed_seconds`` when it gives up. The message says what to do. No exception holds a credential.
 :mod:`.error_mapping` makes them from responses.

All of this package decides by two properties what to do after an error:

* ``is_final``: the same request can never succeed. True for ``InvalidRequestError``, and for a 400
  with one of ``FINAL_ERROR_CODES``, unless its message says that something does not exist.
* ``outcome_unknown``: the service may have acted on the request. True for ``ResponseLostError``,
  ``ServerError``, and ``UnexpectedResponseError`` with a 2xx status.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from airflow_jobs_provider.api.problems import Problem
from airflow_jobs_provider.api.text import printable

__all__ = [
    "DOES_NOT_EXIST_CODES",
    "FINAL_ERROR_CODES",
    "APIConnectionError",
    "APIStatusError",
    "AuthenticationError",
    "BadRequestError",
    "CertificateError",
    "ConflictError",
    "ConnectError",
    "CredentialsError",
    "DuplicateNameError",
    "HostNotFoundError",
    "InvalidProxyError",
    "InvalidRequestError",
    "InvalidSettingsError",
    "JobsAPIError",
    "NotFoundError",
    "ProxyAuthenticationError",
    "ProxyError",
    "RateLimitError",
    "ResponseLostError",
    "ServerError",
    "TokenRefusedError",
    "TokenUnavailableError",
    "UnexpectedResponseError",
    "is_success",
]

# Codes of a 400 that mean that the request itself is wrong. Any other code (quota, state, lock,
# permission, a feature that is off, an unknown code) may be temporary.
FINAL_ERROR_CODES = frozenset({"INVALID_PARAMETER_VALUE", "MALFORMED_REQUEST"})


# "... does not exist" of anything, such as a cluster.
# Compiled when they are used: each DAG file that uses an operator imports this module.
_MISSING = r"(?i)\b(do|does)(n't| not) exist\b|\bnot found\b"
_MISSING_RUN = r"(?i)\brun\b.*?(exist|found)\b"
_DELETED_RUN = r"(?i)\b(run|token)\b.*\bdeleted\b"
DOES_NOT_EXIST_CODES = frozenset({"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"})

# Characters of the service's message and request id that an error quotes.
_MESSAGE_LENGTH = 2_000
_REQUEST_ID_LENGTH = 100


def is_success(status: int) -> bool:
    """Return whether an HTTP status is 2xx.

    :param status: HTTP status.
    """
    return 200 <= status < 300


class JobsAPIError(Exception):
    """Base of all errors of a call.

    :ivar call: the endpoint, such as ``runs/submit``; empty before a client has sent the call.
    :ivar attempts: number of attempts before the client gave up.
    :ivar elapsed_seconds: time of all attempts and waits.
    :ivar outcome_unknown: whether the service may have acted on the call, because the response to
        one of the attempts was lost.
    """

    outcome_unknown = False

    @property
    def is_final(self) -> bool:
        """Whether the same request can never succeed."""
        return False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.call = ""
        self.attempts = 0
        self.elapsed_seconds = 0.0

    def __reduce__(self) -> tuple[Any, ...]:
        # The constructors of the subclasses have other parameters than ``args``.
        return _restore, (type(self), self.args, self.__dict__.copy())

    def record_attempts(
        self, call: str, attempts: int, elapsed_seconds: float, *, outcome_unknown: bool
    ) -> None:
        """Record the attempts; the client calls this before it raises the error.

        :param call: the endpoint.
        :param attempts: number of attempts.
        :param elapsed_seconds: time of all attempts and waits, without those for a rate limit.
        :param outcome_unknown: whether the service may have acted on one of them.
        """
        self.call = call
        self.attempts = attempts
        self.elapsed_seconds = elapsed_seconds
        self.outcome_unknown = outcome_unknown

    def __str__(self) -> str:
        text = f"{self.call}: {self.message}" if self.call else self.message
        if self.attempts > 1:
            text += f" ({self.attempts} attempts in {self.elapsed_seconds:.0f} s)"
        return text


def _restore(
    kind: type[JobsAPIError], args: tuple[Any, ...], attributes: dict[str, Any]
) -> JobsAPIError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


class CredentialsError(JobsAPIError):
    """There are no usable credentials, or they may not be sent to this host."""


class TokenRefusedError(CredentialsError):
    """An identity service refuses to issue a token, so nothing was sent to the workspace.

    :ivar status: HTTP status of the refusal; None if it is not one of HTTP.
    :ivar error_code: OAuth error code, such as ``invalid_client``; empty if none.
    """

    def __init__(self, message: str, *, status: int | None = None, error_code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.error_code = error_code


class InvalidSettingsError(JobsAPIError, ValueError):
    """The settings of the client are unusable, such as the workspace's URL or the proxies."""


class InvalidRequestError(JobsAPIError, ValueError):
    """The request was not sent, because it cannot succeed according to the reference.

    :ivar problems: all problems; each as text is a sentence with field, rule and what was found.
    """

    def __init__(self, call: str, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        sentences = [str(problem) for problem in self.problems]
        if len(sentences) == 1:
            message = sentences[0]
        else:
            message = "\n- ".join((f"{len(sentences)} problems", *sentences))
        super().__init__(message)
        self.call = call

    @property
    def is_final(self) -> bool:
        """Always true."""
        return True


class DuplicateNameError(JobsAPIError, ValueError):
    """Several jobs or pipelines have the name that was looked for.

    :ivar name: the name.
    :ivar ids: the ids of all that have it.
    """

    def __init__(self, kind: str, name: str, ids: Sequence[int] | Sequence[str]) -> None:
        super().__init__(
            f"{len(ids)} {kind}s have the name {name!r} ({kind}_id {', '.join(map(str, ids))}). "
            f"Rename or delete all but one, or give the {kind}_id"
        )
        self.name = name
        self.ids = list(ids)


class APIConnectionError(JobsAPIError):
    """No response came.

    :ivar host: host of the service, and port if any.
    """

    def __init__(self, message: str, *, host: str = "") -> None:
        super().__init__(message)
        self.host = host


class ConnectError(APIConnectionError):
    """The request never reached the service, so it had no effect.

    :ivar first_contact: whether no response has ever come from this host. A wrong host name or
        proxy is then more likely than an outage.
    """

    def __init__(self, message: str, *, host: str = "", first_contact: bool = False) -> None:
        super().__init__(message, host=host)
        self.first_contact = first_contact


class HostNotFoundError(ConnectError):
    """The host's name does not resolve."""


class CertificateError(ConnectError):
    """The service's TLS certificate is not trusted."""


class TokenUnavailableError(ConnectError):
    """An identity service cannot issue a token now, so nothing was sent to the workspace."""


class ProxyError(ConnectError):
    """The proxy does not respond, or does not connect to the service.

    :ivar proxy: URL of the proxy, without user and password.
    :ivar status: HTTP status of its refusal; None if there is none.
    """

    def __init__(
        self,
        message: str,
        *,
        host: str = "",
        proxy: str = "",
        status: int | None = None,
        first_contact: bool = False,
    ) -> None:
        super().__init__(message, host=host, first_contact=first_contact)
        self.proxy = proxy
        self.status = status


class InvalidProxyError(ProxyError):
    """The proxy's URL is invalid, or its scheme is not supported (SOCKS)."""


class ProxyAuthenticationError(ProxyError):
    """The proxy refuses the user and password of its URL, or requires them (407)."""


class ResponseLostError(APIConnectionError):
    """The request may have reached the service, but no complete response came in time."""

    outcome_unknown = True


class APIStatusError(JobsAPIError):
    """The service, or a gateway before it, responded with an error.

    :ivar status: HTTP status.
    :ivar error_code: error code of the API, such as ``INVALID_PARAMETER_VALUE``; empty if none.
    :ivar api_message: message of the API; empty if the response is not the API's.
    :ivar request_id: the service's id of the request, for a support case; empty if none.
    """

    advice = ""

    @property
    def http_status_code(self) -> int:
        """The HTTP status, under its name in the official provider's DatabricksApiError."""
        return self.status

    def __init__(
        self,
        *,
        status: int,
        error_code: str = "",
        api_message: str = "",
        request_id: str = "",
        excerpt: str = "",
    ) -> None:
        self.status = status
        self.error_code = error_code
        self.api_message = api_message
        self.request_id = request_id
        # The error code may be the status as a number.
        code = "" if error_code == str(status) else error_code
        said = printable(": ".join(filter(None, (code, api_message))), _MESSAGE_LENGTH) or excerpt
        parts = [f"the service answered {status}" + (f" {said}" if said else "")]
        if request_id:
            parts[0] += f" [request {printable(request_id, _REQUEST_ID_LENGTH)}]"
        if self.advice:
            parts.append(self.advice)
        super().__init__(". ".join(part.rstrip(".") for part in parts))


class BadRequestError(APIStatusError):
    """The service refused the request (4xx)."""

    @property
    def is_final(self) -> bool:
        """Whether the response means that the request itself is wrong."""
        return (
            self.status == 400
            and self.error_code in FINAL_ERROR_CODES
            and not self.names_something_missing
        )

    @property
    def names_something_missing(self) -> bool:
        """Whether the message says that something does not exist, which may change."""
        return re.search(_MISSING, self.api_message) is not None

    @property
    def may_mean_deleted_run(self) -> bool:
        """Whether a launch may be refused because the run of its idempotency token was deleted.

        The reference promises an error for that, and does not say which. Errors about a job, a
        cluster, permissions or the state of the service do not count.
        """
        if re.search(_DELETED_RUN, self.api_message):
            return True
        if self.names_something_missing:
            return re.search(_MISSING_RUN, self.api_message) is not None
        return self.is_final or self.error_code in DOES_NOT_EXIST_CODES


class NotFoundError(BadRequestError):
    """The run or job does not exist."""

    @property
    def is_final(self) -> bool:
        """Never true, since it may exist later."""
        return False

    advice = (
        "Check the id and the connection's workspace; runs vanish 60 days after they ended, "
        "and jobs when somebody deletes them"
    )


class ConflictError(BadRequestError):
    """The service holds a lock on the job; the request may succeed later."""


class AuthenticationError(APIStatusError):
    """The credentials are not accepted (401), or do not permit the request (403).

    :ivar refused_credentials: the fingerprint of the request's credentials, for
        :meth:`.auth.Credentials.invalidate`; empty if not known.
    """

    refused_credentials = ""
    advice = (
        "Check the credentials of the Airflow connection, "
        "their expiry and their permissions in the workspace"
    )


class RateLimitError(APIStatusError):
    """Too many requests (429).

    :ivar retry_after: seconds of the Retry-After header, 1 or more; None if there is none.
    """

    def __init__(self, *, retry_after: float | None = None, **facts: Any) -> None:
        super().__init__(**facts)
        self.retry_after = retry_after


class ServerError(APIStatusError):
    """The service, or a gateway before it, failed (5xx)."""

    outcome_unknown = True


class UnexpectedResponseError(APIStatusError):
    """The response is not one of the Jobs API: a redirect, HTML, or JSON that does not fit.

    :ivar is_page: whether it is not JSON, as a gateway's page.
    """

    def __init__(self, *, is_page: bool = False, **facts: Any) -> None:
        self.is_page = is_page
        self.outcome_unknown = is_success(facts["status"])
        if is_page or 300 <= facts["status"] < 500:
            self.advice = (
                "Check the connection's host: it should be the workspace's address, "
                "and no login page or proxy should stand before it"
            )
        super().__init__(**facts)

    @property
    def does_not_fit(self) -> bool:
        """Whether it is a successful JSON response that lacks what the endpoint returns."""
        return is_success(self.status) and not self.is_page

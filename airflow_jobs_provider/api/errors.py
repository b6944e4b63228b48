"""Exceptions of the Jobs API client.

::

    JobsAPIError
    ├── CredentialsError            no usable credentials, or none that may be sent there
    ├── InvalidRequestError         not sent: the reference forbids it (problems)
    ├── APIConnectionError          no response (host)
    │   ├── ConnectError            the request never reached the service
    │   │   ├── HostNotFoundError   the host's name does not resolve
    │   │   ├── CertificateError    the TLS certificate is not trusted
    │   │   └── ProxyError          the proxy does not answer or does not connect (proxy)
    │   │       ├── InvalidProxyError         its address is unusable, or of an unsupported kind
    │   │       └── ProxyAuthenticationError  it does not accept user and password (407)
    │   └── ResponseLostError       the request may have reached the service
    └── APIStatusError              the service, or a gateway before it, answered
        │                           (status, error_code, message, request_id)
        ├── BadRequestError         400 and other 4xx
        │   ├── NotFoundError       the run or job does not exist (400 or 404)
        │   └── ConflictError       400 COULD_NOT_ACQUIRE_LOCK
        ├── AuthenticationError     401 or 403
        ├── RateLimitError          429 (retry_after)
        ├── ServerError             5xx
        └── UnexpectedResponseError  not what the API answers: a redirect, HTML, or JSON
                                    that does not fit (is_page, does_not_fit)

Every exception carries its facts as attributes, and ``call``, ``attempts`` and
``elapsed_seconds`` once a client has given up on a call. The text tells what to do next. None ever
holds a credential. :mod:`.error_mapping` makes them from responses.

Two properties decide what may follow an error, for all of this package:

* ``is_final``: the same request can never succeed. True for ``InvalidRequestError``, and for a 400
  whose code is one of ``FINAL_ERROR_CODES``, unless its message says that something does not exist.
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
    "HostNotFoundError",
    "InvalidProxyError",
    "InvalidRequestError",
    "JobsAPIError",
    "NotFoundError",
    "ProxyAuthenticationError",
    "ProxyError",
    "RateLimitError",
    "ResponseLostError",
    "ServerError",
    "UnexpectedResponseError",
    "is_success",
]

# Codes of a 400 that say that the request itself is wrong. Every other code (quota, state, lock,
# permission, a feature that is switched off, codes that are not known) may be about the moment.
FINAL_ERROR_CODES = frozenset({"INVALID_PARAMETER_VALUE", "MALFORMED_REQUEST"})


# The same of anything else, such as a cluster.
_MISSING = re.compile(r"\b(do|does)(n't| not) exist\b|\bnot found\b", re.IGNORECASE)
_MISSING_RUN = re.compile(r"\brun\b.*?(exist|found)\b", re.IGNORECASE)
_DELETED_RUN = re.compile(r"\b(run|token)\b.*\bdeleted\b", re.IGNORECASE)
DOES_NOT_EXIST_CODES = frozenset({"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"})

# Characters of the service's message and request id that an error quotes.
_MESSAGE_LENGTH = 2_000
_REQUEST_ID_LENGTH = 100


def is_success(status: int) -> bool:
    """Whether an HTTP status is one of success."""
    return 200 <= status < 300


class JobsAPIError(Exception):
    """Anything that went wrong between a call and its answer.

    :ivar call: the endpoint, such as ``runs/submit``; empty before a client has sent the call.
    :ivar attempts: how often the call was sent before the client gave up.
    :ivar elapsed_seconds: how long the client tried, waits included.
    :ivar outcome_unknown: whether the service may have acted on the call: its answer to this
        attempt, or to one before, was lost.
    """

    outcome_unknown = False

    @property
    def is_final(self) -> bool:
        """Whether the same request can never succeed, so that repeating it is of no use."""
        return False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.call = ""
        self.attempts = 0
        self.elapsed_seconds = 0.0

    def record_attempts(
        self, call: str, attempts: int, elapsed_seconds: float, *, outcome_unknown: bool
    ) -> None:
        """Record what was tried; the client calls this before it lets the error through."""
        self.call = call
        self.attempts = attempts
        self.elapsed_seconds = elapsed_seconds
        self.outcome_unknown = outcome_unknown

    def __str__(self) -> str:
        text = f"{self.call}: {self.message}" if self.call else self.message
        if self.attempts > 1:
            text += f" (tried {self.attempts} times in {self.elapsed_seconds:.0f} s)"
        return text


class CredentialsError(JobsAPIError):
    """No credentials were found, or the ones there are may not be sent to this address."""


class InvalidRequestError(JobsAPIError, ValueError):
    """The request was not sent, because the reference says that it cannot succeed.

    :ivar problems: each thing wrong with it; as text one sentence that names the field, the rule
        and what was found.
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
        """Always."""
        return True


class APIConnectionError(JobsAPIError):
    """The service gave no answer.

    :ivar host: host, and port if any, that was asked.
    """

    def __init__(self, message: str, *, host: str = "") -> None:
        super().__init__(message)
        self.host = host


class ConnectError(APIConnectionError):
    """The request never reached the service, so whatever it asked for did not happen.

    :ivar first_contact: whether the client has never had an answer from this host. A wrong host
        name or proxy is then more likely than an outage.
    """

    def __init__(self, message: str, *, host: str = "", first_contact: bool = False) -> None:
        super().__init__(message, host=host)
        self.first_contact = first_contact


class HostNotFoundError(ConnectError):
    """The host's name does not resolve."""


class CertificateError(ConnectError):
    """The service's TLS certificate is not to be trusted."""


class ProxyError(ConnectError):
    """The proxy does not answer, or does not connect to the service.

    :ivar proxy: URL of the proxy, without user and password.
    :ivar status: HTTP status with which it refused to connect; None where it gave none.
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
    """The proxy's URL cannot be used, or names a kind of proxy that is not supported (SOCKS)."""


class ProxyAuthenticationError(ProxyError):
    """The proxy does not accept the user and password of its URL, or wants some (407)."""


class ResponseLostError(APIConnectionError):
    """The request may have reached the service, but its answer did not arrive whole or in time."""

    outcome_unknown = True


class APIStatusError(JobsAPIError):
    """The service, or a gateway before it, answered with an error.

    :ivar status: HTTP status.
    :ivar error_code: the API's own code, such as ``INVALID_PARAMETER_VALUE``; empty without one.
    :ivar api_message: the API's own words; empty where the answer is not the API's.
    :ivar request_id: the service's id of the request, for a support case; empty without one.
    """

    advice = ""

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
        # The code may be the status once more, as a number.
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
        """Whether the answer says that the request itself is wrong."""
        return (
            self.status == 400
            and self.error_code in FINAL_ERROR_CODES
            and not self.names_something_missing
        )

    @property
    def names_something_missing(self) -> bool:
        """Whether the message says that something does not exist; it may exist later."""
        return _MISSING.search(self.api_message) is not None

    @property
    def may_mean_deleted_run(self) -> bool:
        """Whether a launch may be refused so because the run of its token was deleted.

        The reference promises an error for that, and does not say which. What is about a job, a
        cluster, permissions or the state of the service says nothing about the token's run.
        """
        if _DELETED_RUN.search(self.api_message):
            return True
        if self.names_something_missing:
            return _MISSING_RUN.search(self.api_message) is not None
        return self.is_final or self.error_code in DOES_NOT_EXIST_CODES


class NotFoundError(BadRequestError):
    """The run or job asked for does not exist, any more or at all."""

    @property
    def is_final(self) -> bool:
        """Never: it may be there later."""
        return False

    advice = (
        "Check the id and the connection's workspace; runs vanish 60 days after they ended, "
        "and jobs when somebody deletes them"
    )


class ConflictError(BadRequestError):
    """The service is busy with the same job just now; later the request may pass."""


class AuthenticationError(APIStatusError):
    """The service does not accept the credentials (401), or not for this (403)."""

    advice = (
        "Check the token (or user and password) of the Airflow connection, "
        "its expiry and its permissions in the workspace"
    )


class RateLimitError(APIStatusError):
    """Too many requests (429).

    :ivar retry_after: seconds that the service asks to wait, 1 or more; None where it does not ask.
    """

    def __init__(self, *, retry_after: float | None = None, **facts: Any) -> None:
        super().__init__(**facts)
        self.retry_after = retry_after


class ServerError(APIStatusError):
    """The service or a gateway before it is in trouble (5xx)."""

    outcome_unknown = True


class UnexpectedResponseError(APIStatusError):
    """An answer that the Jobs API does not give: a redirect, HTML, or JSON that does not fit.

    :ivar is_page: whether it is a page or text of somebody else's, and not JSON.
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
        """Whether the API itself answered success, but with something else than was asked for."""
        return is_success(self.status) and not self.is_page

"""Sends requests to identity services, as the clients of the Jobs API send theirs.

databricks-sdk sends its own requests for tokens without a time-out, through the environment's
proxies only, follows redirects, and keeps no HTTP status. So its token sources get this client.
"""

from __future__ import annotations

import base64
import email.utils
import json
import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

from airflow_jobs_provider.api.auth.static import Token
from airflow_jobs_provider.api.auth.transport import Transport
from airflow_jobs_provider.api.base_client import LIBRARY_ERRORS
from airflow_jobs_provider.api.blocking_client import JobsClient, keep_header
from airflow_jobs_provider.api.error_mapping import error_from_response
from airflow_jobs_provider.api.errors import (
    APIConnectionError,
    ConnectError,
    TokenRefusedError,
    TokenUnavailableError,
    is_success,
)
from airflow_jobs_provider.api.proxies import Proxies, Route
from airflow_jobs_provider.api.text import printable

__all__ = ["IdentityClient"]

log = logging.getLogger(__name__)

_READ_SECONDS = 30.0
_RESPONSE_SECONDS = 60.0
_MAX_BYTES = 1024 * 1024
_DESCRIPTION_LENGTH = 600
# A clock that differs by more is named in a refusal.
_NOTABLE_SKEW_SECONDS = 60.0
# OAuth error codes of an outage, whatever the status (RFC 6749, and what Entra ID answers).
_OUTAGE_CODES = ("temporarily_unavailable", "server_error", "service_unavailable")


class IdentityClient:
    """Sends requests to identity services.

    :param transport: how.
    :param description: the method and the principal, for messages.
    :param advice: what to check if a token is refused.
    """

    def __init__(self, transport: Transport, description: str, advice: str) -> None:
        self.transport = transport
        self._description = description
        self._advice = advice

    def get(self, url: str) -> dict[str, Any]:
        """Get a JSON document.

        :param url: the URL.
        :raises JobsAPIError: see :meth:`send`.
        """
        return self.send("GET", url)

    def post_form(
        self, url: str, form: Mapping[str, str], *, basic: tuple[str, str] | None = None
    ) -> dict[str, Any]:
        """Post a form, as OAuth wants it, and return the JSON response.

        :param url: the URL.
        :param form: the fields; all but ``subject_token`` and the like may be named in an error.
        :param basic: client id and secret for the Authorization header; None (default) for none.
        :raises JobsAPIError: see :meth:`send`.
        """
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        secrets = [value for name, value in form.items() if name in _SECRET_FIELDS]
        if basic is not None:
            pair = base64.b64encode(":".join(basic).encode()).decode()
            headers["Authorization"] = f"Basic {pair}"
            secrets += [basic[1], pair]
        body = urlencode(form).encode()
        return self.send("POST", url, headers=headers, body=body, secrets=secrets)

    def send(
        self,
        verb: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        secrets: Iterable[str] = (),
        proxies: Proxies | None = None,
        verify: bool | str | None = None,
        advice: str = "",
    ) -> dict[str, Any]:
        """Send a request once and return the JSON response. Redirects are not followed.

        :param verb: HTTP verb.
        :param url: the URL.
        :param headers: further headers.
        :param body: the body.
        :param secrets: what an error never shows, although the response quotes it.
        :param proxies: proxies for this request; default those of the transport.
        :param verify: as :attr:`Transport.verify`; default that of the transport.
        :param advice: what to check if the request is refused; default that of the client.
        :raises TokenRefusedError: the response is a refusal (4xx) or a redirect.
        :raises RateLimitError: it is a 429.
        :raises ConnectError: no response came (the subclass says why), or it is an error of the
            service. The request may be repeated.
        :raises CredentialsError: the URL is plain http to another machine.
        """
        transport = self.transport
        origin = _Origin(
            url,
            transport,
            proxies=transport.proxies if proxies is None else proxies,
            verify=transport.verify if verify is None else verify,
        )
        with origin:
            status, received, data = origin.exchange(verb, url, dict(headers or {}), body)
        skew = _skew_seconds(received.get("Date"))
        secrets = [secret for secret in secrets if secret]
        answer = _json_object(data)
        if is_success(status) and answer is not None:
            return answer
        code, description = _oauth_error(answer)
        for secret in secrets:
            description = description.replace(secret, "***")
            data = data.replace(secret.encode(), b"***")
        said = printable(": ".join(filter(None, (code, description))), _DESCRIPTION_LENGTH)
        text = f"{origin.host} answered {status}" + (f" {said}" if said else "")
        if status == 429:
            raise error_from_response(status, received, data)
        if status >= 500 or status == 408 or code in _OUTAGE_CODES or is_success(status):
            raise TokenUnavailableError(f"no token can be fetched now: {text}", host=origin.host)
        parts = [f"a token is refused ({self._description}): {text}", advice or self._advice]
        if abs(skew) >= _NOTABLE_SKEW_SECONDS:
            where = "behind" if skew > 0 else "ahead of"
            parts.append(
                f"This machine's clock is {abs(skew):.0f} s {where} that of {origin.host}, which "
                "may be the reason"
            )
        message = ". ".join(part.rstrip(".") for part in parts)
        raise TokenRefusedError(message, status=status, error_code=code)


_SECRET_FIELDS = ("client_secret", "subject_token", "client_assertion", "assertion")


class _Origin(JobsClient):
    """The blocking client, for one request to an identity service."""

    def __init__(
        self, url: str, transport: Transport, *, proxies: Proxies, verify: bool | str
    ) -> None:
        parts = urlsplit(url)
        super().__init__(
            f"{parts.scheme}://{parts.netloc}",
            Token("none"),  # the request brings its own
            allow_http=transport.allow_http,
            verify=verify,
            proxies=proxies,
            timeout_seconds=_READ_SECONDS,
            response_timeout_seconds=_RESPONSE_SECONDS,
        )
        workspace = urlsplit(transport.workspace_url).netloc.rpartition("@")[2]
        self._is_workspace = self.host == workspace

    def exchange(
        self, verb: str, url: str, headers: dict[str, str], body: bytes | None
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Send the request; return status, headers and body of the response.

        :raises ConnectError: no complete response came.
        """
        import requests
        from urllib3.exceptions import HTTPError

        route = self._choose_route()
        started = time.monotonic()
        headers |= {"User-Agent": self._user_agent, "Accept": "application/json"}
        library_errors: tuple[type[Exception], ...]
        library_errors = (requests.RequestException, HTTPError, *LIBRARY_ERRORS)
        failure: APIConnectionError
        try:
            prepared = requests.Request(
                verb, url, headers=headers, data=body, auth=keep_header
            ).prepare()
            response = self._send_prepared(prepared, route)
            with response:
                data = response.raw.read(_MAX_BYTES, decode_content=True)
        except library_errors as error:
            failure = self._translate(error, route, started)
        else:
            if response.status_code == 407 and route.proxy:
                raise self._proxy_failed(route, "Proxy Authentication Required", 407)
            self._record_response(route)
            return response.status_code, response.headers, data
        raise _as_connect_error(failure)

    def _is_first_contact(self, proxy: str = "") -> bool:
        # A triggerer is told how a worker reached the workspace, not how it reached other hosts.
        return self._is_workspace and super()._is_first_contact(proxy)

    def _record_response(self, route: Route) -> None:
        if self._is_workspace:
            super()._record_response(route)


def _as_connect_error(error: APIConnectionError) -> ConnectError:
    """Return an error that says that nothing was sent to the workspace."""
    if isinstance(error, ConnectError):
        error.args = (f"no token can be fetched now: {error.message}",)
        error.message = error.args[0]
        return error
    return TokenUnavailableError(f"no token can be fetched now: {error.message}", host=error.host)


def _json_object(data: bytes) -> dict[str, Any] | None:
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


def _oauth_error(answer: dict[str, Any] | None) -> tuple[str, str]:
    """Return code and description of an OAuth error, or of one of Databricks or Kubernetes."""
    if answer is None:
        return "", ""
    code = answer.get("error") or answer.get("error_code") or answer.get("reason") or ""
    if isinstance(code, dict):  # as Google's APIs answer
        answer, code = code, code.get("status", "")
    text = answer.get("error_description") or answer.get("message") or ""
    return str(code), " ".join(str(text).split())


def _skew_seconds(date: str | None) -> float:
    """Return how far the clock of a service is ahead of this machine's; 0 if it does not say."""
    try:
        return email.utils.parsedate_to_datetime(date or "").timestamp() - time.time()
    except (TypeError, ValueError):
        return 0.0

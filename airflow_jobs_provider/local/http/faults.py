"""Faults on demand: the local workspace breaks the next requests in the way that a test asks for.

A test of a DAG can see what the DAG does when the service is down for minutes, when the response to
a launch is lost, or when a token expires. A fault concerns a number of requests of an endpoint.
Several faults of one endpoint apply one after another, in the order in which they were added.

What could go wrong: a fault that no request meets stays for the next test. ``Faults.pending`` lists
what is left, and each workspace has faults of its own.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from http import HTTPStatus
from typing import Any

from aiohttp import web

__all__ = ["Fault", "FaultKind", "Faults", "endpoint_of_path"]

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_CHECK_CONNECTION_SECONDS = 0.05
_VERSION_AND_JOBS = re.compile(r"^/(?:api/\d+\.\d+/)?(?:jobs/)?")
_WILDCARD = re.compile(r"[*?[]")
_HTML = "<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>"
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_ERROR_CODES: dict[int, str] = {
    400: "INVALID_PARAMETER_VALUE",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    409: "RESOURCE_CONFLICT",
    429: "REQUEST_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class FaultKind(StrEnum):
    """What is done to a request.

    * ERROR: it is not carried out, and answered with a status and a JSON error.
    * HTML: it is not carried out, and answered with a status and an HTML page, as gateways do.
    * EXPIRED_TOKEN: it is not carried out, and answered with 403 ``JWT has expired``.
    * CONNECTION_RESET: it is not carried out; the connection is reset.
    * RESPONSE_LOST: it is carried out; the connection is closed without a response.
    * NO_RESPONSE: it is carried out; the connection stays open without a response until the client
      closes it.
    """

    ERROR = "error"
    HTML = "html"
    EXPIRED_TOKEN = "expired_token"  # noqa: S105  (no secret)
    CONNECTION_RESET = "connection_reset"
    RESPONSE_LOST = "response_lost"
    NO_RESPONSE = "no_response"


@dataclass(frozen=True, slots=True)
class Fault:
    """What is done to the next requests of an endpoint.

    :param endpoint: an endpoint as in the reference without ``jobs/``, such as ``runs/get``, or
        another path such as ``oidc/v1/token``; ``*`` and ``?`` match any characters.
    :param kind: what is done; default ERROR.
    :param status: HTTP status of ERROR and HTML; default 503.
    :param error_code: the ``error_code`` of ERROR; default the one that belongs to the status.
    :param message: the message of ERROR; default one that names the fault.
    :param retry_after: seconds in the header Retry-After; default None: no header.
    :param times: number of requests; default 1.
    """

    endpoint: str
    kind: FaultKind = FaultKind.ERROR
    status: int = 503
    error_code: str | None = None
    message: str | None = None
    retry_after: int | None = None
    times: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", FaultKind(self.kind))
        if not self.endpoint:
            raise ValueError("endpoint must name an endpoint, such as runs/get, or be *")
        if self.times < 1:
            raise ValueError(f"times must be at least 1, not {self.times}")
        if not 200 <= self.status <= 599:
            raise ValueError(f"status must be an HTTP status from 200 to 599, not {self.status}")

    def as_record(self) -> dict[str, Any]:
        """Return the fault as JSON data."""
        return asdict(self)

    def response(self) -> web.Response:
        """Return the response of a fault that has one."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        if self.kind is FaultKind.EXPIRED_TOKEN:
            body: Mapping[str, Any] = {"error_code": 403, "message": "JWT has expired"}
            return web.json_response(body, status=HTTPStatus.FORBIDDEN, headers=headers)
        if self.kind is FaultKind.HTML:
            text = _HTML.format(title=f"{self.status} {_phrase(self.status)}")
            return web.Response(
                text=text, status=self.status, content_type="text/html", headers=headers
            )
        body = {
            "error_code": self.error_code or _ERROR_CODES.get(self.status, "UNKNOWN"),
            "message": self.message or f"A test made {self.endpoint} fail with {self.status}.",
        }
        return web.json_response(body, status=self.status, headers=headers)


@dataclass(slots=True)
class Faults:
    """The faults that are still to come; it may be used from any thread."""

    _pending: list[Fault] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    # Those of the workspace that is running. A part in braces is any text.
    _endpoints: Sequence[str] = ()

    def set_paths(self, paths: Iterable[str]) -> None:
        """Set the paths that the workspace has; a fault of another endpoint is then refused.

        :param paths: the paths, such as ``/api/2.0/permissions/jobs/{job_id}``.
        """
        self._endpoints = sorted({endpoint_of_path(path) for path in paths})

    def add(self, fault: Fault) -> None:
        """Add a fault for the next requests of its endpoint.

        :param fault: the fault.
        :raises ValueError: the workspace has no such endpoint.
        """
        known = self._endpoints
        if known and not any(_may_match(fault.endpoint, one) for one in known):
            names = ", ".join(_closest_first(fault.endpoint, known))
            raise ValueError(f"The workspace has no endpoint {fault.endpoint}; it has {names}")
        with self._lock:
            self._pending.append(fault)

    def clear(self) -> None:
        """Remove all faults that are still to come."""
        with self._lock:
            self._pending.clear()

    @property
    def pending(self) -> list[Fault]:
        """The faults that are still to come, with the number of requests that is left."""
        with self._lock:
            return list(self._pending)

    def take(self, path: str) -> Fault | None:
        """Return the fault for a request and count it; None where there is none."""
        endpoint = endpoint_of_path(path)
        with self._lock:
            for place, fault in enumerate(self._pending):
                if fnmatchcase(endpoint, fault.endpoint):
                    if fault.times > 1:
                        self._pending[place] = replace(fault, times=fault.times - 1)
                    else:
                        del self._pending[place]
                    return fault
        return None

    async def answer(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Answer a request, or break it where a fault is to come."""
        fault = self.take(request.path)
        if fault is None:
            return await handler(request)
        match fault.kind:
            case FaultKind.CONNECTION_RESET:
                _close(request, reset=True)
                return web.Response()
            case FaultKind.RESPONSE_LOST:
                response = await handler(request)
                _close(request, reset=False)
                return response
            case FaultKind.NO_RESPONSE:
                response = await handler(request)
                await _closed_by_client(request)
                return response
            case _:
                return fault.response()


def endpoint_of_path(path: str) -> str:
    """Return the endpoint that a path names: ``/api/2.1/jobs/runs/get`` is ``runs/get``."""
    return _VERSION_AND_JOBS.sub("", path)


def _may_match(pattern: str, endpoint: str) -> bool:
    """Return whether a fault's pattern can match requests of an endpoint."""
    fixed, brace, _any_text = endpoint.partition("{")
    if not brace:
        return fnmatchcase(endpoint, pattern)
    literal = _WILDCARD.split(pattern, maxsplit=1)[0]
    return literal.startswith(fixed) or (literal != pattern and fixed.startswith(literal))


def _closest_first(wanted: str, endpoints: Sequence[str]) -> list[str]:
    """Return the endpoints, those first that are spelled like the one that is wanted."""
    from difflib import get_close_matches

    name = endpoint_of_path(wanted).lower()
    return list(dict.fromkeys((*get_close_matches(name, endpoints), *endpoints)))


async def _closed_by_client(request: web.Request) -> None:
    # aiohttp tells a handler that works of a closed connection in no other way.
    while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110
        await asyncio.sleep(_CHECK_CONNECTION_SECONDS)


def _close(request: web.Request, *, reset: bool) -> None:
    transport = request.transport
    if transport is None:
        return
    connected = transport.get_extra_info("socket")
    if reset and connected is not None:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"

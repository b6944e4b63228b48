"""What clients asked of the local workspace: the last requests, and a recording in a file.

Refused requests are among them, without their query and body. No header is kept, so no token of a
client either. In a recording the workspace's access token and the tokens that it issues are masked
wherever they occur. Not kept are the values of secrets, and the credentials with which Spark sends
lineage events.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from aiohttp import web

from airflow_jobs_provider.api.text import is_lineage_credential
from airflow_jobs_provider.local.http.faults import endpoint_of_path
from airflow_jobs_provider.local.http.recording import Recording

__all__ = ["LoggedRequest", "RequestLog"]

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_KEPT_REQUESTS = 10_000
# Of all requests, and of one text of a body: files that clients upload would fill the memory.
_KEPT_BYTES = 8_000_000
_KEPT_CHARS = 20_000
# Anybody on this machine can send a request that is refused.
_KEPT_CHARS_OF_REFUSED = 200
_MASK = "***"
_ISSUED_TOKEN = re.compile(r'("access_token":\s*")[^"]*')
# The spark_conf of a job cluster is five levels deep.
_MASKED_LEVELS = 20
# Of the requests secrets/put, and of the responses of secrets/get.
_SECRET_FIELDS = ("string_value", "bytes_value")
_SECRETS = "/api/2.0/secrets/"
# How long the rest of a body may take that the answer did not need.
_BODY_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """A request that the workspace received.

    :param method: the HTTP method.
    :param endpoint: the endpoint, such as ``runs/get``; other paths without their first slash.
    :param path: the whole path.
    :param data: parameters of the query and fields of the JSON body, whose texts are cut after
        20,000 characters, such as the contents of a file.
    :param status: the HTTP status of the response; None where no response was sent.
    :param time: when the request came, in seconds since 1970.
    :param seconds: how long the response took.
    """

    method: str
    endpoint: str
    path: str
    data: Mapping[str, Any]
    status: int | None
    time: float = 0.0
    seconds: float = 0.0


class _Kept(NamedTuple):
    """A logged request in little memory: as objects its data takes several times that of JSON."""

    method: str
    path: str
    data: bytes
    status: int | None
    time: float
    seconds: float

    def as_request(self) -> LoggedRequest:
        return LoggedRequest(
            self.method,
            endpoint_of_path(self.path),
            self.path,
            json.loads(self.data) if self.data else {},
            self.status,
            self.time,
            self.seconds,
        )


class RequestLog:
    """The last 10,000 requests, fewer if they have more than 8 MB of data.

    It may be read from any thread.

    :param folder: where requests and responses are recorded (see :class:`.recording.Recording`),
        one JSON object a line; default None: nothing is recorded.
    :param token: the workspace's access token, which is masked there.
    :raises OSError: the folder cannot be written to.
    """

    def __init__(self, folder: Path | None = None, token: str = "") -> None:
        self._requests: deque[_Kept] = deque()
        self._kept_bytes = 0
        self._lock = threading.Lock()
        self._token = token
        self._recording = Recording(folder) if folder is not None else None

    @property
    def requests(self) -> list[LoggedRequest]:
        """The last requests, in the order of their responses."""
        with self._lock:
            kept = list(self._requests)
        return [one.as_request() for one in kept]

    def clear(self) -> None:
        """Forget the requests; a recording is kept."""
        with self._lock:
            self._requests.clear()
            self._kept_bytes = 0

    def close(self) -> None:
        """Close the recording."""
        if self._recording is not None:
            self._recording.close()
            self._recording = None

    async def answer(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Answer a request, and log it."""
        began, moment = time.monotonic(), time.time()
        response = await handler(request)
        seconds = time.monotonic() - began
        body = await _body_of(request)
        is_sent = request.transport is not None and not request.transport.is_closing()
        if request.path.startswith(_SECRETS) and not isinstance(body, dict | None):
            body = _MASK  # JSON with an error, and with a secret
        body = _masked(body)
        fields = body if isinstance(body, dict) else {}
        sent = response if is_sent else None
        self._keep(request, request.path, {**request.query, **fields}, sent, moment, seconds)
        if self._recording is not None:
            self._recording.add(
                self._line_of(request, request.path, dict(request.query), body, sent, seconds)
            )
        return response

    def add_refused(self, request: web.Request, response: web.Response) -> None:
        """Log a request whose sender may not send it; its query and body are not kept."""
        path = request.path[:_KEPT_CHARS_OF_REFUSED]
        self._keep(request, path, {}, response, time.time(), 0.0)
        if self._recording is not None:
            self._recording.add_refused(self._line_of(request, path, {}, None, response, 0.0))

    def _keep(
        self,
        request: web.Request,
        path: str,
        given: Mapping[str, Any],
        response: web.StreamResponse | None,
        moment: float,
        seconds: float,
    ) -> None:
        data = {name: _cut(value) for name, value in given.items()}
        kept = _Kept(
            _shared(request.method),
            _shared(path),
            json.dumps(data, separators=(",", ":")).encode() if data else b"",
            None if response is None else response.status,
            round(moment, 3),
            round(seconds, 4),
        )
        with self._lock:
            self._requests.append(kept)
            self._kept_bytes += len(kept.data)
            while len(self._requests) > 1 and (
                len(self._requests) > _KEPT_REQUESTS or self._kept_bytes > _KEPT_BYTES
            ):
                self._kept_bytes -= len(self._requests.popleft().data)

    def _line_of(
        self,
        request: web.Request,
        path: str,
        query: Mapping[str, str],
        body: Any,
        response: web.StreamResponse | None,
        seconds: float,
    ) -> str:
        answered = response.body if isinstance(response, web.Response) else None
        given = _masked(_json_of(answered)) if isinstance(answered, bytes) else None
        if request.path.startswith(_SECRETS) and isinstance(given, dict) and "value" in given:
            given["value"] = _MASK
        line = json.dumps(
            {
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "method": request.method,
                "path": path,
                "query": query,
                "body": body,
                "status": None if response is None else response.status,
                "response": given,
                "seconds": round(seconds, 4),
            }
        )
        line = _ISSUED_TOKEN.sub(rf"\1{_MASK}", line)
        if self._token:
            line = line.replace(json.dumps(self._token)[1:-1], _MASK)
        return line


@lru_cache(maxsize=1_000)
def _shared(text: str) -> str:
    """Return the same object for equal texts, mostly: the same paths come again and again.

    ``sys.intern`` of Python 3.12.0 and some later ones never lets a text go.
    """
    return text


def _masked(value: Any, levels: int = _MASKED_LEVELS) -> Any:
    """Return JSON in which secrets are masked."""
    if levels and isinstance(value, dict):
        return {
            name: _MASK if _is_secret(name) else _masked(item, levels - 1)
            for name, item in value.items()
        }
    if levels and isinstance(value, list):
        return [_masked(item, levels - 1) for item in value]
    return value


def _is_secret(name: str) -> bool:
    return name in _SECRET_FIELDS or is_lineage_credential(name)


def _cut(value: Any) -> Any:
    if not isinstance(value, str) or len(value) <= _KEPT_CHARS:
        return value
    return f"{value[:_KEPT_CHARS]}... ({len(value) - _KEPT_CHARS} more characters)"


async def _body_of(request: web.Request) -> Any:
    """Return the JSON body of a request; None where it has none, or where it did not arrive."""
    if request.content_type != "application/json":
        return None
    try:
        # aiohttp keeps what the handler has read. A broken request was answered without its body.
        async with asyncio.timeout(_BODY_SECONDS):
            return _json_of(await request.read())
    except (TimeoutError, ConnectionError, web.HTTPException, web.RequestPayloadError):
        return None


def _json_of(content: bytes) -> Any:
    """Return the JSON of a body; other text as it is, and None for an empty body."""
    if not content:
        return None
    try:
        return json.loads(content)
    except ValueError:
        return content.decode(errors="replace")

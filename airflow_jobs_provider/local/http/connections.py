"""Network connections of the local workspace: their number and their timeouts.

asyncio's own servers accept without a limit, and log each failure to accept one: a process that has
no file left for another connection would log without end. aiohttp does not limit the time in which
a request arrives. So connections are accepted here, and each is handed to aiohttp inside a protocol
that watches its times.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import cast

__all__ = ["Connection", "Connections", "Timeouts"]

_log = logging.getLogger(__name__)
_BACKLOG = 128
# A common limit; some programs close every file up to the limit when they start.
_WANTED_FILES = 8192
_FILES_IF_UNKNOWN = 512
_ACCEPT_AGAIN_SECONDS = 0.2
_LOG_INTERVAL_SECONDS = 60.0
# A connection that has been idle for less may be about to send its request.
_MIN_WAIT_SECONDS = 1.0
_OUT_OF_FILES = {errno.EMFILE, errno.ENFILE}


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Timeouts for clients.

    :param request_seconds: for the headers of a request, for its body, and between two parts of an
        answer that it reads; default 30.
    :param idle_seconds: from the end of a request to the beginning of the next one on the same
        connection; default 75.
    """

    request_seconds: float = 30.0
    idle_seconds: float = 75.0


class Connections:
    """Accepts connections; closes those that exceed a timeout or the limit.

    At most half of the files that this process may open are connections; the rest is left to runs.
    Beyond that the connection that has waited longest for its client is closed for a new one. If
    all are at work, the new one is answered with 503.

    :param make_protocol: makes the protocol that reads requests from one connection.
    :param timeouts: how long a client may take.
    """

    def __init__(self, make_protocol: Callable[[], asyncio.Protocol], timeouts: Timeouts) -> None:
        self._make_protocol = make_protocol
        self.timeouts = timeouts
        self._most = max(1, _raise_file_limit() // 2)
        self._count = 0
        # In the order in which they began to wait.
        self._waiting: dict[Connection, float] = {}
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._logged: dict[str, float] = {}

    def start(self, host: str, port: int) -> int:
        """Start listening; return the port.

        :param port: 0 for any that is free.
        :raises OSError: the port cannot be used.
        """
        self._listener = socket.create_server((host, port), backlog=_BACKLOG)
        self._listener.setblocking(False)
        self._accepting = asyncio.create_task(self._accept(self._listener))
        return int(self._listener.getsockname()[1])

    async def stop(self) -> None:
        """Stop listening; open connections stay open."""
        if self._accepting is not None:
            self._accepting.cancel()
            with suppress(asyncio.CancelledError):
                await self._accepting
        if self._listener is not None:
            self._listener.close()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(listener)
            except OSError as error:
                self._log_seldom("No connection can be accepted", str(error))
                if error.errno in _OUT_OF_FILES:
                    self._close_one()
                await asyncio.sleep(_ACCEPT_AGAIN_SECONDS)
                continue
            try:
                await loop.connect_accepted_socket(self._new_connection, accepted)
            except OSError as error:
                accepted.close()
                self._log_seldom("A connection could not be taken", str(error))

    def _new_connection(self) -> asyncio.Protocol:
        if self._count >= self._most and not self._close_one():
            self._log_seldom("Connections are refused", f"{self._most} are at work already")
            return _Refusal()
        return Connection(self._make_protocol(), self)

    def _close_one(self) -> bool:
        """Close the connection that has been idle longest, if there is one."""
        now = time.monotonic()
        for connection, since in self._waiting.items():
            if now - since < _MIN_WAIT_SECONDS:
                return False
            if not connection.has_unsent:
                self._log_seldom("Connections are closed", "there are too many to keep")
                connection.close()
                return True
        return False

    def _log_seldom(self, what: str, why: str) -> None:
        now = time.monotonic()
        if now >= self._logged.get(what, now):
            self._logged[what] = now + _LOG_INTERVAL_SECONDS
            _log.warning("%s: %s. This is logged once a minute at most.", what, why)

    # Called by connections

    def add(self) -> None:
        """Count a connection that was made."""
        self._count += 1

    def remove(self, connection: Connection) -> None:
        """Stop counting a connection that was closed."""
        self._count -= 1
        self._waiting.pop(connection, None)

    def set_waiting(self, connection: Connection, *, waits: bool) -> None:
        """Record whether a connection is idle or has a request in progress."""
        self._waiting.pop(connection, None)
        if waits:
            self._waiting[connection] = time.monotonic()


class Connection(asyncio.Protocol):
    """One connection: passes data to the HTTP protocol and enforces the timeouts.

    :param protocol: the protocol that reads requests.
    :param connections: all connections of the workspace.
    """

    def __init__(self, protocol: asyncio.Protocol, connections: Connections) -> None:
        self._protocol = protocol
        self._connections = connections
        self._timeouts = connections.timeouts
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_idle = False
        self._unsent = 0

    @property
    def has_unsent(self) -> bool:
        """Whether a part of the last response is not sent yet."""
        return self._transport is not None and self._transport.get_write_buffer_size() > 0

    def close(self) -> None:
        """Close the connection at once."""
        self._connections.set_waiting(self, waits=False)
        if self._transport is not None:
            self._transport.abort()

    def request_began(self) -> None:
        """Record that the headers of a request are complete."""
        self._is_idle = False
        self._connections.set_waiting(self, waits=False)
        self._set_timer(None)

    def request_ended(self) -> None:
        """Record that a request has been answered."""
        self._is_idle = True
        self._unsent = 0
        self._wait(self._timeouts.idle_seconds)

    def _wait(self, seconds: float) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._connections.set_waiting(self, waits=True)
        self._set_timer(seconds)

    def _set_timer(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds is not None and self._transport is not None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._timed_out)

    def _timed_out(self) -> None:
        assert self._transport is not None
        unsent = self._transport.get_write_buffer_size()
        if unsent and (not self._unsent or unsent < self._unsent):
            # The client reads a large response slowly.
            self._unsent = unsent
            self._set_timer(self._timeouts.request_seconds)
            return
        self.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the first request."""
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add()
        self._protocol.connection_made(transport)
        self._wait(self._timeouts.request_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._set_timer(None)
        self._transport = None
        self._connections.remove(self)
        self._protocol.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read a part of a request; its headers have a time limit from here on."""
        if self._is_idle:
            self._is_idle = False
            self._wait(self._timeouts.request_seconds)
        self._protocol.data_received(data)

    def eof_received(self) -> bool | None:
        """Pass on the end of the client's data."""
        return self._protocol.eof_received()

    def pause_writing(self) -> None:
        """Pass on that the write buffer is full."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that the write buffer has room again."""
        self._protocol.resume_writing()


class _Refusal(asyncio.Protocol):
    """Answers a connection beyond the limit."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Answer 503, and close."""
        status = HTTPStatus.SERVICE_UNAVAILABLE
        message = "The local workspace has too many connections"
        body = json.dumps({"error_code": "TEMPORARILY_UNAVAILABLE", "message": message})
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        writable = cast("asyncio.Transport", transport)
        writable.write((head + body).encode())
        writable.close()


def _raise_file_limit() -> int:
    """Raise the limit of open files as far as the system allows; return the limit."""
    try:
        import resource
    except ImportError:  # pragma: no cover  (Windows)
        return _FILES_IF_UNKNOWN
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= _WANTED_FILES:
        return _WANTED_FILES
    wanted = _WANTED_FILES if hard == resource.RLIM_INFINITY else min(hard, _WANTED_FILES)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft

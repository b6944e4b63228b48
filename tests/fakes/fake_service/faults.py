"""What goes wrong with requests to the fake service."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.fakes.fake_service.server import Handler

__all__ = ["FAULTS", "NOT_SHOWN_YET", "Fault"]

MAX_HANG_SECONDS = 20


@dataclass(frozen=True)
class Fault:
    """What happens to a request instead of an answer.

    :ivar handled: whether the service does what was asked all the same.
    :ivar do: answers, or does not, on the open connection.
    """

    handled: bool
    do: Callable[[Handler], None]


def _says(
    status: int, body: bytes, headers: dict[str, str] | None = None
) -> Callable[[Handler], None]:
    def do(handler: Handler) -> None:
        handler.say(status, body, headers)

    return do


def _hang_up(handler: Handler) -> None:
    handler.hang_up()


def _reset(handler: Handler) -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.hang_up()


def _say_nothing(handler: Handler) -> None:
    handler.connection.settimeout(MAX_HANG_SECONDS)
    with contextlib.suppress(OSError):
        handler.connection.recv(1)
    handler.hang_up()


def _half_a_body(handler: Handler) -> None:
    handler.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"run_id"')
    handler.hang_up()


_PAGE = b"<html><head><title>Bad Gateway</title></head><body>nginx</body></html>"
_HTML = {"Content-Type": "text/html"}


def _error(code: Any, message: str) -> bytes:
    return json.dumps({"error_code": code, "message": message}).encode()


_DOWN = _error("TEMPORARILY_UNAVAILABLE", "The service is under maintenance")
_SLOWER = _error("REQUEST_LIMIT_EXCEEDED", "Slow down")

FAULTS: dict[str, Fault] = {
    "lost answer": Fault(True, _hang_up),
    "reset before handling": Fault(False, _reset),
    "reset after handling": Fault(True, _reset),
    "time-out before handling": Fault(False, _say_nothing),
    "time-out after handling": Fault(True, _say_nothing),
    "500": Fault(False, _says(500, _error("INTERNAL_ERROR", "Try again"))),
    "500 after handling": Fault(True, _says(500, _error("INTERNAL_ERROR", "Try again"))),
    "502 HTML": Fault(False, _says(502, _PAGE, _HTML)),
    "503": Fault(False, _says(503, _DOWN)),
    "429": Fault(False, _says(429, _SLOWER)),
    # Not the first wait of the retry policy, so that a test sees which of the two it was.
    "429 with Retry-After": Fault(False, _says(429, _SLOWER, {"Retry-After": "2"})),
    "403": Fault(False, _says(403, _error(403, "Invalid access token."))),
    "200 not JSON": Fault(False, _says(200, _PAGE, _HTML)),
    "200 not JSON after handling": Fault(True, _says(200, _PAGE, _HTML)),
    "half a body": Fault(True, _half_a_body),
}
# What the service says of a run that it does not show yet.
NOT_SHOWN_YET = Fault(
    False, _says(404, _error("RESOURCE_DOES_NOT_EXIST", "Run 1001 is not there."))
)

"""Responses that break HTTP, JSON or the reference, as steps of the scripted server."""

from __future__ import annotations

import socket

from tests.fakes.scripted_server import (
    Step,
    answer,
    half_a_body,
    lose,
    never_answer,
    reset,
)


def raw(data: bytes) -> Step:
    """Send these bytes and hang up."""

    def step(connection: socket.socket) -> None:
        connection.sendall(data)

    return step


def head(*lines: bytes, status: bytes = b"200 OK") -> Step:
    """Send an answer with these headers and a good body."""
    body = b'{"run_id": 7}'
    length = b"Content-Length: %d" % len(body)
    return raw(b"\r\n".join((b"HTTP/1.1 " + status, length, *lines, b"", body)))


ANSWERS: dict[str, Step] = {
    "redirect to a broken address": head(b"Location: http://[::1", status=b"302 Found"),
    "redirect that is not UTF-8": head(b"Location: http://\xff\xfe/", status=b"302 Found"),
    "redirect to another scheme": head(b"Location: javascript:alert(1)", status=b"301 Moved"),
    "redirect to nowhere": head(status=b"302 Found"),
    "401": answer({}, 401),
    "403": answer({"error_code": 403, "message": "Invalid access token."}, 403),
    "404": answer("<html>", 404),
    "407 without a proxy": answer({}, 407),
    "status that is no number": head(status=b"abc OK"),
    "status 999": head(status=b"999 What"),
    "status 0": head(status=b"000 None"),
    "no HTTP": raw(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "no bytes": lose,
    "reset": reset,
    "silence": never_answer,
    "half a body": half_a_body,
    "header without a name": head(b": no name", status=b"400 Bad"),
    "header without a colon": head(b"what is this", status=b"400 Bad"),
    "header with a null": head(b"X-Odd: a\x00b", status=b"400 Bad"),
    "header that is not UTF-8": head(b"x-request-id: \xff\xfe", status=b"400 Bad"),
    "very long header": head(b"X-Long: " + b"a" * 100_000),
    "very many headers": head(*[b"X-%d: 1" % number for number in range(500)]),
    "length that is no number": raw(b"HTTP/1.1 200 OK\r\nContent-Length: ten\r\n\r\n{}"),
    "negative length": raw(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n<"),
    "two lengths": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}"),
    "broken chunks": raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}"),
    "unknown transfer encoding": head(b"Transfer-Encoding: gzip, what", status=b"400 Bad"),
    "broken gzip": head(b"Content-Encoding: gzip"),
    "unknown content encoding": head(b"Content-Encoding: rot13"),
    "broken cookie": head(b"Set-Cookie: \xff=\x01; Domain=[; Expires=never", status=b"400 Bad"),
    "broken character set": head(b"Content-Type: text/html; charset=\xff", status=b"400 Bad"),
    "page": answer("<html><title>Sign in</title>"),
    "bytes": answer(bytes(range(256))),
    "list": answer([1, 2]),
    "text": answer('"run"'),
    "empty": answer(b""),
    "no id": answer({}),
}

"""Bodies on the wire: a request's parameters as JSON, an answer's bytes within a limit."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

from airflow_jobs_provider.api.errors import InvalidRequestError
from airflow_jobs_provider.api.problems import TOO_DEEP, Problem, find_non_json

__all__ = [
    "ACCEPT_ENCODING",
    "BodyDecodeError",
    "BodyTooLargeError",
    "decode_body",
    "encode_json",
    "encode_query",
    "iter_decoded",
]

# Nothing else is decoded, so nothing else is asked for.
ACCEPT_ENCODING = "gzip"
# Bytes that are unpacked at once, and that come of it at the most: what is left over is copied.
_PART_BYTES = 64 * 1024
_UNPACKED_BYTES = 1024 * 1024


class BodyTooLargeError(Exception):
    """The body is longer than its limit."""


class BodyDecodeError(Exception):
    """The body is not what its Content-Encoding says, or that is one that nobody asked for."""


def encode_json(call: str, parameters: Mapping[str, Any]) -> bytes:
    """Return a request's parameters as JSON.

    :param call: the endpoint, for the error.
    :param parameters: what is sent.
    :raises InvalidRequestError: JSON cannot express them: NaN, a set, bytes, a value that holds
        itself.
    """
    problems: list[Problem]
    try:
        return json.dumps(parameters, allow_nan=False).encode()
    except RecursionError:
        problems = [TOO_DEEP]
    except (TypeError, ValueError):
        problems = find_non_json(parameters) or [TOO_DEEP]
    # Raised here, so that the error shows no frames of the json module.
    raise InvalidRequestError(call, problems)


def encode_query(call: str, parameters: Mapping[str, Any]) -> str:
    """Return a request's parameters as the query of a URL.

    :param call: the endpoint, for the error.
    :param parameters: what is sent.
    :raises InvalidRequestError: a value is no Unicode text.
    """
    try:
        return urlencode({name: _as_text(value) for name, value in parameters.items()})
    except UnicodeEncodeError:
        pass
    problem = Problem("the request", "must be Unicode text", "it has half a surrogate pair")
    raise InvalidRequestError(call, [problem])


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def decode_body(body: bytes, encoding: str, limit: int) -> bytes:
    """Return an answer's body without its Content-Encoding.

    :param body: the bytes as received.
    :param encoding: the Content-Encoding header; empty for none.
    :param limit: bytes that the result may have; no more memory is used, whatever the body holds.
    :raises BodyTooLargeError: the result would be longer.
    :raises BodyDecodeError: the body cannot be decoded.
    """
    if _is_plain(encoding):
        if len(body) > limit:
            raise BodyTooLargeError
        return body
    view = memoryview(body)
    parts = (view[start : start + _PART_BYTES] for start in range(0, len(body), _PART_BYTES))
    return b"".join(iter_decoded(parts, encoding, limit))


def iter_decoded(parts: Iterable[bytes | memoryview], encoding: str, limit: int) -> Iterator[bytes]:
    """Yield an answer's body without its Content-Encoding, as it arrives.

    :param parts: the bytes as received.
    :param encoding: as for :func:`decoded`, likewise the limit and what is raised.
    :param limit: bytes that all of it may have.
    """
    size = 0
    for part in parts if _is_plain(encoding) else _unpacked(parts, encoding):
        size += len(part)
        if size > limit:
            raise BodyTooLargeError
        yield bytes(part)


def _is_plain(encoding: str) -> bool:
    return encoding.strip().lower() in ("", "identity")


def _unpacked(parts: Iterable[bytes | memoryview], encoding: str) -> Iterator[bytes]:
    kind = encoding.strip().lower()
    if kind not in ("gzip", "x-gzip", "deflate"):
        raise BodyDecodeError(f"it is encoded as {kind!r}")
    unpacker: Any = None
    for part in parts:
        left = bytes(part)
        while True:
            if unpacker is None or unpacker.eof:
                if not left:
                    break
                # gzip or zlib, by its first bytes
                unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
            try:
                unpacked = unpacker.decompress(left, _UNPACKED_BYTES)
            except zlib.error:
                raise BodyDecodeError(f"it is not {kind}") from None
            if unpacked:
                yield unpacked
            left = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
            # More may be held back by the limit alone.
            if not left and len(unpacked) < _UNPACKED_BYTES:
                break
    if unpacker is not None and not unpacker.eof:
        raise BodyDecodeError(f"its {kind} is cut off")

"""Encodes the parameters of requests, and decodes the bodies of responses within a limit."""

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

# The only encoding that is requested, since few others are decoded.
ACCEPT_ENCODING = "gzip"
# Compressed bytes that are decompressed at once, and the largest result of that.
_PART_BYTES = 64 * 1024
_UNPACKED_BYTES = 1024 * 1024


class BodyTooLargeError(Exception):
    """The decoded body exceeds its limit."""


class BodyDecodeError(Exception):
    """The body does not have its Content-Encoding, or that encoding is not supported."""


def encode_json(call: str, parameters: Mapping[str, Any]) -> bytes:
    """Return the parameters of a request as JSON.

    :param call: the endpoint, for the error.
    :param parameters: the parameters.
    :raises InvalidRequestError: JSON cannot express them, such as NaN, a set, or a value that
        contains itself.
    """
    problems: list[Problem]
    try:
        return json.dumps(parameters, allow_nan=False).encode()
    except RecursionError:
        problems = [TOO_DEEP]
    except (TypeError, ValueError):
        problems = find_non_json(parameters) or [TOO_DEEP]
    # Raised here, so that the traceback has no frames of the json module.
    raise InvalidRequestError(call, problems)


def encode_query(call: str, parameters: Mapping[str, Any]) -> str:
    """Return the parameters of a request as the query of a URL.

    :param call: the endpoint, for the error.
    :param parameters: the parameters.
    :raises InvalidRequestError: a value is not valid Unicode.
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
    """Return the body of a response without its Content-Encoding.

    :param body: the bytes as received.
    :param encoding: the Content-Encoding header; empty if there is none.
    :param limit: largest result in bytes; the function uses no more memory.
    :raises BodyTooLargeError: the result exceeds the limit.
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
    """Yield the body of a response without its Content-Encoding, chunk by chunk.

    :param parts: the chunks as received.
    :param encoding: the Content-Encoding header; empty if there is none.
    :param limit: largest result in bytes.
    :raises BodyTooLargeError: the result exceeds the limit.
    :raises BodyDecodeError: the body cannot be decoded.
    """
    size = 0
    for part in parts if _is_plain(encoding) else _decompressed(parts, encoding):
        size += len(part)
        if size > limit:
            raise BodyTooLargeError
        yield bytes(part)


def _is_plain(encoding: str) -> bool:
    return encoding.strip().lower() in ("", "identity")


def _decompressed(parts: Iterable[bytes | memoryview], encoding: str) -> Iterator[bytes]:
    kind = encoding.strip().lower()
    if kind not in ("gzip", "x-gzip", "deflate"):
        raise BodyDecodeError(f"it is encoded as {kind!r}")
    decompressor: Any = None
    for part in parts:
        left = bytes(part)
        while True:
            if decompressor is None or decompressor.eof:
                if not left:
                    break
                # Detects gzip or zlib by the first bytes.
                decompressor = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
            try:
                unpacked = decompressor.decompress(left, _UNPACKED_BYTES)
            except zlib.error:
                raise BodyDecodeError(f"it is not {kind}") from None
            if unpacked:
                yield unpacked
            left = decompressor.unused_data if decompressor.eof else decompressor.unconsumed_tail
            # A full chunk may mean that more is left inside the decompressor.
            if not left and len(unpacked) < _UNPACKED_BYTES:
                break
    if decompressor is not None and not decompressor.eof:
        raise BodyDecodeError(f"its {kind} is cut off")

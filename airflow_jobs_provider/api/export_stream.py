"""Incremental parser for the response of ``runs/export``, since exported notebooks may be large.

The response is ``{"views": [{"content": "...", "name": "...", "type": "..."}]}``. A content is
yielded in parts. All other values are small, and the json module parses them. General incremental
JSON parsers yield a text only when it is complete.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, cast

from airflow_jobs_provider.api.responses import InvalidResponseError, NotJSONError, parse_view

__all__ = ["ViewEvent", "iter_views"]

#: A part of a view's content, or, after the last part, the view's other fields.
ViewEvent = str | dict[str, Any]

# The part of a text that ends with a complete character: neither inside an escape nor between the
# two escapes of a surrogate pair.
_COMPLETE_CHARACTERS = re.compile(
    r"""[^"\\]*+(?:\\(?:
        [^u]
        | u(?![dD][89abAB])[0-9a-fA-F]{4}
        | u[dD][89abAB][0-9a-fA-F]{2}(?:\\u[0-9a-fA-F]{4} | (?=[^\\]) | (?=\\[^u]))
    )[^"\\]*+)*+""",
    re.VERBOSE | re.DOTALL,
)
_LONGEST_ESCAPE = len(r"\ud83d\ude00")
_SPACE = re.compile(r"[ \t\n\r]*+")
# Longest value in characters that the json module parses, such as a name.
_LONGEST_VALUE = 1024 * 1024


class _JSONReader:
    """Reads JSON tokens from chunks of bytes; ``buffer`` is the text that is not consumed yet."""

    def __init__(self, parts: Iterable[bytes]) -> None:
        self._parts = iter(parts)
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._decode_json = json.JSONDecoder().raw_decode
        self._has_ended = False
        self.buffer = ""

    def read_more(self) -> bool:
        """Append the next chunk to the buffer; return False at the end."""
        while not self._has_ended:
            part = next(self._parts, None)
            self._has_ended = part is None
            try:
                text = self._decoder.decode(part or b"", final=self._has_ended)
            except UnicodeDecodeError:
                raise NotJSONError from None
            if text:
                self.buffer += text
                return True
        return False

    def consume(self, length: int) -> str:
        """Remove characters from the buffer and return them."""
        consumed, self.buffer = self.buffer[:length], self.buffer[length:]
        return consumed

    def next_character(self) -> str:
        """Return the next character except white space without consuming it; "" at the end."""
        while True:
            self.consume(_end(_SPACE, self.buffer))
            if self.buffer or not self.read_more():
                return self.buffer[:1]

    def expect(self, *expected: str) -> str:
        """Consume the next character except white space, which must be one of these."""
        if (found := self.next_character()) not in expected or not found:
            raise NotJSONError
        return self.consume(1)

    def value(self) -> Any:
        """Consume a complete value."""
        self.next_character()
        while True:
            try:
                value, end = self._decode_json(self.buffer)
            except json.JSONDecodeError:
                end = len(self.buffer)
            except RecursionError:
                raise InvalidResponseError("the JSON is nested too deeply") from None
            except ValueError:
                raise InvalidResponseError("a number has too many digits") from None
            else:
                # A number may continue in the next chunk.
                if self.buffer[end:].lstrip("0123456789+-.eE") or not self.read_more():
                    self.consume(end)
                    return value
                continue
            if end > _LONGEST_VALUE:
                raise InvalidResponseError("a value beside the contents is no JSON, or too long")
            if not self.read_more():
                raise NotJSONError

    def text_in_parts(self) -> Iterator[str]:
        """Consume a text and yield it in parts."""
        self.expect('"')
        while True:
            end = _end(_COMPLETE_CHARACTERS, self.buffer)
            is_last = self.buffer[end : end + 1] == '"'
            if end:
                try:
                    yield json.loads(f'"{self.buffer[:end]}"')
                except json.JSONDecodeError:
                    raise NotJSONError from None
                self.consume(end)
            if is_last:
                self.consume(1)
                return
            if len(self.buffer) >= _LONGEST_ESCAPE or not self.read_more():
                raise NotJSONError

    def object_keys(self) -> Iterator[str]:
        """Consume an object: yield each key; the caller consumes the value."""
        self.expect("{")
        if self.next_character() == "}":
            self.consume(1)
            return
        while True:
            if self.next_character() != '"':
                raise NotJSONError
            key: str = self.value()
            self.expect(":")
            yield key
            if self.expect(",", "}") == "}":
                return


def iter_views(parts: Iterable[bytes]) -> Iterator[ViewEvent]:
    """Yield the views of ``runs/export``: the parts of a content, then the view's other fields.

    A field that is null is left out. A view without content has no parts.

    :param parts: the chunks of the decoded body.
    :raises NotJSONError: the body is not JSON.
    :raises InvalidResponseError: the body is not an object, or a field has another type than the
        reference's.
    """
    reader = _JSONReader(parts)
    if not reader.next_character():
        return  # an empty body is a success without views
    if reader.next_character() != "{":
        reader.value()
        raise InvalidResponseError("the JSON is not an object")
    for key in reader.object_keys():
        if key == "views":
            yield from _views(reader)
        else:
            reader.value()
    if reader.next_character():
        raise NotJSONError


def _views(reader: _JSONReader) -> Iterator[ViewEvent]:
    if reader.next_character() != "[":
        if reader.value() is not None:
            raise InvalidResponseError("is not a list", ("views",))
        return
    reader.expect("[")
    if reader.next_character() == "]":
        reader.consume(1)
        return
    place = 0
    while True:
        try:
            yield from _view(reader)
        except InvalidResponseError as error:
            raise error.inside(place).inside("views") from None
        if reader.expect(",", "]") == "]":
            return
        place += 1


def _view(reader: _JSONReader) -> Iterator[ViewEvent]:
    if reader.next_character() != "{":
        reader.value()
        raise InvalidResponseError("is not an object")
    fields: dict[str, Any] = {}
    has_content = False
    for key in reader.object_keys():
        if key == "content" and reader.next_character() == '"':
            if has_content:
                raise InvalidResponseError("comes twice", ("content",))
            has_content = True
            yield from reader.text_in_parts()
        elif (value := reader.value()) is not None:
            fields[key] = value
    yield cast("dict[str, Any]", parse_view(fields))


def _end(pattern: re.Pattern[str], text: str) -> int:
    """Return the end of a match at the beginning of a text; 0 if there is none."""
    match = pattern.match(text)
    return match.end() if match else 0

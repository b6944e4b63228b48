"""The answer of ``runs/export``, read as it arrives: notebooks' pages may be large.

The answer has one shape, ``{"views": [{"content": "...", "name": "...", "type": "..."}]}``, whose
size is that of the contents. A content is given in parts; everything else is small and is parsed
whole by the json module. (A general incremental parser gives a text only when it is whole.)
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

# A text as far as it consists of whole characters: no escape is cut, nor a pair of them that stands
# for one character.
_WHOLE_CHARACTERS = re.compile(
    r"""[^"\\]*+(?:\\(?:
        [^u]
        | u(?![dD][89abAB])[0-9a-fA-F]{4}
        | u[dD][89abAB][0-9a-fA-F]{2}(?:\\u[0-9a-fA-F]{4} | (?=[^\\]) | (?=\\[^u]))
    )[^"\\]*+)*+""",
    re.VERBOSE | re.DOTALL,
)
_LONGEST_ESCAPE = len(r"\ud83d\ude00")
_SPACE = re.compile(r"[ \t\n\r]*+")
# Characters of a value that is parsed whole, such as a name.
_LONGEST_VALUE = 1024 * 1024


class _Text:
    """The characters of an answer that have not been read yet, as many as were needed so far."""

    def __init__(self, parts: Iterable[bytes]) -> None:
        self._parts = iter(parts)
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._decode_json = json.JSONDecoder().raw_decode
        self._has_ended = False
        self.buffer = ""

    def read_more(self) -> bool:
        """Take another part of the answer; False at its end."""
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

    def drop(self, length: int) -> str:
        """Return so many characters, and forget them."""
        dropped, self.buffer = self.buffer[:length], self.buffer[length:]
        return dropped

    def next_character(self) -> str:
        """Return the next character that is no white space, without reading it; "" at the end."""
        while True:
            self.drop(_end(_SPACE, self.buffer))
            if self.buffer or not self.read_more():
                return self.buffer[:1]

    def take(self, *expected: str) -> str:
        """Read the next character that is no white space, one of these."""
        if (found := self.next_character()) not in expected or not found:
            raise NotJSONError
        return self.drop(1)

    def value(self) -> Any:
        """Read a value, whole."""
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
                # A number may go on with what has not arrived yet.
                if self.buffer[end:].lstrip("0123456789+-.eE") or not self.read_more():
                    self.drop(end)
                    return value
                continue
            if end > _LONGEST_VALUE:
                raise InvalidResponseError("a value beside the contents is no JSON, or too long")
            if not self.read_more():
                raise NotJSONError

    def text_in_parts(self) -> Iterator[str]:
        """Read a text, and yield it part by part."""
        self.take('"')
        while True:
            end = _end(_WHOLE_CHARACTERS, self.buffer)
            is_last = self.buffer[end : end + 1] == '"'
            if end:
                try:
                    yield json.loads(f'"{self.buffer[:end]}"')
                except json.JSONDecodeError:
                    raise NotJSONError from None
                self.drop(end)
            if is_last:
                self.drop(1)
                return
            if len(self.buffer) >= _LONGEST_ESCAPE or not self.read_more():
                raise NotJSONError

    def object_keys(self) -> Iterator[str]:
        """Read an object: yield each key, whose value the caller reads then."""
        self.take("{")
        if self.next_character() == "}":
            self.drop(1)
            return
        while True:
            if self.next_character() != '"':
                raise NotJSONError
            key: str = self.value()
            self.take(":")
            yield key
            if self.take(",", "}") == "}":
                return


def iter_views(parts: Iterable[bytes]) -> Iterator[ViewEvent]:
    """Read the views of ``runs/export``: parts of a content, then the view's other fields.

    A field that is null is left out; a view without content has no parts.

    :param parts: the answer's body, decoded.
    :raises NotJSONError: it is not JSON.
    :raises InvalidResponseError: it is JSON, but not an object, or a part of it has another type
        than the reference gives it.
    """
    text = _Text(parts)
    if not text.next_character():
        return  # as of other endpoints: success without a body
    if text.next_character() != "{":
        text.value()
        raise InvalidResponseError("the JSON is not an object")
    for key in text.object_keys():
        if key == "views":
            yield from _views(text)
        else:
            text.value()
    if text.next_character():
        raise NotJSONError


def _views(text: _Text) -> Iterator[ViewEvent]:
    if text.next_character() != "[":
        if text.value() is not None:
            raise InvalidResponseError("is not a list", ("views",))
        return
    text.take("[")
    if text.next_character() == "]":
        text.drop(1)
        return
    place = 0
    while True:
        try:
            yield from _view(text)
        except InvalidResponseError as error:
            raise error.inside(place).inside("views") from None
        if text.take(",", "]") == "]":
            return
        place += 1


def _view(text: _Text) -> Iterator[ViewEvent]:
    if text.next_character() != "{":
        text.value()
        raise InvalidResponseError("is not an object")
    fields: dict[str, Any] = {}
    has_content = False
    for key in text.object_keys():
        if key == "content" and text.next_character() == '"':
            if has_content:
                raise InvalidResponseError("comes twice", ("content",))
            has_content = True
            yield from text.text_in_parts()
        elif (value := text.value()) is not None:
            fields[key] = value
    yield cast("dict[str, Any]", parse_view(fields))


def _end(pattern: re.Pattern[str], text: str) -> int:
    """Return how far a pattern that always fits reaches."""
    match = pattern.match(text)
    return match.end() if match else 0

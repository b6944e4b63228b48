"""Parses a large JSON object piece by piece, so that other threads run in between.

``json.loads`` holds the GIL until it has parsed the whole text. A page of 1,000 runs, 1 MB, takes 6
ms and makes 10,000 objects, which starts garbage collections. An event loop in another thread
stands still for so long. Here each item of a list is parsed by itself, and may be replaced by the
part of it that is needed, before the next one is parsed.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

__all__ = ["parse_large_object"]

# Other threads get the GIL each time so many characters have been parsed: 0.4 ms.
PIECE_CHARACTERS = 64 * 1024
# A thread that waits for the GIL gets it while this one sleeps. Otherwise it would wait for
# sys.getswitchinterval(), which is 5 ms, each time that it has released it. With a shorter pause
# this thread may take the GIL again before the other one wakes up.
PAUSE_SECONDS = 1e-4

_parse_value = json.JSONDecoder().raw_decode
_skip_whitespace = re.compile(r"[ \t\n\r]*").match


class _UnexpectedError(Exception):
    """The text is not what this module parses: not JSON, or no object."""


def parse_large_object(text: str, item_hook: Callable[[Any], Any] | None = None) -> Any:
    """Return what ``json.loads`` returns, but let other threads run in between.

    :param text: the JSON text. If it is not an object, ``json.loads`` parses it.
    :param item_hook: called with each item of each list that is a value of the object. What it
        returns takes the place of the item. Default None: the items stay as they are.
    :raises ValueError: the text is not JSON, or has a number with too many digits.
    :raises RecursionError: the JSON is nested too deeply.
    """
    try:
        return _Parser(text, item_hook).parse()
    except (_UnexpectedError, json.JSONDecodeError):
        return json.loads(text)


class _Parser:
    """Parses one text.

    :param text: the text.
    :param item_hook: see :func:`parse_large_object`.
    """

    def __init__(self, text: str, item_hook: Callable[[Any], Any] | None) -> None:
        self._text = text
        self._item_hook = item_hook
        self._place = 0
        self._paused_at = 0

    def parse(self) -> dict[str, Any]:
        """Return the object that the text consists of."""
        result: dict[str, Any] = {}
        self._require("{")
        if not self._has_next("}"):
            while True:
                if self._next_character() != '"':
                    raise _UnexpectedError
                name = self._value()
                self._require(":")
                result[name] = self._list() if self._has_next("[") else self._value()
                if not self._has_next(","):
                    break
            self._require("}")
        if self._next_character():
            raise _UnexpectedError
        return result

    def _list(self) -> list[Any]:
        items: list[Any] = []
        if self._has_next("]"):
            return items
        hook = self._item_hook
        while True:
            item = self._value()
            items.append(item if hook is None else hook(item))
            del item
            if not self._has_next(","):
                break
        self._require("]")
        return items

    def _value(self) -> Any:
        """Parse the next value."""
        self._next_character()
        value, self._place = _parse_value(self._text, self._place)
        if self._place - self._paused_at >= PIECE_CHARACTERS:
            self._paused_at = self._place
            time.sleep(PAUSE_SECONDS)
        return value

    def _next_character(self) -> str:
        """Skip whitespace; return the character after it, or nothing at the end."""
        found = _skip_whitespace(self._text, self._place)
        assert found is not None
        self._place = found.end()
        return self._text[self._place : self._place + 1]

    def _has_next(self, character: str) -> bool:
        """Skip this character if it is the next one; return whether it was."""
        is_next = self._next_character() == character
        self._place += is_next
        return is_next

    def _require(self, character: str) -> None:
        if not self._has_next(character):
            raise _UnexpectedError

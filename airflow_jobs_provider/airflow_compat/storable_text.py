"""Text that Airflow can pass on and store.

A text of the service may have characters that JSON can express and others cannot. Airflow passes
XComs and events between its processes as UTF-8, which has no half of a surrogate pair. PostgreSQL
stores them as JSONB, which has no NUL either. A worker fails its task then, although the run has
succeeded. The triggerer ends, and so does each one that takes the trigger over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from airflow_jobs_provider.api.workflows.progress import Log

__all__ = ["replace_unstorable", "storable_output"]

T = TypeVar("T")

_NOT_STORABLE = r"[\x00\ud800-\udfff]"
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def replace_unstorable(value: T) -> T:
    """Return a value with U+FFFD in place of each character that Airflow may be unable to store.

    :param value: a text, or what JSON consists of.
    :returns: the same object if it has no such character.
    """
    if _is_storable(value):
        return value
    replaced: T = _replaced(value)
    return replaced


def storable_output(value: T, *, name: str, log: Log) -> T:
    """Return what :func:`replace_unstorable` returns; log a warning if that is another value.

    :param value: what a run has returned.
    :param name: what it is called in the log.
    :param log: the task's log.
    """
    storable = replace_unstorable(value)
    if storable is not value:
        log.warning(
            "%s has NUL characters or halves of surrogate pairs, which Airflow cannot store. "
            "They were replaced by U+FFFD.",
            name,
        )
    return storable


def _is_storable(value: Any) -> bool:
    if isinstance(value, str):
        # Both are fast, also for some megabytes.
        return "\0" not in value and (value.isascii() or _has_utf8(value))
    if isinstance(value, Mapping):
        return all(map(_is_storable, value)) and all(map(_is_storable, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_is_storable, value))
    return True


def _has_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _replaced(value: Any) -> Any:
    if isinstance(value, str):
        return re.sub(_NOT_STORABLE, _REPLACEMENT, value)
    if isinstance(value, Mapping):
        return {_replaced(key): _replaced(item) for key, item in value.items()}
    if isinstance(value, list):
        # Also of a class that does not show its items in a log.
        return type(value)(map(_replaced, value))
    if isinstance(value, tuple):
        return [_replaced(item) for item in value]
    return value

"""Quartz's cron expressions ("CronSchedule"): seconds first, and a year if need be."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["cron_problem"]

_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")


@dataclass(frozen=True, slots=True)
class _Field:
    """One field of an expression.

    :ivar low: its least value, which also is that of the first of ``names``.
    :ivar special: what else may stand in it, as a regular expression.
    """

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()
    special: str = r"(?!)"

    def value_of(self, text: str) -> int | None:
        """Return the value of a number or a name; None if it is none of this field's."""
        if text in self.names:
            return self.low + self.names.index(text)
        if not re.fullmatch(r"[0-9]{1,4}", text):
            return None
        return int(text) if self.low <= int(text) <= self.high else None

    def allows(self, element: str) -> bool:
        """Return whether one element of the field's list is in order."""
        if element == "?" or re.fullmatch(self.special, element):
            return element != "?" or self.name.startswith("day")
        values, has_step, step = element.partition("/")
        if has_step and not re.fullmatch(r"[1-9][0-9]{0,3}", step):
            return False
        if values == "*" or (has_step and not values):
            return True
        ends = values.split("-")
        return len(ends) <= 2 and all(self.value_of(end) is not None for end in ends)


_DAY = r"([1-7]|SUN|MON|TUE|WED|THU|FRI|SAT)"
_FIELDS = (
    _Field("seconds", 0, 59),
    _Field("minutes", 0, 59),
    _Field("hours", 0, 23),
    _Field("day of month", 1, 31, special=r"L(-[0-9]{1,2})?W?|([1-9]|[12][0-9]|3[01])W"),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of week", 1, 7, _DAYS, special=rf"L|{_DAY}L|{_DAY}#[1-5]"),
    _Field("year", 1970, 2199),
)
_DAY_OF_MONTH, _DAY_OF_WEEK = 3, 5
_FEWEST = len(_FIELDS) - 1


def cron_problem(expression: str) -> str | None:
    """Return what is wrong with an expression; None if nothing is."""
    texts = expression.upper().split()
    if not _FEWEST <= len(texts) <= len(_FIELDS):
        return (
            f"it must have {_FEWEST} fields, or {len(_FIELDS)} with the year; it has {len(texts)}"
        )
    for field, text in zip(_FIELDS, texts, strict=False):
        for element in text.split(","):
            if not field.allows(element):
                return f"{element[:30]!r} cannot stand in the field {field.name}"
    if (texts[_DAY_OF_MONTH] == "?") == (texts[_DAY_OF_WEEK] == "?"):
        return "exactly one of day of month and day of week must be '?'"
    return None

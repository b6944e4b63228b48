"""Ids of runs and jobs: the one rule of what counts as an id."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["MAX_ID", "as_id", "exactly_one_of", "read_id"]

MAX_ID = 2**63 - 1
_DIGITS = re.compile(r"[0-9]{1,19}", re.ASCII)


def as_id(value: Any) -> int | None:
    """Return an id as a number; None where the value is no id.

    An id is a whole number from 1 to 2**63 - 1, or text of its decimal digits and nothing else.
    What Python's ``int()`` takes beyond that (true, 1.5, ``"1_000"``, digits of other scripts) is
    no id: it would name another run or job than the one meant.
    """
    if isinstance(value, str):
        if not _DIGITS.fullmatch(value):
            return None
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return int(value) if 1 <= value <= MAX_ID else None


def read_id(name: str, value: Any) -> int:
    """Return an id that a user gave.

    :param name: name of the argument.
    :param value: the argument: a number, or text.
    :raises InvalidRequest: it is no id.
    """
    from airflow_jobs_provider.api.errors import InvalidRequest
    from airflow_jobs_provider.api.problems import Problem, what_it_is

    number = as_id(value)
    if number is None:
        rule = f"must be a whole number from 1 to {MAX_ID}, in decimal digits"
        raise InvalidRequest("", [Problem(name, rule, what_it_is(value))])
    return number


def exactly_one_of(**given: Any) -> None:
    """Check that one of several arguments is given; None and empty text are not given.

    :raises InvalidRequest: none is, or more than one.
    """
    from airflow_jobs_provider.api.errors import InvalidRequest
    from airflow_jobs_provider.api.problems import Problem

    count = sum(value not in (None, "") for value in given.values())
    if count != 1:
        *names, last = given
        what = f"exactly one of {', '.join(names)} and {last}"
        found = f"{count or 'none'} {'is' if count == 0 else 'are'} given"
        raise InvalidRequest("", [Problem(what, "must be given", found)])

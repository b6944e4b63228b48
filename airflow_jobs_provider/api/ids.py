"""Ids of jobs, runs and repairs: 64-bit whole numbers above 0 (reference: "job_id", "run_id")."""

from __future__ import annotations

import re
from typing import Any

from airflow_jobs_provider.api.errors import InvalidRequestError
from airflow_jobs_provider.api.problems import Problem, describe_value

__all__ = ["MAX_ID", "parse_id", "require_exactly_one", "require_id"]

MAX_ID = 2**63 - 1
_DIGITS = re.compile(r"[1-9][0-9]{0,18}")


def parse_id(value: object) -> int | None:
    """Return an id that is a whole number or its decimal text; None where it is neither.

    Not ids are booleans, fractions, signs, spaces, underscores, leading zeros, digits that are not
    ASCII, 0 and what is beyond 64 bits.

    :param value: what an answer holds, or what a template rendered.
    """
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_ID:
        return int(value)
    return None


def require_id(name: str, value: Any) -> int:
    """Return an id that a user gave.

    :param name: name of the argument.
    :param value: the argument: a number, or text.
    :raises InvalidRequestError: it is no id.
    """
    number = parse_id(value)
    if number is None:
        rule = f"must be a whole number from 1 to {MAX_ID}, in decimal digits"
        raise InvalidRequestError("", [Problem(name, rule, describe_value(value))])
    return number


def require_exactly_one(**given: Any) -> None:
    """Check that one of several arguments is given; None and empty text are not given.

    :raises InvalidRequestError: none is, or more than one.
    """
    count = sum(value not in (None, "") for value in given.values())
    if count != 1:
        *names, last = given
        what = f"exactly one of {', '.join(names)} and {last}"
        found = f"{count or 'none'} {'is' if count == 0 else 'are'} given"
        raise InvalidRequestError("", [Problem(what, "must be given", found)])

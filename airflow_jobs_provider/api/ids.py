"""Ids of jobs, runs and repairs: positive 64-bit integers (reference: "job_id", "run_id")."""

from __future__ import annotations

import re
from typing import Any

from airflow_jobs_provider.api.errors import InvalidRequestError
from airflow_jobs_provider.api.problems import Problem, describe_value

__all__ = ["MAX_ID", "parse_id", "require_exactly_one", "require_id"]

MAX_ID = 2**63 - 1
_DIGITS = re.compile(r"[1-9][0-9]{0,18}")


def parse_id(value: object) -> int | None:
    """Return an integer or decimal text as an id; None if it is not one.

    Booleans, fractions, signs, spaces, underscores, leading zeros, digits other than ASCII, 0 and
    numbers of more than 64 bits are not ids.

    :param value: a value of a response, or of a rendered template.
    """
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_ID:
        return int(value)
    return None


def require_id(name: str, value: Any) -> int:
    """Return an argument as an id.

    :param name: name of the argument.
    :param value: the argument, an integer or decimal text.
    :raises InvalidRequestError: it is not an id.
    """
    number = parse_id(value)
    if number is None:
        rule = f"must be a whole number from 1 to {MAX_ID}, in decimal digits"
        raise InvalidRequestError("", [Problem(name, rule, describe_value(value))])
    return number


def require_exactly_one(**given: Any) -> None:
    """Check that exactly one of several arguments is given; None and empty text do not count.

    :param given: the arguments by name.
    :raises InvalidRequestError: none or several are given.
    """
    count = sum(value not in (None, "") for value in given.values())
    if count != 1:
        *names, last = given
        what = f"exactly one of {', '.join(names)} and {last}"
        found = f"{count or 'none'} {'is' if count == 0 else 'are'} given"
        raise InvalidRequestError("", [Problem(what, "must be given", found)])

"""Ids of jobs, runs and repairs: 64-bit whole numbers above 0 (reference: "job_id", "run_id")."""

from __future__ import annotations

import re

__all__ = ["MAX_ID", "read_id"]

MAX_ID = 2**63 - 1
_DIGITS = re.compile(r"[1-9][0-9]{0,18}")


def read_id(value: object) -> int | None:
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

"""Tracebacks as Airflow 3.0 logs them."""

from __future__ import annotations

import traceback
from pathlib import Path

__all__ = ["shown_with_locals"]


def shown_with_locals(error: BaseException) -> str:
    """Return a traceback as Airflow 3.0 logs it, with the local variables of each frame.

    The frames of the tests are left out: they hold what must not be shown.
    """
    here = Path(__file__).parents[1]
    one = traceback.TracebackException.from_exception(error, capture_locals=True, limit=None)
    to_see, seen = [one], set()
    while to_see:
        part = to_see.pop()
        seen.add(id(part))
        frames = [frame for frame in part.stack if here not in Path(frame.filename).parents]
        part.stack = traceback.StackSummary.from_list(frames)
        others = (part.__cause__, part.__context__)
        to_see += [other for other in others if other is not None and id(other) not in seen]
        part.__suppress_context__ = False  # what a tool that ignores "from None" would show
    return "".join(one.format())

"""What differs from the official provider, for each class and argument: a table of data.

docs/migrating.md shows these tables; a test compares them.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DIFFERENCES", "Difference"]


@dataclass(frozen=True)
class Difference:
    """Something that differs.

    :ivar names: the classes.
    :ivar argument: the constructor's argument; None for the class as a whole.
    :ivar how: what differs.
    :ivar why: the reason.
    :ivar action: what a user does about it.
    """

    names: tuple[str, ...]
    argument: str | None
    how: str
    why: str
    action: str

    @property
    def note(self) -> str:
        """What the migrate tool says about it."""
        return f"{self.how}. {self.action}."


_RUNS = ("DatabricksSubmitRunOperator", "DatabricksRunNowOperator")

DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        _RUNS,
        None,
        "XCom return_value is the run's output",
        "the next task can use the notebook's exit value",
        "Nothing, unless a task reads return_value of this one, which was None",
    ),
)

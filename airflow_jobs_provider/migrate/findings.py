"""What the tool has found in one file."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

__all__ = ["FileResult", "Finding", "Kind"]


class Kind(Enum):
    """The kinds of findings, in the order of the report; the value is the word for it."""

    MOVES = "moves"
    STAYS = "stays"
    DIFFERS = "differs"
    CHECK = "check"
    ERROR = "error"


@dataclass(frozen=True, order=True)
class Finding:
    """A finding.

    :ivar line: the line in the file as it was; 0 for the file as a whole.
    :ivar kind: what kind of finding it is.
    :ivar text: what was found, for the report.
    """

    line: int
    kind: Kind = field(compare=False)
    text: str


@dataclass(frozen=True)
class FileResult:
    """What the tool would write, and what it has found.

    :ivar before: the file as it was.
    :ivar after: the file with its import statements rewritten; equal where nothing moves.
    :ivar findings: what was found, in the order of the lines.
    """

    before: bytes
    after: bytes
    findings: tuple[Finding, ...] = ()

    @property
    def has_changed(self) -> bool:
        """Whether the file is to be rewritten."""
        return self.before != self.after

    @property
    def has_failed(self) -> bool:
        """Whether the file could not be examined."""
        return any(finding.kind is Kind.ERROR for finding in self.findings)

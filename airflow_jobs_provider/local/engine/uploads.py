"""Files that clients write block by block."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

from airflow_jobs_provider.local.errors import ApiError, invalid

__all__ = ["PARTIAL_SUFFIX", "Uploads", "partial_of"]

PARTIAL_SUFFIX = ".partial"
_MAX_UPLOADS = 1000


@dataclass(slots=True)
class Uploads:
    """The files that clients write block by block: those that are not closed yet."""

    _open: dict[int, tuple[Path, Path]] = field(default_factory=dict)
    _next: int = 1

    def create(self, file: Path) -> int:
        """Open a file, and return the handle to write to it."""
        if len(self._open) >= _MAX_UPLOADS:
            raise invalid(f"{_MAX_UPLOADS} handles are open; close some")
        partial = partial_of(file)
        partial.touch(mode=0o600)
        handle, self._next = self._next, self._next + 1
        self._open[handle] = (partial, file)
        return handle

    def add(self, handle: int, block: bytes) -> None:
        """Append a block to an open file."""
        partial, _ = self._of(handle)
        with partial.open("ab") as opened:
            opened.write(block)

    def close(self, handle: int) -> None:
        """Close a file; readers see it from now on."""
        partial, file = self._of(handle)
        del self._open[handle]
        partial.replace(file)

    def discard(self) -> None:
        """Remove what was not closed."""
        for partial, _ in self._open.values():
            partial.unlink(missing_ok=True)
        self._open.clear()

    def _of(self, handle: int) -> tuple[Path, Path]:
        if handle not in self._open:
            raise ApiError(
                HTTPStatus.NOT_FOUND, "RESOURCE_DOES_NOT_EXIST", f"No handle {handle} is open"
            )
        return self._open[handle]


def partial_of(file: Path) -> Path:
    """Return the file that is written before it gets its name: readers see a whole file only."""
    return file.with_name(f".{secrets.token_hex(8)}{PARTIAL_SUFFIX}")

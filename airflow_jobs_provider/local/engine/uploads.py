"""Files that clients store: a reader sees a whole file only, the one before or the new one."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

from airflow_jobs_provider.local.errors import ApiError, invalid

__all__ = ["PARTIAL_SUFFIX", "PartialFiles", "Uploads"]

PARTIAL_SUFFIX = ".partial"
_MAX_UPLOADS = 1000


class PartialFiles:
    """Files that get their names when they are complete; may be used from any thread.

    Each has a note in a folder until then. With the notes the next workspace removes what a killed
    one has left, without searching all folders of the root.

    :param notes: the folder of the notes.
    """

    def __init__(self, notes: Path) -> None:
        self._notes = notes
        notes.mkdir(exist_ok=True)

    def new(self, file: Path) -> Path:
        """Return the path beside a file that is written until the file is complete."""
        name = secrets.token_hex(8)
        partial = file.with_name(f".{name}{PARTIAL_SUFFIX}")
        (self._notes / name).write_bytes(os.fsencode(partial))
        return partial

    def complete(self, partial: Path, file: Path) -> None:
        """Give a partial file its name."""
        partial.replace(file)
        self._note_of(partial).unlink(missing_ok=True)

    def discard(self, partial: Path) -> None:
        """Remove a partial file; does nothing if it was completed."""
        partial.unlink(missing_ok=True)
        self._note_of(partial).unlink(missing_ok=True)

    def write(self, file: Path, content: bytes) -> None:
        """Write a file, or replace it."""
        partial = self.new(file)
        try:
            partial.write_bytes(content)
            self.complete(partial, file)
        finally:
            self.discard(partial)

    def discard_all(self) -> None:
        """Remove the partial files that an earlier workspace has left."""
        for note in list(self._notes.iterdir()):
            partial = Path(os.fsdecode(note.read_bytes()))
            if partial.name == f".{note.name}{PARTIAL_SUFFIX}":
                # Its folder may be gone, or closed to us.
                with suppress(OSError):
                    partial.unlink()
            note.unlink()

    def _note_of(self, partial: Path) -> Path:
        return self._notes / partial.name.removeprefix(".").removesuffix(PARTIAL_SUFFIX)


@dataclass(slots=True)
class Uploads:
    """The files that clients write block by block: those that are not closed yet."""

    partial_files: PartialFiles
    _open: dict[int, tuple[Path, Path]] = field(default_factory=dict)
    _next: int = 1

    def create(self, file: Path) -> int:
        """Open a file, and return the handle to write to it."""
        if len(self._open) >= _MAX_UPLOADS:
            raise invalid(f"{_MAX_UPLOADS} handles are open; close some")
        partial = self.partial_files.new(file)
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
        self.partial_files.complete(partial, file)

    def discard(self) -> None:
        """Remove what was not closed."""
        for partial, _ in self._open.values():
            self.partial_files.discard(partial)
        self._open.clear()

    def _of(self, handle: int) -> tuple[Path, Path]:
        if handle not in self._open:
            raise ApiError(
                HTTPStatus.NOT_FOUND, "RESOURCE_DOES_NOT_EXIST", f"No handle {handle} is open"
            )
        return self._open[handle]

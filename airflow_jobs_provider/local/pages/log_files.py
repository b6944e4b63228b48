"""Reads the log of a process while it is written."""

from __future__ import annotations

import codecs
import os
from pathlib import Path

from airflow_jobs_provider.local.pages.render import SHOWN_CHARS

__all__ = ["LogFollower", "log_end"]

_STEP_BYTES = 64 * 1024


def log_end(file: Path) -> tuple[str, int]:
    """Return the last part of a log, and where the next part begins; nothing if there is no log."""
    try:
        with file.open("rb") as opened:
            size = opened.seek(0, os.SEEK_END)
            opened.seek(max(0, size - SHOWN_CHARS))
            data = opened.read()
    except OSError:
        return "", 0
    # What is cut in the middle of a character comes with the next part.
    text, used = codecs.utf_8_decode(data, "replace", False)
    return text, size - len(data) + used


class LogFollower:
    """Returns what is added to a log.

    :param file: the log; it may not exist yet.
    :param offset: how much of it is known, in bytes.
    """

    def __init__(self, file: Path, offset: int) -> None:
        self._file = file
        self.offset = offset
        self.is_new = False

    def read(self) -> str:
        """Return the next part of the log, empty if there is none.

        Sets ``is_new`` if the log is shorter than before: then the part begins a new log.
        """
        self.is_new = False
        try:
            with self._file.open("rb") as opened:
                size = opened.seek(0, os.SEEK_END)
                if size < self.offset:
                    self.offset, self.is_new = 0, True
                if size - self.offset > SHOWN_CHARS:
                    # A page does not show more than this.
                    self.offset, self.is_new = size - SHOWN_CHARS, True
                opened.seek(self.offset)
                data = opened.read(_STEP_BYTES)
        except OSError:
            return ""
        text, used = codecs.utf_8_decode(data, "replace", False)
        self.offset += used
        return text

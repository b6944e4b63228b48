"""A file with requests and responses, of bounded size."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import IO

__all__ = ["MAX_FILE_BYTES", "MAX_REFUSED", "Recording"]

_log = logging.getLogger(__name__)
_FILE = "requests.jsonl"
_OLDER_FILE = "requests.1.jsonl"
MAX_FILE_BYTES = 50_000_000
MAX_REFUSED = 1_000


class Recording:
    """The recording of a workspace: the last lines, in two files of up to 50 MB.

    A file that is full becomes ``requests.1.jsonl``, in place of the one before.

    :param folder: the folder of the files.
    :raises OSError: the folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._refused = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._file: IO[str] | None = self._open()

    def add(self, line: str) -> None:
        """Add a line. If the file cannot be written, nothing is recorded from then on."""
        if self._file is None:
            return
        try:
            self._file.write(line + "\n")
            self._file.flush()
            if self._file.tell() >= MAX_FILE_BYTES:
                self._file.close()
                (self._folder / _FILE).replace(self._folder / _OLDER_FILE)
                self._file = self._open()
        except OSError as error:
            # Not raised: the request was carried out, and its response must not be lost.
            _log.warning("Requests are no longer recorded: %s", error)
            self.close()

    def add_refused(self, line: str) -> None:
        """Add a request that was refused; the first 1,000 since the start only.

        Everybody on this machine can send one, and they would replace the others.
        """
        self._refused += 1
        if self._refused <= MAX_REFUSED:
            self.add(line)
        elif self._refused == MAX_REFUSED + 1:
            _log.warning(
                "%s requests were refused (401, 403): no more of them are recorded", MAX_REFUSED
            )

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            # It has been flushed, unless that failed.
            with suppress(OSError):
                self._file.close()
            self._file = None

    def _open(self) -> IO[str]:
        # Parameters and outputs are for its owner only.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        return os.fdopen(os.open(self._folder / _FILE, flags, 0o600), "a", encoding="utf-8")

"""The workspace's state folder: jobs, runs and executed notebooks."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from airflow_jobs_provider.local.paths import STATE_FOLDER

__all__ = ["SharedFolderError", "make_private"]

_log = logging.getLogger(__name__)
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class SharedFolderError(ValueError):
    """The folder cannot be kept from other users; the text says why."""


def make_private(state_dir: Path, root: Path) -> None:
    """Create the folder if needed; remove other users' permissions.

    So are the files in it, which an earlier workspace, or one who made the folder beforehand, may
    have left readable: executed notebooks and parameters may hold secrets.

    :raises SharedFolderError: the folder is used for something else, too.
    """
    if root.is_relative_to(state_dir):
        raise SharedFolderError(f"it holds the workspace's root {root}")
    if state_dir.is_relative_to(root) and state_dir.relative_to(root).parts[0] != STATE_FOLDER:
        # Paths of the workspace are kept out of this folder only.
        raise SharedFolderError(f"in the root only {STATE_FOLDER} is kept from notebooks")
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.name != "posix":  # pragma: no cover  (Windows: a user's folders are private there)
        return
    if state_dir.stat().st_mode & stat.S_ISVTX:
        raise SharedFolderError("all users may write into it")
    try:
        for path in (state_dir, *_content(state_dir)):
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & _OTHERS:
                path.chmod(mode & ~_OTHERS)
    except PermissionError as error:
        raise SharedFolderError(f"{error.filename} belongs to another user") from error
    if state_dir.stat().st_mode & _OTHERS:
        _log.warning("Other users may read %s: its file system knows no permissions", state_dir)


def _content(folder: Path) -> Iterator[Path]:
    """Yield the folders and files below a folder without following links."""
    for path in folder.iterdir():
        if path.is_symlink():
            continue
        if path.is_dir():
            yield path
            yield from _content(path)
        elif path.is_file():
            yield path

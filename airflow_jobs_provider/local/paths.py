"""Maps workspace paths to files below the workspace's root, never outside of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

__all__ = [
    "NOTEBOOK_SUFFIXES",
    "RUN_SUFFIXES",
    "STATE_FOLDER",
    "PathRefusedError",
    "data_file_in_root",
    "file_in_root",
    "notebook_in_root",
]

STATE_FOLDER = ".workspace"
NOTEBOOK_SUFFIXES = (".ipynb", ".py")
# Those of other languages are found, so that a run can say that it does not run them.
RUN_SUFFIXES = (*NOTEBOOK_SUFFIXES, ".sql", ".scala", ".r", ".R")
_SHOWN_CHARS = 300


class PathRefusedError(ValueError):
    """The path leads out of the workspace, or cannot be a file's."""


class _CannotOpenError(PathRefusedError):
    """The system takes no such path."""


def file_in_root(root: Path, workspace_path: str) -> Path:
    """Return the file below ``root`` that ``workspace_path`` (``/Users/me/etl.py``) names.

    The file need not exist. Links are followed, and what is returned has none: what was checked is
    what will be opened.

    :raises PathRefusedError: the path does not stay inside the workspace, or cannot be a file's.
    """
    real_root = root.resolve()
    return _checked(real_root, _path_in(real_root, workspace_path))


def notebook_in_root(
    root: Path, workspace_path: str, suffixes: Sequence[str] = NOTEBOOK_SUFFIXES
) -> Path | None:
    """Return the file of the notebook ``workspace_path``, which is named without its extension.

    As with :func:`file_in_root`, what is returned has no links. A path with its extension is taken,
    too, though the service itself knows notebooks by their name without it only.

    :param suffixes: the extensions to look for, in this order.
    :returns: None if there is no such notebook.
    :raises PathRefusedError: the path, or what it links to, does not stay inside the workspace.
    """
    real_root = root.resolve()
    path = _path_in(real_root, workspace_path)
    # A link may have the extension or lack it, and so may what it leads to.
    target = _checked(real_root, path)
    for stem in dict.fromkeys((path, target)):
        for suffix in suffixes:
            with suppress(_CannotOpenError):  # too long with the extension
                file = _checked(real_root, stem.parent / f"{stem.name}{suffix}")
                if file.is_file():
                    return file
    return target if target.suffix in suffixes and target.is_file() else None


def _path_in(real_root: Path, workspace_path: str) -> Path:
    if "\0" in workspace_path:
        raise PathRefusedError("A path with a NUL character was refused")
    if workspace_path.startswith("/Workspace/") and not (real_root / "Workspace").exists():
        # The service's own prefix for workspace files.
        workspace_path = workspace_path.removeprefix("/Workspace")
    return Path(os.path.normpath(real_root / workspace_path.lstrip("/")))


def _checked(real_root: Path, path: Path) -> Path:
    """Return a path with its links followed, found to be inside of the workspace."""
    shown = "/" + os.path.relpath(path, real_root)
    try:
        resolved = path.resolve()
        with suppress(FileNotFoundError, NotADirectoryError):
            resolved.stat()
    except (OSError, RuntimeError, ValueError) as error:
        # The name is too long, holds what no name can, or is a link to itself.
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise _CannotOpenError(f"{_shortened(shown)} cannot be opened ({reason})") from None
    for candidate in (path, resolved):
        if not candidate.is_relative_to(real_root):
            raise PathRefusedError(f"{_shortened(shown)} leads out of the workspace's root")
        # Some file systems take upper and lower case for the same.
        first = candidate.relative_to(real_root).parts[:1]
        if [part.casefold() for part in first] == [STATE_FOLDER]:
            raise PathRefusedError(f"{_shortened(shown)} lies in the workspace's own state")
    return resolved


def _shortened(path: str) -> str:
    return path if len(path) <= _SHOWN_CHARS else f"{path[:_SHOWN_CHARS]}..."


def data_file_in_root(root: Path, uri: str) -> Path:
    """Return the file that a task's URI names: ``dbfs:/x.py``, ``file:/x.py``, ``/x.py``, ``x.py``.

    All of them are looked for below the root; an absolute path that already lies there is taken
    as it is.

    :raises PathRefusedError: if the URI does not stay inside the workspace.
    """
    path = uri
    for scheme in ("dbfs:", "file:"):
        path = path.removeprefix(scheme)
    path = "/" + path.lstrip("/")
    real_root = root.resolve()
    if Path(path).is_relative_to(real_root):
        path = "/" + Path(path).relative_to(real_root).as_posix()
    if path.startswith("/dbfs/") and not (root / "dbfs").exists():
        path = path.removeprefix("/dbfs")
    return file_in_root(root, path)

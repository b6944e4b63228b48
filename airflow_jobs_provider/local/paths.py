"""From the paths of a workspace to files below its root, and never outside of it."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["STATE_FOLDER", "PathRefusedError", "data_file_in_root", "file_in_root"]

STATE_FOLDER = ".workspace"


class PathRefusedError(ValueError):
    """The path leads out of the workspace."""


def file_in_root(root: Path, workspace_path: str) -> Path:
    """Return the file below ``root`` that ``workspace_path`` (``/Users/me/etl``) names.

    Links are followed first, so a link that leads out of the root is refused as ``..`` is.

    :raises PathRefusedError: if the path does not stay inside the workspace.
    """
    if "\0" in workspace_path:
        raise PathRefusedError("A path with a NUL character was refused")
    if workspace_path.startswith("/Workspace/") and not (root / "Workspace").exists():
        # The service's own prefix for workspace files.
        workspace_path = workspace_path.removeprefix("/Workspace")
    real_root = root.resolve()
    file = Path(os.path.normpath(real_root / workspace_path.lstrip("/")))
    resolved = file.resolve()
    # A notebook is named without its extension, so the link may be one of these.
    extended = [file.with_name(file.name + suffix) for suffix in (".ipynb", ".py") if file.name]
    for candidate in (file, resolved, *(path.resolve() for path in extended)):
        if not candidate.is_relative_to(real_root):
            raise PathRefusedError(f"{workspace_path} leads out of the workspace's root")
    if STATE_FOLDER in file.relative_to(real_root).parts[:1]:
        raise PathRefusedError(f"{workspace_path} lies in the workspace's own state")
    return resolved


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

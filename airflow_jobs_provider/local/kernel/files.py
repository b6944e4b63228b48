"""``dbutils.fs``: files of the workspace and of this machine.

``dbfs:/a``, ``/a`` and ``/dbfs/a`` are ``a`` below the workspace's root, and so are
``/Volumes/...`` and ``/Workspace/...``. ``file:/a`` is ``/a`` of this machine.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from airflow_jobs_provider.local.kernel.context import KernelContext
from airflow_jobs_provider.local.kernel.dbutils_help import Helpful
from airflow_jobs_provider.local.paths import STATE_FOLDER, PathRefusedError, data_file_in_root

__all__ = ["FileInfo", "Files"]

_HEAD_BYTES = 65536


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What ``dbutils.fs.ls`` returns; the names of directories end with a slash."""

    path: str
    name: str
    size: int
    modificationTime: int  # noqa: N815 - the name in dbutils

    def isDir(self) -> bool:  # noqa: N802
        """Whether it is a directory."""
        return self.name.endswith("/")

    def isFile(self) -> bool:  # noqa: N802
        """Whether it is a file."""
        return not self.isDir()


class Files(Helpful):
    """Files of the workspace (dbfs:/a, /a or /Volumes/a) and of this machine (file:/a)."""

    def __init__(self, context: KernelContext) -> None:
        self._root = context.root.resolve()

    def ls(self, path: str) -> list[FileInfo]:
        """Return what is in a directory; of a file, itself.

        :raises FileNotFoundError: there is nothing of that path.
        """
        found = self._existing(path)
        if not found.is_dir():
            return [self._info(path, found)]
        return [
            self._info(path, entry)
            for entry in sorted(found.iterdir())
            if entry.exists()
            and not (found == self._root and entry.name.casefold() == STATE_FOLDER)
        ]

    def head(self, file: str, maxBytes: int = _HEAD_BYTES) -> str:  # noqa: N803
        """Return the first bytes of a file as text."""
        with self._existing(file).open("rb") as opened:
            return opened.read(maxBytes).decode("utf-8", errors="replace")

    def put(self, file: str, contents: str, overwrite: bool = False) -> bool:
        """Write a text to a file.

        :raises FileExistsError: there is one, and ``overwrite`` is False.
        """
        target = self._file(file)
        if target.exists() and not overwrite:
            raise FileExistsError(f"{file} exists already; use overwrite=True")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(contents, encoding="utf-8")
        return True

    def mkdirs(self, dir: str) -> bool:  # noqa: A002 - the name in dbutils
        """Make a directory and those above it."""
        self._file(dir).mkdir(parents=True, exist_ok=True)
        return True

    def cp(self, from_: str, to: str, recurse: bool = False) -> bool:
        """Copy a file, or with ``recurse`` a directory."""
        source, target = self._existing(from_), self._file(to)
        if source.is_dir():
            if not recurse:
                raise IsADirectoryError(f"{from_} is a directory; use recurse=True")
            if target.is_relative_to(source):
                raise ValueError(f"{from_} cannot be copied into itself")
            ignore = None if from_.startswith("file:") else self._refused
            shutil.copytree(source, target, dirs_exist_ok=True, ignore=ignore)
        else:
            target = target / source.name if target.is_dir() else target
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        return True

    def mv(self, from_: str, to: str, recurse: bool = False) -> bool:
        """Move a file, or with ``recurse`` a directory."""
        self.cp(from_, to, recurse)
        return self.rm(from_, recurse)

    def rm(self, dir: str, recurse: bool = False) -> bool:  # noqa: A002 - the name in dbutils
        """Remove a file, or with ``recurse`` a directory; return whether there was one."""
        target = self._file(dir)
        if target == self._root:
            raise PermissionError("The root directory cannot be removed")
        if not target.exists():
            return False
        if not target.is_dir():
            target.unlink()
        elif recurse:
            shutil.rmtree(target)
        elif any(target.iterdir()):
            raise OSError(f"{dir} is not empty; use recurse=True")
        else:
            target.rmdir()
        return True

    def mounts(self) -> list[FileInfo]:
        """Return the mounts: there are none here."""
        return []

    def _refused(self, folder: str, names: Iterable[str]) -> set[str]:
        """Return what is not copied: the workspace's state, and links that lead out of the root."""
        return {name for name in names if not self._is_readable(Path(folder) / name)}

    def _is_readable(self, file: Path) -> bool:
        try:
            data_file_in_root(self._root, str(file))
        except PathRefusedError:
            return False
        return True

    def _file(self, path: str) -> Path:
        if path.startswith("file:"):
            return Path("/" + path.removeprefix("file:").lstrip("/"))
        return data_file_in_root(self._root, path)

    def _existing(self, path: str) -> Path:
        found = self._file(path)
        if not found.exists():
            raise FileNotFoundError(f"No such file or directory: {path}")
        return found

    def _info(self, asked: str, file: Path) -> FileInfo:
        seen = file.stat()
        slash = "/" if file.is_dir() else ""
        shown = (
            f"file:{file}"
            if asked.startswith("file:")
            else f"dbfs:/{file.relative_to(self._root).as_posix()}"
        )
        return FileInfo(
            shown + slash,
            file.name + slash,
            0 if slash else seen.st_size,
            int(seen.st_mtime * 1000),
        )

"""The files of a folder: which ones are examined, and how one is replaced."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from airflow_jobs_provider.migrate.findings import Finding, Kind
from airflow_jobs_provider.migrate.names import OFFICIAL

__all__ = ["find_files", "is_python", "named_lines", "replace"]

# Files beside Python that may name classes by their paths: DAG factories, settings of Airflow.
_TEXT_SUFFIXES = frozenset({".cfg", ".ini", ".json", ".toml", ".yaml", ".yml"})
_SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules", "site-packages"})
_NAME = re.compile(re.escape(OFFICIAL).encode())


def is_python(path: Path) -> bool:
    """Whether a file is Python code."""
    return path.suffix == ".py"


def find_files(path: Path) -> Iterator[Path]:
    """Return a file, or the files of a folder and its folders, in order.

    Hidden folders, virtual environments and links to folders are skipped.

    :raises OSError: there is no such file, or a folder cannot be read.
    """
    if not path.is_dir():
        path.stat()
        yield path
        return
    for folder, folders, names in os.walk(path, onerror=_raise):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and name not in _SKIPPED_FOLDERS
            and not Path(folder, name, "pyvenv.cfg").exists()
        )
        for name in sorted(names):
            file = Path(folder, name)
            if (is_python(file) or file.suffix in _TEXT_SUFFIXES) and file.is_file():
                yield file


def _raise(error: OSError) -> None:
    raise error


def named_lines(content: bytes) -> Iterator[Finding]:
    """Return the lines of a file that is no Python and names modules of the official provider."""
    for number, line in enumerate(content.splitlines(), 1):
        if _NAME.search(line):
            text = f"the line names {OFFICIAL}: change it by hand if it means what moves"
            yield Finding(number, Kind.CHECK, text)


def replace(path: Path, content: bytes) -> None:
    """Write a file anew: Airflow, which may read it at any moment, sees the old or the new one.

    A link is kept, and so are the permissions.
    """
    target = path.resolve()
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        shutil.copymode(target, name)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise

"""Notebooks, files and folders of the workspace: ``/api/2.0/workspace/...``.

A notebook ``/a/etl`` is the file ``a/etl.py`` or ``a/etl.ipynb`` below the root; a file
``/a/x.csv`` is ``a/x.csv``. Only notebooks in Python are taken: no other language can be run here.

Reference: the Workspace API, import, export, list, get-status, mkdirs, delete.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import os
import shutil
from http import HTTPStatus
from pathlib import Path
from typing import Any

from airflow_jobs_provider.local import checks
from airflow_jobs_provider.local.engine.uploads import PARTIAL_SUFFIX, PartialFiles
from airflow_jobs_provider.local.errors import ApiError, invalid
from airflow_jobs_provider.local.http.call import Call, Endpoint, FileContent
from airflow_jobs_provider.local.notebook_files import (
    SOURCE_HEADER,
    NotNotebookError,
    as_jupyter,
    as_source,
    read_notebook,
)
from airflow_jobs_provider.local.paths import (
    NOTEBOOK_SUFFIXES,
    STATE_FOLDER,
    PathRefusedError,
    file_in_root,
    notebook_in_root,
)

__all__ = ["WORKSPACE_ENDPOINTS"]

_IMPORT_FORMATS = ("SOURCE", "JUPYTER", "AUTO", "RAW")
_EXPORT_FORMATS = ("SOURCE", "JUPYTER", "AUTO", "RAW")
# Where an object id is made from a path: the largest integer that JSON's numbers hold exactly.
_LARGEST_ID = 2**53 - 1
_DIRECTORY, _NOTEBOOK, _FILE = "DIRECTORY", "NOTEBOOK", "FILE"


class _Objects:
    """The objects below the root folder of a workspace."""

    def __init__(self, root: Path, partial_files: PartialFiles) -> None:
        self._root = root.resolve()
        self._partial_files = partial_files

    def import_object(
        self, path: str, content: bytes, import_format: str, *, overwrite: bool
    ) -> dict[str, Any]:
        """Store a notebook or a file; a reader never sees a part of it."""
        target, content = self._target(path, content, import_format)
        if not target.parent.is_dir():
            raise _missing(
                f"The parent folder ({self._workspace_path(target.parent)}) does not exist."
            )
        if target.is_dir():
            raise _exists(path)
        stem = target.with_suffix("") if target.suffix in NOTEBOOK_SUFFIXES else target
        is_notebook = import_format in {"SOURCE", "JUPYTER"}
        others = [
            other
            for suffix in NOTEBOOK_SUFFIXES
            if is_notebook and (other := Path(f"{stem}{suffix}")) != target and other.is_file()
        ]
        if (target.exists() or others) and not overwrite:
            raise _exists(path)
        self._partial_files.write(target, content)
        for other in others:
            other.unlink(missing_ok=True)
        return {"object_id": _object_id(self._workspace_path(target))}

    def _target(self, path: str, content: bytes, import_format: str) -> tuple[Path, bytes]:
        """Return where an object is stored, and what."""
        if import_format == "JUPYTER":
            return self._file(_with_suffix(path, ".ipynb")), content
        if import_format == "SOURCE":
            if not content.startswith(SOURCE_HEADER.encode()):
                content = f"{SOURCE_HEADER}\n".encode() + content
            return self._file(_with_suffix(path, ".py")), content
        # As it is: the extension and the first line tell a notebook from a file (AUTO).
        return self._file(path), content

    def export_object(self, path: str, export_format: str) -> tuple[bytes, str]:
        """Return the content of a notebook or a file, and its type: the extension."""
        file = self._existing(path)
        if file.is_dir():
            raise invalid(f"The local workspace exports no folder, such as {path}")
        is_notebook = self._kind(file, path) == _NOTEBOOK
        suffix = {"SOURCE": ".py", "JUPYTER": ".ipynb"}.get(export_format)
        if not is_notebook or suffix is None or suffix == file.suffix:
            return file.read_bytes(), file.suffix.lstrip(".")
        try:
            cells = read_notebook(file)
        except NotNotebookError as error:
            raise invalid(str(error)) from None
        made = as_source(cells) if suffix == ".py" else as_jupyter(cells)
        return made.encode(), suffix.lstrip(".")

    def list_objects(self, path: str) -> list[dict[str, Any]]:
        """Return the objects in a folder; of a notebook or a file, itself."""
        found = self._existing(path)
        if not found.is_dir():
            return [self._status(found, path)]
        return [
            self._status(entry)
            for entry in sorted(found.iterdir())
            if entry.name.casefold() != STATE_FOLDER
            and not entry.name.endswith(PARTIAL_SUFFIX)
            and entry.exists()  # A link may lead nowhere.
        ]

    def status(self, path: str) -> dict[str, Any]:
        """Return the type, language and id of an object."""
        return self._status(self._existing(path), path)

    def make_folder(self, path: str) -> None:
        """Make a folder and those above it."""
        folder = self._file(path)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise _exists(path) from None

    def delete(self, path: str, *, recursive: bool) -> None:
        """Delete an object; a folder that is not empty only with ``recursive``."""
        found = self._existing(path)
        if found == self._root:
            raise invalid("The root folder cannot be deleted")
        if not found.is_dir():
            found.unlink(missing_ok=True)
        elif recursive:
            shutil.rmtree(found)
        elif any(found.iterdir()):
            raise ApiError(
                HTTPStatus.BAD_REQUEST, "DIRECTORY_NOT_EMPTY", f"Folder ({path}) is not empty"
            )
        else:
            found.rmdir()

    def _file(self, path: str) -> Path:
        if not path.startswith("/"):
            raise invalid(f"Path must be absolute: {path[:300]!r}")
        try:
            return file_in_root(self._root, path)
        except PathRefusedError as error:
            raise invalid(str(error)) from None

    def _existing(self, path: str) -> Path:
        file = self._file(path)
        if file.exists():
            return file
        try:
            notebook = notebook_in_root(self._root, path)
        except PathRefusedError as error:
            raise invalid(str(error)) from None
        if notebook is None:
            raise _missing(f"Path ({path}) doesn't exist.")
        return notebook

    def _kind(self, file: Path, path: str | None = None) -> str:
        """Return the type of an object.

        :param path: how it was named, if it was: a notebook is named without its extension.
        """
        if file.is_dir():
            return _DIRECTORY
        if file.suffix == ".ipynb" or (
            file.suffix == ".py"
            and (_has_header(file) or (path is not None and not path.endswith(".py")))
        ):
            return _NOTEBOOK
        return _FILE

    def _status(self, file: Path, path: str | None = None) -> dict[str, Any]:
        kind = self._kind(file, path)
        shown = self._workspace_path(file)
        if kind == _NOTEBOOK:
            shown = shown.removesuffix(file.suffix)
        status: dict[str, Any] = {
            "object_type": kind,
            "path": shown,
            "object_id": _object_id(shown),
        }
        if kind == _NOTEBOOK:
            status["language"] = "PYTHON"
        if kind != _DIRECTORY:
            seen = file.stat()
            status |= {
                "created_at": int(seen.st_ctime * 1000),
                "modified_at": int(seen.st_mtime * 1000),
                "size": seen.st_size,
            }
        return status

    def _workspace_path(self, file: Path) -> str:
        return "/" + os.path.relpath(file, self._root) if file != self._root else "/"


async def import_object(call: Call) -> dict[str, Any]:
    """Import: store a notebook or a file."""
    data = call.data
    import_format = _one_of(data, "format", _IMPORT_FORMATS, default="SOURCE")
    language = data.get("language")
    if import_format == "SOURCE" and language is None:
        raise invalid("language is required for a notebook of format SOURCE")
    if language not in {None, "PYTHON"}:
        raise invalid(
            f"This local workspace takes notebooks in PYTHON only, not {str(language)[:100]!r}"
        )
    content = data.get("content")
    if isinstance(content, str):
        try:
            content = base64.b64decode(content, validate=True)
        except (ValueError, binascii.Error):
            raise invalid("content must be encoded in base64") from None
    if not isinstance(content, bytes):
        raise invalid("Missing required field: content")
    path, overwrite = _path(call), checks.read_flag(data, "overwrite")
    objects = _objects(call)
    return await asyncio.to_thread(
        lambda: objects.import_object(path, content, import_format, overwrite=overwrite)
    )


async def export_object(call: Call) -> dict[str, Any] | FileContent:
    """Export: the content of a notebook or a file, in base64, or as it is ("direct_download")."""
    export_format = _one_of(call.data, "format", _EXPORT_FORMATS, default="SOURCE")
    objects, path = _objects(call), _path(call)
    direct = checks.read_flag(call.data, "direct_download")
    content, kind = await asyncio.to_thread(objects.export_object, path, export_format)
    if direct:
        return FileContent(content)
    return {"content": base64.b64encode(content).decode(), "file_type": kind}


async def list_objects(call: Call) -> dict[str, Any]:
    """List: the objects in a folder."""
    found = await asyncio.to_thread(_objects(call).list_objects, _path(call))
    return {"objects": found} if found else {}


async def get_status(call: Call) -> dict[str, Any]:
    """Get status: the type of an object."""
    return await asyncio.to_thread(_objects(call).status, _path(call))


async def make_folder(call: Call) -> dict[str, Any]:
    """Mkdirs: make a folder and those above it."""
    await asyncio.to_thread(_objects(call).make_folder, _path(call))
    return {}


async def delete_object(call: Call) -> dict[str, Any]:
    """Delete: remove an object."""
    recursive, path = checks.read_flag(call.data, "recursive"), _path(call)
    objects = _objects(call)
    await asyncio.to_thread(lambda: objects.delete(path, recursive=recursive))
    return {}


def _objects(call: Call) -> _Objects:
    return _Objects(call.service.root, call.service.partial_files)


WORKSPACE_ENDPOINTS: dict[tuple[str, str], Endpoint] = {
    ("POST", "import"): import_object,
    ("GET", "export"): export_object,
    ("GET", "list"): list_objects,
    ("GET", "get-status"): get_status,
    ("POST", "mkdirs"): make_folder,
    ("POST", "delete"): delete_object,
}


def _path(call: Call) -> str:
    path = call.data.get("path")
    if not isinstance(path, str) or not path:
        raise invalid("Missing required field: path")
    return path


def _one_of(data: Any, name: str, known: tuple[str, ...], *, default: str) -> str:
    value = data.get(name) or default
    if value not in known:
        raise invalid(
            f"{name} must be one of {', '.join(known)} in this local workspace, "
            f"not {str(value)[:100]!r}"
        )
    return str(value)


def _with_suffix(path: str, suffix: str) -> str:
    return path if path.endswith(suffix) else f"{path}{suffix}"


def _has_header(file: Path) -> bool:
    header = SOURCE_HEADER.encode()
    with file.open("rb") as opened:
        return opened.read(len(header)) == header


def _object_id(path: str) -> int:
    digest = hashlib.sha256(path.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") & _LARGEST_ID


def _missing(message: str) -> ApiError:
    return ApiError(HTTPStatus.NOT_FOUND, "RESOURCE_DOES_NOT_EXIST", message)


def _exists(path: str) -> ApiError:
    return ApiError(
        HTTPStatus.BAD_REQUEST, "RESOURCE_ALREADY_EXISTS", f"Path ({path}) already exists."
    )

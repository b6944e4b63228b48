"""Files below the workspace's root by the DBFS API and the Files API.

``dbfs:/a``, ``/a`` and ``/dbfs/a`` are ``a`` below the root, as in a task's ``python_file``;
``/Volumes/catalog/schema/volume/a`` is the same path below the root.

Reference: the DBFS API 2.0, and the Files API (``fs/files`` and ``fs/directories``).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import shutil
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

from airflow_jobs_provider.local import checks
from airflow_jobs_provider.local.engine.uploads import PARTIAL_SUFFIX
from airflow_jobs_provider.local.errors import ApiError, invalid
from airflow_jobs_provider.local.http.call import Call, Endpoint, FileContent
from airflow_jobs_provider.local.paths import (
    STATE_FOLDER,
    PathRefusedError,
    data_file_in_root,
)

__all__ = ["DBFS_ENDPOINTS", "DIRECTORY_ENDPOINTS", "FILE_ENDPOINTS"]

_T = TypeVar("_T")
_MAX_READ_BYTES = 1024 * 1024


# DBFS


async def put(call: Call) -> dict[str, Any]:
    """Put: store a file."""
    content = call.data.get("contents", b"")
    if not isinstance(content, bytes):  # a form has bytes
        content = _decoded("contents", content)
    file, overwrite = _file(call), checks.read_flag(call.data, "overwrite")
    await asyncio.to_thread(lambda: _write(call, file, content, overwrite=overwrite))
    return {}


async def create(call: Call) -> dict[str, Any]:
    """Create: open a file to write it block by block."""
    file = _file(call)
    _check_new(file, overwrite=checks.read_flag(call.data, "overwrite"))
    _make_directory(file.parent)
    return {"handle": call.service.uploads.create(file)}


async def add_block(call: Call) -> dict[str, Any]:
    """Add block: append to an open file."""
    block = _decoded("data", str(call.data.get("data", "")))
    if len(block) > _MAX_READ_BYTES:
        raise ApiError(
            HTTPStatus.BAD_REQUEST,
            "MAX_BLOCK_SIZE_EXCEEDED",
            f"A block has at most {_MAX_READ_BYTES} bytes",
        )
    call.service.uploads.add(checks.required_integer(call.data, "handle"), block)
    return {}


async def close(call: Call) -> dict[str, Any]:
    """Close: end the writing of a file."""
    call.service.uploads.close(checks.required_integer(call.data, "handle"))
    return {}


async def read(call: Call) -> dict[str, Any]:
    """Read: a part of a file, in base64."""
    file = _existing(call)
    if file.is_dir():
        raise invalid(f"{call.data['path']} is a directory")
    offset = checks.read_integer(call.data, "offset") or 0
    length = checks.read_integer(call.data, "length")
    length = _MAX_READ_BYTES // 2 if length is None else length
    if offset < 0 or not 0 <= length <= _MAX_READ_BYTES:
        raise invalid(f"offset must not be negative, and length from 0 to {_MAX_READ_BYTES}")
    with file.open("rb") as opened:
        opened.seek(offset)
        part = opened.read(length)
    return {"bytes_read": len(part), "data": base64.b64encode(part).decode()}


async def list_files(call: Call) -> dict[str, Any]:
    """List: the files in a directory; of a file, itself."""
    found = _existing(call)
    files = [_status(call, one) for one in _entries(found)] if found.is_dir() else None
    return {"files": [_status(call, found)] if files is None else files}


async def get_status(call: Call) -> dict[str, Any]:
    """Get status: size and kind of a file."""
    return _status(call, _existing(call))


async def make_directory(call: Call) -> dict[str, Any]:
    """Mkdirs: make a directory and those above it."""
    _make_directory(_file(call))
    return {}


async def delete(call: Call) -> dict[str, Any]:
    """Delete: remove a file, or a directory; nothing if there is none."""
    recursive, file = checks.read_flag(call.data, "recursive"), _file(call)
    if file == call.service.root.resolve():
        raise invalid("The root directory cannot be deleted")
    if not file.is_dir():
        file.unlink(missing_ok=True)
    elif recursive or not any(file.iterdir()):
        await asyncio.to_thread(shutil.rmtree, file)
    else:
        raise ApiError(
            HTTPStatus.BAD_REQUEST, "IO_ERROR", f"{call.data['path']} is not empty; use recursive"
        )
    return {}


async def move(call: Call) -> dict[str, Any]:
    """Move: give a file or directory another path."""
    source, target = _existing(call, "source_path"), _file(call, "destination_path")
    if target.exists():
        raise _exists(call.data["destination_path"])
    if target.is_relative_to(source):
        raise invalid("A directory cannot be moved into itself")
    _make_directory(target.parent)
    await asyncio.to_thread(source.rename, target)
    return {}


DBFS_ENDPOINTS: dict[tuple[str, str], Endpoint] = {
    ("POST", "put"): put,
    ("POST", "create"): create,
    ("POST", "add-block"): add_block,
    ("POST", "close"): close,
    ("GET", "read"): read,
    ("GET", "list"): list_files,
    ("GET", "get-status"): get_status,
    ("POST", "mkdirs"): make_directory,
    ("POST", "delete"): delete,
    ("POST", "move"): move,
}


# Files API: the path is in the URL, the content is the body


async def download(call: Call) -> FileContent:
    """Download a file."""
    file = _existing(call)
    if file.is_dir():
        raise invalid(f"{call.data['path']} is a directory")
    return FileContent(await asyncio.to_thread(file.read_bytes), file.stat().st_mtime)


async def upload(call: Call) -> dict[str, Any]:
    """Upload a file; the directories above it are made."""
    overwrite = checks.read_flag(call.data, "overwrite")
    file, content = _file(call), call.data["body"]
    await asyncio.to_thread(lambda: _write(call, file, content, overwrite=overwrite))
    return {}


async def delete_file(call: Call) -> dict[str, Any]:
    """Delete a file."""
    file = _existing(call)
    if file.is_dir():
        raise invalid(f"{call.data['path']} is a directory")
    file.unlink()
    return {}


async def list_directory(call: Call) -> dict[str, Any]:
    """List the contents of a directory."""
    directory = _existing(call)
    if not directory.is_dir():
        raise invalid(f"{call.data['path']} is no directory")
    return {
        "contents": [
            {
                "path": f"/{one.relative_to(call.service.root.resolve()).as_posix()}",
                "name": one.name,
                "is_directory": one.is_dir(),
                "last_modified": int(one.stat().st_mtime * 1000),
                **({} if one.is_dir() else {"file_size": one.stat().st_size}),
            }
            for one in _entries(directory)
        ]
    }


async def delete_directory(call: Call) -> dict[str, Any]:
    """Delete an empty directory."""
    directory = _existing(call)
    if directory == call.service.root.resolve():
        raise invalid("The root directory cannot be deleted")
    if not directory.is_dir() or any(directory.iterdir()):
        raise invalid(f"{call.data['path']} is no empty directory")
    directory.rmdir()
    return {}


FILE_ENDPOINTS: dict[str, Endpoint] = {
    "GET": download,
    "PUT": upload,
    "DELETE": delete_file,
}
DIRECTORY_ENDPOINTS: dict[str, Endpoint] = {
    "GET": list_directory,
    "PUT": make_directory,
    "DELETE": delete_directory,
}


def _file(call: Call, name: str = "path") -> Path:
    path = call.data.get(name)
    if not isinstance(path, str) or not path:
        raise invalid(f"Missing required field: {name}")
    if not path.startswith(("/", "dbfs:/")):
        raise invalid(f"Path must be absolute: {path[:300]!r}")
    return _refusing(lambda: data_file_in_root(call.service.root, path))


def _existing(call: Call, name: str = "path") -> Path:
    file = _file(call, name)
    if not file.exists():
        raise ApiError(
            HTTPStatus.NOT_FOUND,
            "RESOURCE_DOES_NOT_EXIST",
            f"No file or directory exists on path {call.data[name]}.",
        )
    return file


def _refusing(look_up: Callable[[], _T]) -> _T:
    try:
        return look_up()
    except PathRefusedError as error:
        raise invalid(str(error)) from None


def _write(call: Call, file: Path, content: bytes, *, overwrite: bool) -> None:
    """Store a file."""
    _check_new(file, overwrite=overwrite)
    _make_directory(file.parent)
    call.service.partial_files.write(file, content)


def _check_new(file: Path, *, overwrite: bool) -> None:
    if file.is_dir() or (file.exists() and not overwrite):
        raise _exists(str(file.name))


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise _exists(directory.name) from None


def _entries(directory: Path) -> list[Path]:
    return [
        entry
        for entry in sorted(directory.iterdir())
        if entry.name.casefold() != STATE_FOLDER
        and not entry.name.endswith(PARTIAL_SUFFIX)
        and entry.exists()
    ]


def _status(call: Call, file: Path) -> dict[str, Any]:
    seen = file.stat()
    below = file.relative_to(call.service.root.resolve()).as_posix()
    return {
        "path": "/" if below == "." else f"/{below}",
        "is_dir": file.is_dir(),
        "file_size": 0 if file.is_dir() else seen.st_size,
        "modification_time": int(seen.st_mtime * 1000),
    }


def _decoded(name: str, text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (ValueError, TypeError, binascii.Error):
        raise invalid(f"{name} must be encoded in base64") from None


def _exists(path: str) -> ApiError:
    return ApiError(HTTPStatus.BAD_REQUEST, "RESOURCE_ALREADY_EXISTS", f"{path} exists already.")

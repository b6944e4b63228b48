"""Uploading a notebook to the workspace (reference: the Workspace API, import, export and mkdirs).

The name of the notebook contains a hash of its content. So a notebook of that name is the same one,
unless somebody has changed it: it is read, and only replaced if it differs. Runs that execute it
meanwhile are not disturbed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from typing import Any

from airflow_jobs_provider.api.calls import Call
from airflow_jobs_provider.api.errors import APIStatusError, NotFoundError
from airflow_jobs_provider.api.responses import InvalidResponseError
from airflow_jobs_provider.api.workflows.base import Workflow

__all__ = ["upload_notebook"]

_WORKSPACE_SERVICE = "workspace"
# Below the home folder of the identity that uploads, which nobody else may write to.
_HOME_SUBFOLDER = ".airflow_jobs_provider"
_HASH_DIGITS = 32
_EXISTS = "RESOURCE_ALREADY_EXISTS"


def upload_notebook(content: str, name: str, folder: str | None = None) -> Workflow[str]:
    """Store a Python notebook in the workspace, unless it is there: a workflow.

    It returns the notebook's path. The folder is created if it does not exist.

    :param content: the notebook in Databricks' source form.
    :param name: first part of its name; a hash of the content follows.
    :param folder: folder in the workspace; default ``.airflow_jobs_provider`` in the home folder of
        the identity that sends the requests.
    """
    if folder is None:
        user = yield _current_user()
        folder = f"/Users/{user}/{_HOME_SUBFOLDER}"
    folder = folder.rstrip("/")
    digest = hashlib.sha256(content.encode()).hexdigest()[:_HASH_DIGITS]
    path = f"{folder}/{name}_{digest}"
    try:
        stored = yield _export_notebook(path)
    except NotFoundError:
        yield from _store_new(path, content, folder)
    else:
        if _lines(stored) != _lines(content):
            yield _import_notebook(path, content, overwrite=True)
    return path


def _store_new(path: str, content: str, folder: str) -> Workflow[None]:
    upload = _import_notebook(path, content, overwrite=False)
    try:
        try:
            yield upload
        except NotFoundError:
            yield _make_folder(folder or "/")
            yield upload
    except APIStatusError as error:
        # Another task was faster with the same notebook, or the first response was lost.
        if error.error_code != _EXISTS:
            raise


def _lines(content: str) -> list[str]:
    """Return the lines of a notebook. The service may write other blank lines than it was given."""
    return [line.rstrip() for line in content.splitlines() if line.strip()]


def _import_notebook(path: str, content: str, *, overwrite: bool) -> Call[None]:
    return Call(
        "POST",
        "import",
        {
            "path": path,
            "format": "SOURCE",
            "language": "PYTHON",
            "content": base64.b64encode(content.encode()).decode(),
            "overwrite": overwrite,
        },
        True,
        _parse_nothing,
        service=_WORKSPACE_SERVICE,
    )


def _export_notebook(path: str) -> Call[str]:
    parameters = {"path": path, "format": "SOURCE"}
    return Call("GET", "export", parameters, True, _parse_content, service=_WORKSPACE_SERVICE)


def _make_folder(path: str) -> Call[None]:
    return Call("POST", "mkdirs", {"path": path}, True, _parse_nothing, service=_WORKSPACE_SERVICE)


def _current_user() -> Call[str]:
    return Call("GET", "scim/v2/Me", {}, True, _parse_user_name, service="preview")


def _parse_nothing(_response: Mapping[str, Any]) -> None:
    return None


def _parse_content(response: Mapping[str, Any]) -> str:
    try:
        return base64.b64decode(str(response["content"]), validate=True).decode()
    except (KeyError, ValueError, binascii.Error):
        raise InvalidResponseError("is not text in base64", ("content",)) from None


def _parse_user_name(response: Mapping[str, Any]) -> str:
    name = response.get("userName")
    if not isinstance(name, str) or not name:
        raise InvalidResponseError("is not text", ("userName",))
    return name

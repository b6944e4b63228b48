"""Uploading a notebook to the workspace (reference: the Workspace API, import and mkdirs).

The name of the notebook contains a hash of its content. So an upload that is repeated changes
nothing, and no upload replaces what another run executes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

from airflow_jobs_provider.api.endpoints import Call
from airflow_jobs_provider.api.errors import NotFoundError
from airflow_jobs_provider.api.responses import InvalidResponseError
from airflow_jobs_provider.api.workflows.base import Workflow

__all__ = ["upload_notebook"]

_WORKSPACE_SERVICE = "workspace"
# Below the home folder of the identity that uploads, which nobody else may write to.
_HOME_SUBFOLDER = ".airflow_jobs_provider"
_HASH_DIGITS = 32


def upload_notebook(content: str, name: str, folder: str | None = None) -> Workflow[str]:
    """Store a Python notebook in the workspace: a workflow that returns its path.

    The folder is created if it does not exist.

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
    upload = _import_notebook(path, content)
    try:
        yield upload
    except NotFoundError:
        yield _make_folder(folder or "/")
        yield upload
    return path


def _import_notebook(path: str, content: str) -> Call[None]:
    return Call(
        "POST",
        "import",
        {
            "path": path,
            "format": "SOURCE",
            "language": "PYTHON",
            "content": base64.b64encode(content.encode()).decode(),
            "overwrite": True,
        },
        True,
        _parse_nothing,
        service=_WORKSPACE_SERVICE,
    )


def _make_folder(path: str) -> Call[None]:
    return Call("POST", "mkdirs", {"path": path}, True, _parse_nothing, service=_WORKSPACE_SERVICE)


def _current_user() -> Call[str]:
    return Call("GET", "scim/v2/Me", {}, True, _parse_user_name, service="preview")


def _parse_nothing(_response: Mapping[str, Any]) -> None:
    return None


def _parse_user_name(response: Mapping[str, Any]) -> str:
    name = response.get("userName")
    if not isinstance(name, str) or not name:
        raise InvalidResponseError("is not text", ("userName",))
    return name

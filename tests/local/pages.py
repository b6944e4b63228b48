"""The pages of a local workspace, as the tests read them."""

from __future__ import annotations

import re
from typing import Any

import requests

from airflow_jobs_provider.local.workspace import LocalWorkspace
from tests.helpers.html_checks import problems_of
from tests.local.api import CLUSTER, Api

__all__ = ["EVIL", "NOTEBOOK", "TWO_TASKS", "key_of", "listed", "read", "version_of"]

EVIL = "<script>alert(1)</script>"
NOTEBOOK: dict[str, Any] = {"notebook_task": {"notebook_path": "/Shared/etl"}, **CLUSTER}
TWO_TASKS = [
    {"task_key": "load", **NOTEBOOK},
    {"task_key": "report", "depends_on": [{"task_key": "load"}], **NOTEBOOK},
]


def read(api: Api, path: str, status: int = 200) -> str:
    """Return a page, whose HTML has no fault."""
    page = requests.get(api.workspace.url + path, timeout=60)
    assert page.status_code == status
    assert problems_of(page.text) == []
    return page.text


def key_of(api: Api) -> str:
    """Return the key of the pages."""
    assert isinstance(api.workspace, LocalWorkspace)
    return api.workspace.pages_url.partition("#key=")[2]


def listed(html: str) -> list[int]:
    """Return the runs that a page lists."""
    return [int(run_id) for run_id in re.findall(r'"Run"><a href="/runs/(\d+)"', html)]


def version_of(page: str) -> str:
    """Return the version of the state that a page shows."""
    found = re.search(r'data-version="(\w+)"', page)
    assert found
    return found[1]

"""docs/connections.md has a connection to copy for each method, and names the tests that run it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import Connection

from airflow_jobs_provider.hooks import aws
from airflow_jobs_provider.hooks.connection import WorkspaceAccess
from tests.helpers.login_methods import METHODS, METHODS_OF_THE_SDK

PAGE = (Path(__file__).parents[2] / "docs" / "connections.md").read_text()
EXPORTED = re.compile(r"AIRFLOW_CONN_DATABRICKS_DEFAULT='(\{.*?\})'", re.DOTALL)
ROW = re.compile(r"^\| (`[\w-]+`|none) \| `(\{.*?\})` \|", re.MULTILINE)
HOST = "https://dbc-a1b2c3d4-e5f6.cloud.databricks.com"
EXPECTED = [
    "access token of the connection",
    "OAuth service principal 11111111",
    "Azure service principal 11111111",
    "Azure managed identity 11111111",
    "default Azure credential",
    "federation with Kubernetes as 11111111",
    "federation with Kubernetes as 11111111",
    "federation with AWS as 11111111",
    "federation with my_package.tokens.fetch_token",
    "user and password of me@example.com",
    "oauth-m2m of databricks-sdk 11111111",
    "the environment (DATABRICKS_HOST is the connection's host)",
]


def described(connection: dict[str, Any]) -> str:
    """Return which method a connection has, and of which principal."""
    extra = json.dumps(connection.pop("extra", {}))
    read = WorkspaceAccess.from_connection(Connection(conn_id="c", extra=extra, **connection))
    return read.credentials.description


def test_the_connections_to_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is JSON that Airflow takes, and has the method that its section is about."""
    monkeypatch.setenv("DATABRICKS_HOST", HOST)
    # The Amazon provider is not installed.
    monkeypatch.setattr(aws, "security_token_service", lambda _id: None)
    found = [described(json.loads(text)) for text in EXPORTED.findall(PAGE)]
    for description, expected in zip(found, EXPECTED, strict=True):
        assert description.startswith(expected)


@pytest.mark.parametrize(("name", "extra"), ROW.findall(PAGE))
def test_the_extras_to_copy(name: str, extra: str) -> None:
    """Each selects the method of its row."""
    method = "profile prod" if name == "none" else name.strip("`")
    connection = {"conn_type": "databricks_jobs", "host": HOST, "extra": json.loads(extra)}
    assert described(connection).startswith(f"{method} of databricks-sdk")


def test_the_page_names_the_test_of_each_method() -> None:
    """And none that does not exist."""
    named = set(re.findall(r"`(?:test_login_methods\.py)?\[([\w-]+)\]`", PAGE)) - {"auth", "azure"}
    methods = {method.name for method in (*METHODS, *METHODS_OF_THE_SDK)}
    assert named == methods
    assert len(ROW.findall(PAGE)) == 13

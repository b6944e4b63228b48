"""dagster-databricks works on the local workspace as on Databricks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.real_clients.client import Client

# It installs the whole of Spark, which takes minutes.
pytestmark = [pytest.mark.real_clients, pytest.mark.thorough]


def test_ops(client_of: Callable[..., Client]) -> None:
    """Its ops submit a run, run a job and fail with a run; its client stores files."""
    client = client_of("dagster", "dagster-databricks==0.29.27")
    seen = client.json("python", str(Path(__file__).with_name("drive_dagster.py")))
    assert seen["outcomes"] == {"submit": True, "run_now": True, "fails": False}
    assert seen["results"] == ["hello Dagster", "hello a job", None]
    assert seen["file"] == "of Dagster"

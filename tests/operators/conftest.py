"""Fixtures of the tests of operators."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helpers.workflow_group import Airflow


@pytest.fixture
def cleared(monkeypatch: pytest.MonkeyPatch, context: Any) -> Airflow:
    """A group of which the tasks a and b have failed, and were cleared together."""
    airflow = Airflow(monkeypatch)
    for key, run_id in zip("abc", (100, 101, 102), strict=True):
        airflow.record(key, reported=run_id, max_tries=0)
    airflow.states |= {"etl.a": "running", "etl.b": None}
    return airflow

"""Fixtures of the tests of sensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.fake_service import FakeService
from tests.helpers.tasks import TaskInstance


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeService]:
    """The service with the job "nightly", and the connection to it."""
    with FakeService() as running:
        running.jobs[3] = {"name": "nightly"}
        monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", running.connection)
        yield running


@pytest.fixture
def context() -> Any:
    """A task's context."""
    return {"ti": TaskInstance(), "dag_run": None, "task": None}

"""Shared fixtures of the tests of authentication."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_jobs_provider.api.auth import shared
from tests.fakes.identity import Certificates
from tests.helpers.login_world import World, served_world


@pytest.fixture
def world(
    tmp_path: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    """A workspace and identity services, and a process that has fetched no token yet."""
    monkeypatch.setattr(shared, "_shared", type(shared._shared)())
    with served_world(tmp_path, certificates, monkeypatch) as one:
        yield one

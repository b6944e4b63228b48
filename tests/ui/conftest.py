"""The plugin's application with Airflow's authentication and a metadata database."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.metadata import Metadata, make_database, metadata_database


@pytest.fixture(scope="package")
def application() -> Iterator[tuple[Any, Any]]:
    """The plugin's application, mounted as the API server does, and the auth manager."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__CORE__AUTH_MANAGER", "tests.helpers.page_users.PageUsers")
        patch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "a secret of these tests, 64 bytes long " * 2)
        from airflow.api_fastapi.app import create_auth_manager, purge_cached_app
        from fastapi import FastAPI

        from airflow_jobs_provider.plugin import DatabricksJobsPlugin

        server = FastAPI()
        (described,) = DatabricksJobsPlugin().fastapi_apps
        server.mount(described["url_prefix"], described["app"])
        yield server, create_auth_manager()
        purge_cached_app()


@pytest.fixture(scope="package")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A metadata database to copy."""
    file = tmp_path_factory.mktemp("metadata") / "airflow.db"
    make_database(file)
    return file


@pytest.fixture
def metadata(tmp_path: Path, empty_database: Path, application: Any) -> Iterator[Metadata]:
    """An empty metadata database."""
    with metadata_database(Path(shutil.copy(empty_database, tmp_path))) as made:
        yield made

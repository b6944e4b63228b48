"""Fixtures of the tests of launches in the triggerer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.fakes.fake_service import FakeService, Plan

if TYPE_CHECKING:
    from tests.helpers.group_in_triggerer import GroupInTriggerer


@pytest.fixture(scope="module")
def running() -> Iterator[FakeService]:
    """A service for all tests of this module."""
    with FakeService() as service:
        yield service


@pytest.fixture
def service(running: FakeService) -> FakeService:
    """A service whose runs succeed at the second read."""
    running.forget()
    running.plan, running.accepts = Plan(), None
    return running


@pytest.fixture
def group(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> GroupInTriggerer:
    """A group of three tasks, of which none has started."""
    # Before Airflow 3.3 it cannot be imported, and the tests are skipped.
    from tests.helpers.group_in_triggerer import GroupInTriggerer, group_dag

    return GroupInTriggerer(group_dag(), service, monkeypatch)


@pytest.fixture
def launched(group: GroupInTriggerer) -> GroupInTriggerer:
    """A group whose run was launched; its tasks run until a test ends them."""
    from tests.helpers.launch_trigger import succeeded

    assert succeeded(group.launch())
    return group

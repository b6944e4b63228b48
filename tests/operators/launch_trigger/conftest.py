"""Fixtures of the tests of launches in the triggerer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.fake_service import FakeService, Plan


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

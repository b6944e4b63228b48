"""Credentials that the clients of a process share."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest

from airflow_jobs_provider.api.auth import AccessToken, CachedCredentials, shared_credentials
from airflow_jobs_provider.api.auth import shared as module
from airflow_jobs_provider.api.errors import CredentialsError, TokenRefusedError


class Fake(CachedCredentials):
    """Credentials that can be told to fail."""

    failure: Exception | None = None

    def fetch_token(self) -> AccessToken:
        """Return a token, or fail."""
        if self.failure is not None:
            raise self.failure
        return AccessToken("t")


@pytest.fixture(autouse=True)
def _empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials of other tests."""
    monkeypatch.setattr(module, "_shared", OrderedDict())


def shared(**settings: Any) -> CachedCredentials:
    """Return the credentials for these settings."""
    return shared_credentials(settings, Fake)


def test_one_for_the_same_settings() -> None:
    """In whatever order they are; another one for other settings."""
    one = shared(host="h", secret="s")
    assert shared(secret="s", host="h") is one
    assert shared(host="h", secret="other") is not one


def test_their_number_is_bounded() -> None:
    """The ones that were unused for longest are dropped; no secret is kept."""
    first = shared(secret="hush-0")
    for number in range(1, module.MAX_SHARED):
        shared(secret=f"hush-{number}")
    assert shared(secret="hush-0") is first
    shared(secret="hush-new")
    assert len(module._shared) == module.MAX_SHARED
    assert shared(secret="hush-0") is first
    assert "hush" not in repr(module._shared)


@pytest.mark.parametrize("failure", [TokenRefusedError("no"), CredentialsError("no"), OSError("?")])
def test_refused_ones_are_made_anew(failure: Exception) -> None:
    """What they were made of may have changed, such as another connection."""
    one = shared(host="h")
    assert isinstance(one, Fake)
    one.failure = failure
    with pytest.raises(CredentialsError):
        one.headers()
    assert shared(host="h") is not one

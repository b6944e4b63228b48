"""What identity services and their libraries say is quoted without secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_jobs_provider.api.auth.sdk.azure_identity import AzureIdentityCredentials
from airflow_jobs_provider.api.auth.sdk.extras import require
from airflow_jobs_provider.api.auth.sdk.identity_client import IdentityClient
from airflow_jobs_provider.api.auth.sdk.unified import UnifiedCredentials
from airflow_jobs_provider.api.auth.transport import Transport
from airflow_jobs_provider.api.errors import (
    CredentialsError,
    JobsAPIError,
    TokenRefusedError,
    TokenUnavailableError,
)
from tests.fakes.scripted_server import ScriptedServer, answer

SECRET = "hush-and-again-hush"


@pytest.mark.parametrize("status", [400, 401, 429, 503])
def test_a_response_that_quotes_the_secret(status: int, server: ScriptedServer) -> None:
    """Whatever the status; the rest of the description is shown."""
    server.will(answer({"error": "e", "error_description": f"no {SECRET} here"}, status))
    client = IdentityClient(Transport(server.url), "a method", "Check it")
    with pytest.raises(JobsAPIError, match=r"no \*\*\* here"):
        client.send("POST", f"{server.url}/token", body=b"{}", secrets=["", SECRET])


@pytest.mark.parametrize("length", range(590, 602))
def test_a_long_text_that_quotes_the_secret(length: int) -> None:
    """No part of it is left where the text is cut."""
    credentials = UnifiedCredentials(
        "a method", Transport("https://w.net"), {"client_secret": SECRET}, advice="Check it"
    )
    text = str(credentials._translate(ValueError(f"{'x' * length}{SECRET}.")))
    assert "hu" not in text
    assert text.endswith(". Check it")
    assert ".." not in text


@pytest.mark.slow  # azure-core takes long to import
@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (". Token request error: (invalid_request) Identity not found", TokenRefusedError),
        (". invalid_request", TokenRefusedError),  # azure-identity before 1.25.1
        (".", TokenUnavailableError),
    ],
)
def test_a_managed_identity_that_is_refused(text: str, kind: type[JobsAPIError]) -> None:
    """All that azure-identity keeps of the response is a text, which differs between releases."""
    from azure.identity import CredentialUnavailableError

    error = CredentialUnavailableError(
        "ManagedIdentityCredential authentication unavailable, no response from the IMDS endpoint"
        + text
    )
    credentials = AzureIdentityCredentials(Transport("https://w.net"), "managed")
    assert type(credentials._translate(error)) is kind


@pytest.mark.parametrize(
    ("imports", "reason"),
    [
        ("from json import no_such_name", "json is too old or broken"),
        ("import no_such_module", "no_such_module is not installed"),
    ],
)
def test_a_package_that_is_too_old(
    imports: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is installed, so nobody is told that it is not."""
    (tmp_path / "needs_more.py").write_text(imports)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CredentialsError, match=reason):
        require("needs_more", method="a method", install="airflow-jobs-provider[auth]")

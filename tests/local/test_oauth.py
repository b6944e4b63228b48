"""The workspace issues OAuth tokens, accepts them, and refuses expired ones."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import requests

from airflow_jobs_provider.local.http.oauth import CLIENT_ID, OAuth
from airflow_jobs_provider.local.workspace import LocalWorkspace
from tests.local.program import Program

SECRET = "a-client-secret%41+/="
FORM = {"grant_type": "client_credentials", "scope": "all-apis"}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalWorkspace]:
    """A workspace that accepts OAuth tokens only."""
    root = tmp_path_factory.mktemp("workspace")
    with LocalWorkspace(root, token=SECRET, oauth=True, token_lifetime_seconds=120) as one:
        yield one


def ask_for_token(
    workspace: LocalWorkspace, client: Any = (CLIENT_ID, SECRET), **form: str
) -> requests.Response:
    """Ask the endpoint of the discovery document for a token."""
    url = f"{workspace.url}/.well-known/databricks-config"
    oidc = requests.get(url, timeout=10).json()["oidc_endpoint"]
    url = f"{oidc}/.well-known/oauth-authorization-server"
    endpoint = requests.get(url, timeout=10).json()["token_endpoint"]
    return requests.post(endpoint, data={**FORM, **form}, auth=client, timeout=10)


def read(workspace: LocalWorkspace, token: str, path: str = "2.0/jobs/list") -> requests.Response:
    """Send a request of the API."""
    headers = {"Authorization": f"Bearer {token}"}
    return requests.get(f"{workspace.url}/api/{path}", headers=headers, timeout=10)


def test_a_token_is_issued_and_accepted(workspace: LocalWorkspace) -> None:
    """Client id and secret in a header or in the form; the API tells who the caller is."""
    answer = ask_for_token(workspace)
    assert answer.headers["Cache-Control"] == "no-store"
    token = answer.json().pop("access_token")
    assert answer.json() == {
        "access_token": token,
        "token_type": "Bearer",
        "expires_in": 120,
        "scope": "all-apis",
    }
    fields = {"client_id": workspace.client_id, "client_secret": SECRET}
    in_form = ask_for_token(workspace, None, **fields).json()["access_token"]
    for one in (token, in_form):
        assert read(workspace, one).status_code == 200
    me = read(workspace, token, "2.0/preview/scim/v2/Me").json()
    assert me["userName"] == workspace.client_id


@pytest.mark.parametrize(
    ("client", "form", "error"),
    [
        ((CLIENT_ID, "wrong"), {}, (401, "invalid_client")),
        (("other", SECRET), {}, (401, "invalid_client")),
        (None, {}, (401, "invalid_client")),
        ((CLIENT_ID, SECRET), {"grant_type": "password"}, (400, "unsupported_grant_type")),
        ((CLIENT_ID, SECRET), {"scope": "sql"}, (400, "invalid_scope")),
        ((CLIENT_ID, SECRET), {"more": "x" * 20_000}, (400, "invalid_request")),
    ],
)
def test_a_request_for_a_token_is_checked(
    workspace: LocalWorkspace, client: Any, form: dict[str, str], error: tuple[int, str]
) -> None:
    """The errors are those of RFC 6749; none of them quotes the secret."""
    answer = ask_for_token(workspace, client, **form)
    assert (answer.status_code, answer.json()["error"]) == error
    assert SECRET not in answer.text


def test_a_form_may_arrive_in_parts(workspace: LocalWorkspace) -> None:
    """A proxy may cut a body anywhere."""
    form = {**FORM, "client_id": workspace.client_id, "client_secret": SECRET}
    body = urlencode(form).encode()

    def parts() -> Iterator[bytes]:
        yield body[:20]
        # What came before has arrived when a request that was sent later is answered.
        requests.get(f"{workspace.url}/.well-known/databricks-config", timeout=10)
        yield body[20:]

    answer = requests.post(f"{workspace.url}/oidc/v1/token", data=parts(), timeout=10)
    assert answer.status_code == 200


@pytest.mark.parametrize("token", [SECRET, "x", "a.b.c", "..", ""])
def test_other_tokens_are_refused(workspace: LocalWorkspace, token: str) -> None:
    """The client secret is no token here, nor is a token with a changed part."""
    assert read(workspace, token).status_code == 403


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_changed_token_is_refused(workspace: LocalWorkspace, part: int) -> None:
    """Each part is signed."""
    parts = ask_for_token(workspace).json()["access_token"].split(".")
    parts[part] = "e30"
    assert read(workspace, ".".join(parts)).status_code == 403


def test_an_expired_token_is_refused(tmp_path: Path) -> None:
    """With the service's words; a workspace that was started again takes its old tokens."""
    now = [1000.0]
    oauth = OAuth(SECRET.encode(), 60, 1.0, lambda: now[0])
    expired = oauth._issue()
    living = OAuth(SECRET.encode(), 3600, 1.0)._issue()
    with LocalWorkspace(tmp_path, token=SECRET) as workspace:
        answer = read(workspace, expired)
        assert (answer.status_code, answer.json()["message"]) == (403, "JWT has expired")
        assert read(workspace, living).status_code == 200
        # Without --oauth the access token itself is accepted, too.
        assert read(workspace, SECRET).status_code == 200
        me = read(workspace, SECRET, "2.0/preview/scim/v2/Me").json()
        assert me["userName"] != workspace.client_id


def test_the_program_prints_a_connection(tmp_path: Path, programs: list[Program]) -> None:
    """With --oauth: client id and secret, with which the hook can log in."""
    program = Program(tmp_path, "--port", "0", "--oauth", "--token-lifetime", "60")
    programs.append(program)
    connection: dict[str, Any] = dict(program.connection())
    assert connection["login"] == CLIENT_ID
    assert connection["extra"] == {"service_principal_oauth": True}
    answer = requests.post(
        f"{connection['host']}/oidc/v1/token",
        data=FORM,
        auth=(connection["login"], connection["password"]),
        timeout=10,
    )
    assert answer.json()["expires_in"] == 60
    program.process.send_signal(signal.SIGTERM)
    assert program.end()[1] == ""


@pytest.mark.slow  # the SDK takes seconds to import
def test_the_sdk_logs_in(workspace: LocalWorkspace) -> None:
    """databricks-sdk's own client finds the endpoint, and uses the Jobs API."""
    sdk = pytest.importorskip("databricks.sdk")
    client = sdk.WorkspaceClient(
        host=workspace.url, client_id=workspace.client_id, client_secret=SECRET
    )
    assert client.config.auth_type == "oauth-m2m"
    assert client.current_user.me().user_name == workspace.client_id
    assert list(client.jobs.list()) == []
    wrong = sdk.WorkspaceClient(
        host=workspace.url, client_id=workspace.client_id, client_secret="wrong"
    )
    with pytest.raises(ValueError, match="invalid_client"):
        wrong.current_user.me()
    expiry = client.config.oauth_token().expiry
    assert 100 < expiry.timestamp() - time.time() <= 120

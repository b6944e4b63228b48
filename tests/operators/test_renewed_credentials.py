"""Refused credentials while a run is waited for, and a connection that cannot be read anew."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
from collections.abc import Callable
from typing import Any

import pytest

from airflow_jobs_provider.api import endpoints
from airflow_jobs_provider.api.errors import AuthenticationError
from airflow_jobs_provider.api.retry import no_waiting
from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
from tests.fakes.scripted_server import TOKEN, ScriptedServer, answer
from tests.helpers.responses import LAUNCHED, OUTPUT, RUNNING, SUCCEEDED
from tests.helpers.tasks import deferred_by, events, submit

CONNECTION = "AIRFLOW_CONN_DATABRICKS_DEFAULT"
FORBIDDEN = answer({"error_code": 403, "message": "Invalid access token."}, 403)
# Airflow 3.0 does not find such a connection.
_EXTRA = "the extra of connection|isn.t defined"
# What becomes of the connection, and what the messages say about it.
BROKEN = {
    "missing": (None, "databricks_default"),
    "no host": ({"host": ""}, "has no host"),
    "no token": ({"password": ""}, "there are no credentials"),
    "extra is no JSON": ({"password": "", "extra": "{nonsense"}, _EXTRA),
    "extra is no object": ({"extra": "[1]"}, _EXTRA),
    "invalid field in extra": ({"extra": '{"timeout_seconds": "soon"}'}, "timeout_seconds"),
}


@pytest.fixture(params=[False, True], ids=["on a worker", "in the triggerer"])
def wait(
    request: pytest.FixtureRequest, context: Any, server: ScriptedServer
) -> Callable[..., Any]:
    """Launch a run, wait for it with the answers that are given, and return its output."""

    def launch_and_wait(*steps: Any) -> Any:
        server.will(LAUNCHED, RUNNING)
        operator = submit(deferrable=request.param)
        if not request.param:
            server.will(*steps)
            return operator.execute(context)
        deferral = deferred_by(operator, context)
        server.will(*steps)
        (event,) = events(deferral.trigger)
        return operator.execute_complete(context, event, **deferral.kwargs or {})

    return launch_and_wait


def refused_and(change: Callable[[], None]) -> Callable[[socket.socket], None]:
    """Return an answer that refuses the credentials, and changes the connection before."""

    def answer_and_change(connection: socket.socket) -> None:
        change()
        FORBIDDEN(connection)

    return answer_and_change


def change_connection(monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any] | None) -> None:
    """Change the connection, or delete it."""
    if changes is None:
        monkeypatch.delenv(CONNECTION)
    else:
        known = json.loads(os.environ[CONNECTION])
        monkeypatch.setenv(CONNECTION, json.dumps({**known, **changes}))


@pytest.mark.parametrize("kind", BROKEN)
def test_a_connection_that_cannot_be_used_for_a_moment(
    kind: str,
    wait: Callable[..., Any],
    context: Any,
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is read anew after each refusal. The credentials stay meanwhile, and one line says why."""
    known = os.environ[CONNECTION]
    changes, what = BROKEN[kind]

    def mend() -> None:
        monkeypatch.setenv(CONNECTION, known)

    broken = refused_and(lambda: change_connection(monkeypatch, changes))
    with no_waiting():
        assert wait(broken, FORBIDDEN, FORBIDDEN, refused_and(mend), SUCCEEDED, OUTPUT) == "42"
    assert not server.steps
    lines = [line for line in caplog.messages if "The refused credentials stay" in line]
    assert len(lines) == 1
    assert re.search(what, lines[0])


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("is_async", [False, True])
def test_a_connection_that_cannot_be_used_any_more(
    kind: str,
    context: Any,
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    is_async: bool,
) -> None:
    """The wait ends when refused credentials end it, and its error says what is wrong with it."""
    changes, what = BROKEN[kind]
    server.will(refused_and(lambda: change_connection(monkeypatch, changes)), *[FORBIDDEN] * 100)
    hook, call = DatabricksJobsHook(), endpoints.get_run(7)
    polling = hook.retry_policy().without_deadline()

    async def wait() -> None:
        async with hook.async_client() as client:
            await client.send(call, retries=polling)

    def wait_on_worker() -> None:
        hook.client.send(call, retries=polling)

    with no_waiting() as waits, pytest.raises(AuthenticationError) as failed:
        asyncio.run(wait()) if is_async else wait_on_worker()
    assert "Invalid access token" in str(failed.value)
    assert re.search(what, str(failed.value))
    assert 13 * 60 <= sum(waits) <= 15 * 60


def test_refused_credentials_are_replaced_by_those_of_the_changed_connection(
    context: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 403 in the middle of a wait gets the connection read anew before the next read."""
    operator = submit(databricks_retry_delay=0.01)
    rotate = refused_and(lambda: change_connection(monkeypatch, {"password": "fresh"}))
    server.will(LAUNCHED, RUNNING, rotate, SUCCEEDED, OUTPUT)
    assert operator.execute(context) == "42"
    assert [r.headers["authorization"] for r in server.requests] == [
        *[f"Bearer {TOKEN}"] * 3,
        *["Bearer fresh"] * 2,
    ]

"""Each authentication method end to end: a connection, the vendors' libraries, real protocols.

The libraries take seconds to import.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import Connection

from airflow_jobs_provider.api.auth import CachedCredentials
from airflow_jobs_provider.api.errors import (
    JobsAPIError,
    TokenRefusedError,
    TokenUnavailableError,
)
from airflow_jobs_provider.api.retry import no_waiting
from airflow_jobs_provider.hooks.connection import WorkspaceAccess
from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
from tests.fakes.identity import FAULTS
from tests.helpers.login_methods import METHODS, METHODS_OF_THE_SDK, LoginMethod
from tests.helpers.login_world import World

pytestmark = pytest.mark.slow

NOTEBOOK = {"notebook_task": {"notebook_path": "/n"}, "existing_cluster_id": "c"}


@pytest.fixture(params=METHODS, ids=lambda method: method.name)
def method(request: pytest.FixtureRequest) -> LoginMethod:
    """Each method."""
    one: LoginMethod = request.param
    return one


@pytest.fixture(params=["", "a_"], ids=["blocking", "asyncio"])
def prefix(request: pytest.FixtureRequest) -> str:
    """The prefix of a face's methods."""
    return str(request.param)


def caller(prefix: str, connection: dict[str, Any], world: World) -> Callable[..., Any]:
    """Return what calls a method of a new hook."""
    world.monkeypatch.setenv("AIRFLOW_CONN_C", json.dumps(connection))

    def call(name: str, *arguments: Any) -> Any:
        result = getattr(DatabricksJobsHook("c"), prefix + name)(*arguments)
        return asyncio.run(result) if inspect.iscoroutine(result) else result

    return call


@pytest.mark.parametrize("method", [*METHODS, *METHODS_OF_THE_SDK], ids=lambda method: method.name)
def test_launch_poll_output_and_cancel(
    method: LoginMethod, prefix: str, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """All requests of a run carry a token that was fetched once, however many hooks there are.

    No token, secret or assertion is logged, at DEBUG.
    """
    caplog.set_level(logging.DEBUG)
    call = caller(prefix, method.connection(world), world)
    run_id = call("submit_run", NOTEBOOK)
    assert call("get_run", run_id)["run_id"] == run_id
    assert call("get_run_output", run_id)["metadata"]["run_id"] == run_id
    call("cancel_run", run_id)
    assert [one.endpoint for one in world.workspace.seen] == [
        "runs/submit",
        "runs/get",
        "runs/get-output",
        "runs/cancel",
    ]
    headers = [
        {name.lower(): value for name, value in one.headers.items()} for one in world.workspace.seen
    ]
    assert len({one["authorization"] for one in headers}) == 1
    with_resource = "resource_id" in method.name
    found = ["x-databricks-azure-sp-management-token" in one for one in headers]
    assert found == [with_resource or method.name == "azure-cli"] * 4
    assert len(method.endpoint(world.identity).requests) == method.requests + with_resource
    for secret in (*method.keeps_secret, *world.identity.issuer.issued):
        assert secret not in caplog.text


@pytest.mark.parametrize("method", [*METHODS, *METHODS_OF_THE_SDK], ids=lambda method: method.name)
def test_a_refused_secret_fails_the_launch_at_once(
    method: LoginMethod, prefix: str, world: World
) -> None:
    """The message names the service, its words and what to check; nothing was sent or waited."""
    call = caller(prefix, method.connection(world), world)
    method.refuse(world)
    with no_waiting() as waits, pytest.raises(TokenRefusedError, match=method.refusal) as caught:
        call("submit_run", NOTEBOOK)
    assert (world.workspace.seen, waits) == ([], [])
    assert not caught.value.outcome_unknown
    assert "token into" not in str(caught.value)
    if method.name.startswith("federated"):
        assert "assword" not in str(caught.value)


@pytest.mark.parametrize(
    "method", [one for one in METHODS if one.expire], ids=lambda method: method.name
)
def test_an_expired_secret_fails_the_launch_at_once(
    method: LoginMethod, prefix: str, world: World
) -> None:
    """The message has the service's words."""
    assert method.expire is not None
    call = caller(prefix, method.connection(world), world)
    method.expire(world)
    with no_waiting() as waits, pytest.raises(TokenRefusedError, match=method.expired):
        call("submit_run", NOTEBOOK)
    assert (world.workspace.seen, waits) == ([], [])


def test_a_token_endpoint_that_is_down_is_waited_for(
    method: LoginMethod, prefix: str, world: World
) -> None:
    """An outage of the identity service is one like any other; the launch is sent once."""
    call = caller(prefix, method.connection(world), world)
    endpoint = method.endpoint(world.identity)
    # azure-identity repeats a request once by itself.
    endpoint.faults.extend([FAULTS["503"]] * 4)
    with no_waiting() as waits:
        call("submit_run", NOTEBOOK)
    assert 0 < len(waits) <= 4
    assert [one.endpoint for one in world.workspace.seen] == ["runs/submit"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_token_endpoint_that_stays_down(fault: str, prefix: str, world: World) -> None:
    """After the ten minutes of any outage the launch fails; the message names the host."""
    method = METHODS[0]
    call = caller(prefix, method.connection(world), world)
    # A Retry-After of a second would take 600 requests.
    later = {name: "60" for name in FAULTS[fault].headers if name == "Retry-After"}
    world.identity.workspace.fault = replace(FAULTS[fault], headers=later)
    with no_waiting() as waits, pytest.raises(JobsAPIError) as caught:
        call("submit_run", NOTEBOOK)
    assert 300 <= sum(waits) <= 600
    assert world.workspace.seen == []
    assert not caught.value.outcome_unknown
    if fault != "429":
        assert isinstance(caught.value, TokenUnavailableError)
        assert f"127.0.0.1:{world.workspace.port}" in str(caught.value)


@pytest.mark.parametrize("method", [*METHODS, *METHODS_OF_THE_SDK], ids=lambda method: method.name)
@pytest.mark.parametrize("seconds", [-300, 300])
def test_a_clock_that_differs(
    seconds: float, method: LoginMethod, prefix: str, world: World
) -> None:
    """Five minutes between this machine and the services: tokens work, and are kept."""
    world.identity.issuer.offset_seconds = seconds
    call = caller(prefix, method.connection(world), world)
    run_id = call("submit_run", NOTEBOOK)
    call("get_run", run_id)
    assert len({one.authorization for one in world.workspace.seen}) == 1


@pytest.mark.parametrize(("seconds", "where"), [(-300, "ahead of"), (300, "behind")])
def test_a_refusal_names_the_difference_of_the_clocks(
    seconds: float, where: str, prefix: str, world: World
) -> None:
    """A token to exchange may be refused because it is not valid yet, or no longer."""
    (method,) = (one for one in METHODS if one.name == "k8s_projected_volume")
    world.identity.issuer.lifetime_seconds = 200
    call = caller(prefix, method.connection(world), world)
    world.identity.issuer.offset_seconds = seconds
    reason = "not valid yet" if seconds < 0 else "has expired"
    words = rf"{reason}.*federation policy.*clock is (299|300|301) s {where} that of 127"
    with pytest.raises(TokenRefusedError, match=words):
        call("submit_run", NOTEBOOK)


@pytest.fixture(params=["Asia/Tokyo", "America/New_York"])
def _time_zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A time zone of this machine that is not UTC."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("_time_zone")
@pytest.mark.parametrize("zone", ["Z", ".123456789Z", ".123456789+00:00"])
def test_the_expiry_that_a_command_prints(zone: str, world: World) -> None:
    """databricks-cli names the time zone, which the SDK drops; the token knows its expiry."""
    (method,) = (one for one in METHODS_OF_THE_SDK if one.name == "databricks-cli")
    connection = Connection(conn_id="c", **_as_text(method.connection(world)))
    file = world.folder / "answer.json"
    answer = json.loads(file.read_text())
    expiry = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() + 3600))
    file.write_text(json.dumps({**answer, "expiry": expiry + zone}))
    credentials = WorkspaceAccess.from_connection(connection).credentials
    assert isinstance(credentials, CachedCredentials)
    expires_at = credentials.fetch_token().expires_at
    assert expires_at is not None
    assert 3590 < expires_at - time.time() <= 3600


def _as_text(connection: dict[str, Any]) -> dict[str, Any]:
    return {**connection, "extra": json.dumps(connection["extra"])}

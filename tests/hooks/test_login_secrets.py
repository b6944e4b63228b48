"""No secret of any authentication method is shown: logs at DEBUG, tracebacks, reprs, triggers.

What counts as a secret: the secret of the connection, the token of the machine that is exchanged,
and every token that an identity service issued, assertions among them.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_jobs_provider.api.auth import shared
from airflow_jobs_provider.api.errors import JobsAPIError
from airflow_jobs_provider.api.retry import no_waiting
from airflow_jobs_provider.hooks.connection import WorkspaceAccess
from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
from airflow_jobs_provider.triggers.jobs import DatabricksJobRunTrigger
from tests.fakes.identity import FAULTS
from tests.helpers.login_methods import METHODS, METHODS_OF_THE_SDK, LoginMethod
from tests.helpers.login_world import World
from tests.helpers.tracebacks import shown_with_locals

# The vendors' libraries take seconds to import.
pytestmark = pytest.mark.slow
RUN = {"existing_cluster_id": "c", "notebook_task": {"notebook_path": "/n"}}


class Records(logging.Handler):
    """Keeps all records of all loggers as text, with what an exception's traceback shows."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self.lines.append(f"{record.name}: {record.getMessage()} {record.__dict__.get('args')!r}")
        if record.exc_info and record.exc_info[1] is not None:
            self.lines.append(shown_with_locals(record.exc_info[1]))


@pytest.fixture
def records(caplog: pytest.LogCaptureFixture) -> Iterator[Records]:
    """Everything that any library logs, at DEBUG."""
    handler = Records()
    root = logging.getLogger()
    with caplog.at_level(logging.DEBUG):
        root.addHandler(handler)
        yield handler
        root.removeHandler(handler)


def secrets_of(method: LoginMethod, world: World) -> list[str]:
    """Return what must not be shown."""
    # Of a token, its signed part: that is what a client could use.
    tokens = [token.rpartition(".")[0] for token in world.identity.issuer.issued]
    assert tokens
    return [*method.keeps_secret, *tokens]


def assert_hidden(shown: str, secrets: list[str], what: str) -> None:
    """Fail with the line that shows a secret."""
    for secret in secrets:
        found = [line[:300] for line in shown.splitlines() if secret in line]
        assert found == [], f"{what} shows a secret"


def call(prefix: str, name: str, *arguments: Any) -> Any:
    """Call a method of a new hook."""
    result = getattr(DatabricksJobsHook("c"), prefix + name)(*arguments)
    return asyncio.run(result) if prefix else result


def fail(act: Callable[[], object]) -> JobsAPIError:
    """Return the error of what must fail."""
    with no_waiting(), pytest.raises(JobsAPIError) as caught:
        act()
    return caught.value


@pytest.mark.parametrize("prefix", ["", "a_"], ids=["blocking", "asyncio"])
@pytest.mark.parametrize(
    "method", [*METHODS, *METHODS_OF_THE_SDK], ids=lambda method: str(method.name)
)
def test_no_secret_is_shown(
    method: LoginMethod, prefix: str, world: World, records: Records
) -> None:
    """Neither where a run is launched, nor where the token is refused or cannot be fetched."""
    connection = method.connection(world)
    world.monkeypatch.setenv("AIRFLOW_CONN_C", json.dumps(connection))
    run_id = call(prefix, "submit_run", RUN)

    # A refused token is fetched anew; the service is down meanwhile.
    errors = []
    endpoint = method.endpoint(world.identity)
    world.identity.issuer.revoke_all()
    shared._shared.clear()
    endpoint.fault = FAULTS["200 HTML"]
    errors.append(fail(lambda: call(prefix, "get_run", run_id)))
    endpoint.fault = None
    method.refuse(world)
    errors.append(fail(lambda: call(prefix, "submit_run", RUN)))
    shared._shared.clear()
    errors.append(fail(lambda: call(prefix, "submit_run", RUN)))

    secrets = secrets_of(method, world)
    for error in errors:
        assert_hidden(str(error), secrets, "a message")
        assert_hidden(shown_with_locals(error), secrets, "a traceback")
    assert_hidden("\n".join(records.lines), secrets, "a log")
    access = WorkspaceAccess.from_connection(DatabricksJobsHook.get_connection("c"))
    hook = DatabricksJobsHook("c")
    shown = [access, access.credentials, hook, hook.client, vars(hook), access.proxies]
    assert_hidden("\n".join(map(repr, shown)), secrets, "a repr")
    trigger = DatabricksJobRunTrigger(run_id=run_id, databricks_conn_id="c")
    assert_hidden(json.dumps(trigger.serialize()), secrets, "a serialized trigger")

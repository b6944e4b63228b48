from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.dag_run import UNMASKED, DagRun, RunDag
from tests.fakes.fake_service import FAULTS, LAUNCHES, FakeService, Plan, Seen
from tests.fakes.scripted_server import ScriptedServer
from tests.helpers.broken_responses import ANSWERS

HERE = Path(__file__).parent
USER = "somebody@example.com"
SECRETS = {
    "token": "dapi-in-the-password-4711",
    "token_in_extra": "dapi-in-the-extra-0815",
    "user_and_password": "the-password-of-somebody-1234",
    "refused": "dapi-that-is-refused-5678",
    "malformed": "dapi-with-a-line-break-9012",
    "in_the_wrong_field": "dapi-in-the-wrong-field-3456",
    "nowhere": "dapi-for-no-workspace-7890",
    "odd": "dapi-for-odd-answers-2468",
    "proxy": "password-of-a-proxy-1357",
}
BASIC = base64.b64encode(f"{USER}:{SECRETS['user_and_password']}".encode()).decode()
FAILING_JOB = 13
ENDPOINTS = (*LAUNCHES, "runs/get", "runs/get-output")


@pytest.fixture(scope="module")
def service() -> Iterator[FakeService]:
    """A service that refuses what it does not know, and is in trouble after each good answer."""
    with FakeService(Plan(looks=2)) as one:
        one.accepts = {
            f"Bearer {SECRETS['token']}",
            f"Bearer {SECRETS['token_in_extra']}",
            f"Basic {BASIC}",
        }
        one.plans_of_jobs[FAILING_JOB] = Plan("FAILED")
        faults = [fault for name, fault in FAULTS.items() if name != "403"]
        to_come = {endpoint: list(faults) for endpoint in ENDPOINTS}

        def trouble_after_each_answer(seen: Seen, moment: str) -> bool:
            if moment == "handled" and to_come.get(seen.endpoint):
                one.trouble(seen.endpoint, to_come[seen.endpoint].pop())
            return False

        one.hook = trouble_after_each_answer
        yield one


@pytest.fixture(scope="module")
def odd_server() -> Iterator[ScriptedServer]:
    """A server whose answers HTTP libraries stumble over."""
    names = (
        "redirect to a broken address",
        "redirect that is not UTF-8",
        "header that is not UTF-8",
        "broken gzip",
        "status that is no number",
    )
    server = ScriptedServer([ANSWERS[name] for name in names] * 20)
    yield server
    server.close()


@pytest.fixture(scope="module")
def dag_run(service: FakeService, odd_server: ScriptedServer, run_dag: RunDag) -> DagRun:
    """All kinds of tasks with all kinds of credentials, run once at level DEBUG."""
    extra = {"timeout_seconds": 0.5}
    connections: dict[str, dict[str, Any]] = {
        "token": {"password": SECRETS["token"]},
        "token_in_extra": {"extra": {**extra, "token": SECRETS["token_in_extra"]}},
        "user_and_password": {"login": USER, "password": SECRETS["user_and_password"]},
        "refused": {"password": SECRETS["refused"]},
        "malformed": {"password": SECRETS["malformed"] + "\n2"},
        "in_the_wrong_field": {"host": f"https://{SECRETS['in_the_wrong_field']}:x y"},
        "nowhere": {"host": "http://127.0.0.1:1", "password": SECRETS["nowhere"]},
        "odd": {"host": odd_server.url, "password": SECRETS["odd"]},
        "behind_a_proxy": {
            "host": "https://workspace.test.invalid",
            "password": SECRETS["odd"],
            "extra": {"proxies": {"https": f"http://me:{SECRETS['proxy']}@127.0.0.1:1"}},
        },
    }
    common = {"conn_type": "databricks", "host": service.url, "extra": extra}
    return run_dag(
        HERE / "secret_dags" / "keeping_secrets.py",
        connection="{}",
        env=UNMASKED
        | {
            f"AIRFLOW_CONN_{name.upper()}": json.dumps(common | connection)
            for name, connection in connections.items()
        },
    )


def test_the_scenarios_took_place(
    service: FakeService, odd_server: ScriptedServer, dag_run: DagRun
) -> None:
    """What should go well went well, what should not did not, and every secret was in use."""
    assert len(dag_run.tasks) == 37, dag_run.log[-5000:]
    states = {name: task["state"] for name, task in dag_run.tasks.items()}
    wanted = {
        name: "success" if name.endswith(("_blocking", "_deferred")) else "failed"
        for name in states
    }
    wanted |= {name: "failed" for name in states if name.startswith("failing")}
    assert states == wanted, dag_run.log[-5000:]
    assert "DEBUG" in dag_run.log.upper()
    assert len(odd_server.requests) >= 10
    seen = {request.authorization for request in service.seen}
    assert seen == {*(service.accepts or ()), f"Bearer {SECRETS['refused']}"}


@pytest.mark.parametrize("secret", [*SECRETS.values(), BASIC, BASIC.rstrip("=")])
def test_no_secret_anywhere(dag_run: DagRun, secret: str) -> None:
    """Not in the log, exceptions included, nor in any file: database, XComs, rendered templates."""
    lines = [line for line in dag_run.log.splitlines() if secret in line]
    # At DEBUG, and only there, Airflow 3 quotes what it tells itself to mask.
    assert [line for line in lines if "MaskSecret(" not in line] == []
    holders = [
        path.relative_to(dag_run.home)
        for path in dag_run.home.rglob("*")
        if path.is_file() and secret.encode() in path.read_bytes()
    ]
    assert holders == []

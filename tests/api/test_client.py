"""How the clients speak HTTP: what they send, and what they make of the answers."""

from __future__ import annotations

import asyncio
import ssl
import threading
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest

from airflow_jobs_provider.api import endpoints, errors
from airflow_jobs_provider.api.auth import Basic, Token
from airflow_jobs_provider.api.calls import Call
from airflow_jobs_provider.api.client import AsyncJobsClient, JobsClient
from airflow_jobs_provider.api.retry import RetryPolicy
from tests.fakes.scripted_server import (
    TOKEN,
    ScriptedServer,
    answer,
    lose,
)
from tests.helpers.client_face import Face

CALLS: dict[str, tuple[Call[Any], str, str, dict[str, Any]]] = {
    "create": (endpoints.create_job({"name": "n"}), "POST", "create", {"name": "n"}),
    "list": (endpoints.list_jobs(limit=3), "GET", "list", {"limit": "3"}),
    "delete": (endpoints.delete_job(1), "POST", "delete", {"job_id": 1}),
    "get": (endpoints.get_job(1), "GET", "get", {"job_id": "1"}),
    "reset": (
        endpoints.reset_job(1, {"name": "n"}),
        "POST",
        "reset",
        {"job_id": 1, "new_settings": {"name": "n"}},
    ),
    "update": (
        endpoints.update_job(1, {"name": "n"}, ["libraries"]),
        "POST",
        "update",
        {"job_id": 1, "new_settings": {"name": "n"}, "fields_to_remove": ["libraries"]},
    ),
    "run-now": (
        endpoints.run_now({"job_id": 1, "idempotency_token": "t"}),
        "POST",
        "run-now",
        {"job_id": 1, "idempotency_token": "t"},
    ),
    "submit": (
        endpoints.submit_run({"run_name": "r", "idempotency_token": "t"}),
        "POST",
        "runs/submit",
        {"run_name": "r", "idempotency_token": "t"},
    ),
    "runs/list": (
        endpoints.list_runs(
            active_only=True, job_id=1, offset=2, limit=0, run_type="JOB_RUN", completed_only=False
        ),
        "GET",
        "runs/list",
        {
            "active_only": "true",
            "completed_only": "false",
            "job_id": "1",
            "offset": "2",
            "limit": "0",
            "run_type": "JOB_RUN",
        },
    ),
    "runs/get": (endpoints.get_run(7), "GET", "runs/get", {"run_id": "7"}),
    "export": (
        endpoints.export_run(7, "ALL"),
        "GET",
        "runs/export",
        {"run_id": "7", "views_to_export": "ALL"},
    ),
    "cancel": (endpoints.cancel_run(7), "POST", "runs/cancel", {"run_id": 7}),
    "cancel-all": (endpoints.cancel_all_runs(1), "POST", "runs/cancel-all", {"job_id": 1}),
    "get-output": (endpoints.get_run_output(7), "GET", "runs/get-output", {"run_id": "7"}),
    "delete run": (endpoints.delete_run(7), "POST", "runs/delete", {"run_id": 7}),
}


@pytest.mark.parametrize("name", CALLS)
def test_each_endpoint_is_asked_as_the_reference_says(
    name: str, connected: Face, server: ScriptedServer
) -> None:
    """Verb and path are the reference's; a GET's parameters are in the query, a POST's are JSON."""
    call, verb, path, parameters = CALLS[name]
    server.will(answer({"job_id": 1, "run_id": 7}))
    connected.send(call)
    (request,) = server.requests
    # 2.2 for its default of queueing; and a list of jobs with a limit, which 2.0 does not know.
    version = "2.2" if path in ("create", "reset", "list") else "2.0"
    assert (request.verb, request.path) == (verb, f"/api/{version}/jobs/{path}")
    if verb == "GET":
        assert (request.query, request.body) == (parameters, None)
    else:
        assert (request.query, request.body) == ({}, parameters)
    assert request.headers["authorization"] == f"Bearer {TOKEN}"
    assert request.headers["user-agent"].startswith("airflow-jobs-provider/")


def test_all_fifteen_endpoints_are_tested() -> None:
    """No endpoint of the reference is missing from the list above."""
    assert len({call.path for call, *_ in CALLS.values()}) == 15


A_SUBMIT = endpoints.submit_run({"run_job_task": {"job_id": 1}, "idempotency_token": "t"})


@pytest.mark.parametrize(
    ("needs", "default", "pinned", "sent_to"),
    [
        ("2.0", None, None, "2.0"),
        ("2.1", None, None, "2.2"),
        ("2.2", None, None, "2.2"),
        ("2.0", "2.2", None, "2.2"),
        ("2.0", None, "2.1", "2.1"),
        ("2.1", None, "2.1", "2.1"),
        ("2.0", "2.2", "2.0", "2.0"),
    ],
)
def test_the_version_is_the_pinned_one_else_the_calls(
    needs: str,
    default: str | None,
    pinned: str | None,
    sent_to: str,
    face: Face,
    server: ScriptedServer,
) -> None:
    """What 2.0 cannot express goes to 2.2; the client's api_version pins one for all calls."""
    call = A_SUBMIT._replace(min_api_version=needs, default_api_version=default)
    server.will(answer({"run_id": 4}))
    face.connect(server.url, api_version=pinned)
    assert face.send(call) == 4
    assert [request.path for request in server.requests] == [f"/api/{sent_to}/jobs/runs/submit"]


@pytest.mark.parametrize("verb", ["PATCH", "PUT"])
def test_another_service_has_a_version_of_its_own(
    verb: Literal["PATCH", "PUT"], server: ScriptedServer
) -> None:
    """The client's api_version pins the Jobs API, not the permissions beside it."""
    call: Call[None] = Call(
        verb, "jobs/7", {"access_control_list": []}, True, lambda _: None, service="permissions"
    )
    assert call.name == "permissions/jobs/7"
    with JobsClient(server.url, Token(TOKEN), api_version="2.2") as client:
        client.send(call)
    (request,) = server.requests
    assert (request.verb, request.path) == (verb, "/api/2.0/permissions/jobs/7")
    assert request.body == {"access_control_list": []}


def test_launches_and_creation_return_the_id(connected: Face, server: ScriptedServer) -> None:
    """create, run-now and submit give the id as an int."""
    server.will(answer({"job_id": 3}), answer({"run_id": 4, "number_in_job": 1}))
    assert connected.send(endpoints.create_job({})) == 3
    assert connected.send(endpoints.run_now({"job_id": 3})) == 4


def test_a_launch_without_a_token_carries_a_random_one(
    connected: Face, server: ScriptedServer
) -> None:
    """The hook used by hand cannot launch twice by its own repetitions: same token at each try."""
    server.will(lose, answer({"run_id": 4}), answer({"run_id": 5}))
    connected.send(endpoints.submit_run({}))
    connected.send(endpoints.submit_run({}))
    first, again, other = (r.body["idempotency_token"] for r in server.requests)
    assert first == again != other
    assert 0 < len(first) <= 64


NO_IDS = [
    *({}, b"", {"run_id": None}, {"run_id": "12abc"}, {"run_id": [1]}, {"run_id": {}}, [], 7),
    *({"run_id": 1.5}, {"run_id": True}, {"run_id": "1_000"}, {"run_id": -7}, {"run_id": 0}),
    *({"run_id": 2**63}, {"run_id": ""}, b'{"run_id": NaN}', b'{"run_id": 1e400}'),
    b'{"run_id": ' + b"9" * 5000 + b"}",
    b'{"run_id": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
]
no_ids = pytest.mark.parametrize("payload", NO_IDS, ids=lambda payload: repr(payload)[:30])


@no_ids
def test_a_launch_whose_answer_has_no_run_id_counts_as_lost(
    payload: Any, connected: Face, server: ScriptedServer
) -> None:
    """The service may have started the run: the same token, sent again, finds it."""
    for call in (endpoints.submit_run({}), endpoints.run_now({"job_id": 3})):
        server.will(answer(payload), answer({"run_id": "1234567"}))
        assert connected.send(call) == 1234567
        first, again = (r.body["idempotency_token"] for r in server.requests[-2:])
        assert first == again


@no_ids
def test_a_creation_whose_answer_has_no_job_id_is_not_repeated(
    payload: Any, connected: Face, server: ScriptedServer
) -> None:
    """It has no token, so a second request could make a second job."""
    if isinstance(payload, dict):
        payload = {name.replace("run", "job"): value for name, value in payload.items()}
    elif isinstance(payload, bytes):
        payload = payload.replace(b"run_id", b"job_id")
    server.will(answer(payload), answer({"job_id": 3}))
    with pytest.raises(errors.UnexpectedResponseError):
        connected.send(endpoints.create_job({}))
    assert len(server.requests) == 1


def test_a_launch_that_never_answers_a_run_id(connected: Face, server: ScriptedServer) -> None:
    """After ten tries the error tells what came, on one line and cut after 500 characters."""
    server.will(*[answer({"number_in_job": 3, "why": "no\nidea\x1b" + "x" * 1000})] * 20)
    with pytest.raises(errors.UnexpectedResponseError, match="there is no run_id") as caught:
        connected.send(endpoints.run_now({"job_id": 3}))
    assert len(server.requests) == 10
    assert 120 < sum(connected.waits) < 180
    text = str(caught.value)
    assert '{"number_in_job": 3, "why": "no\\nidea\\u001bxxx' in text
    assert 500 < len(text) < 700
    assert text.isprintable()


MISFITS = {
    "not an object": [1],
    "empty": b"",
    "an empty object": {},
    "null": b"null",
    "another run": {"run_id": 8, "state": {"life_cycle_state": "TERMINATED"}},
    "no run id": {"run_id": [7], "state": {"life_cycle_state": "RUNNING"}},
    "state": {"run_id": 7, "state": "RUNNING"},
    "life cycle state": {"run_id": 7, "state": {"life_cycle_state": ["RUNNING"]}},
    "tasks": {"run_id": 7, "tasks": {"task_key": "a"}},
    "a task": {"run_id": 7, "tasks": ["a"]},
    "a task's state": {"run_id": 7, "tasks": [{"run_id": 8, "state": 7}]},
    "a time": {"run_id": 7, "start_time": "yesterday"},
    "nested": b'{"run_id": 7, "state": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_run_that_does_not_fit_is_asked_for_again(
    name: str, connected: Face, server: ScriptedServer
) -> None:
    """An odd answer may be one of many; if all are, the wait for this run fails within minutes."""
    misfit = answer(MISFITS[name])
    run = {"run_id": "7", "state": {"life_cycle_state": "RUNNING"}, "start_time": "17"}
    server.will(misfit, misfit, answer(run))
    without_deadline = RetryPolicy(random=lambda: 0.0).without_deadline()
    read = connected.send(endpoints.get_run(7), retries=without_deadline)
    assert (read["run_id"], read["start_time"]) == (7, 17)
    assert connected.waits == [1, 2]
    server.will(*[misfit] * 20)
    with pytest.raises(errors.UnexpectedResponseError, match="does not fit"):
        connected.send(endpoints.get_run(7), retries=without_deadline)
    assert len(server.requests) == 3 + 10


def test_an_answer_that_does_not_fit_after_a_long_outage(
    connected: Face, server: ScriptedServer
) -> None:
    """What was waited out before does not count for it."""
    server.will(*[answer({}, 503)] * 30, answer({}), answer({}), answer({"run_id": 7}))
    without_deadline = RetryPolicy(random=lambda: 0.0).without_deadline()
    assert connected.send(endpoints.get_run(7), retries=without_deadline) == {"run_id": 7}


def test_the_wait_for_a_turn_does_not_shorten_the_time_for_retries(server: ScriptedServer) -> None:
    """A launch waits for many others, and the service is down when its turn comes."""
    now = 0.0

    @asynccontextmanager
    async def turn() -> AsyncIterator[None]:
        nonlocal now
        now += 700
        yield

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    async def launch() -> int:
        retries = RetryPolicy(random=lambda: 0.0, clock=lambda: now)
        async with AsyncJobsClient(
            server.url, Token(TOKEN), retries=retries, sleep=sleep
        ) as client:
            return await client.send(A_SUBMIT, rate_limit=turn)

    server.will(answer({}, 503), answer({}, 503), answer({"run_id": 7}))
    assert asyncio.run(launch()) == 7
    # Ten minutes of the service's own are the limit as before.
    server.will(*[answer({}, 503)] * 20)
    with pytest.raises(errors.ServerError, match="11 attempts in 570 s"):
        asyncio.run(launch())


def test_the_run_that_was_asked_for(connected: Face, server: ScriptedServer) -> None:
    """Where the answer leaves the id out, or is about the run that a task belongs to."""
    state = {"life_cycle_state": "RUNNING"}
    server.will(answer({"state": state}))
    assert connected.send(endpoints.get_run(7))["run_id"] == 7
    server.will(answer({"run_id": 6, "tasks": [{"run_id": 7}]}))
    assert connected.send(endpoints.get_run(7))["run_id"] == 6


def test_lists_are_followed_page_by_page_as_needed(connected: Face, server: ScriptedServer) -> None:
    """Two pages are fetched to see three runs, though there are more."""
    server.will(
        answer({"runs": [{"run_id": 1}, {"run_id": 2}], "has_more": True}),
        answer({"runs": [{"run_id": 3}, {"run_id": 4}], "has_more": True}),
    )
    assert [r["run_id"] for r in connected.take(endpoints.list_runs(limit=2), 3)] == [1, 2, 3]
    assert [r.query.get("offset") for r in server.requests] == [None, "2"]


def test_lists_end_with_the_last_page(connected: Face, server: ScriptedServer) -> None:
    """Page tokens are followed where the service gives them; an empty list is an empty list."""
    server.will(
        answer({"jobs": [{"job_id": 1}], "next_page_token": "abc"}),
        answer({"jobs": [{"job_id": 2}], "has_more": False}),
        answer({}),
    )
    assert [j["job_id"] for j in connected.take(endpoints.list_jobs(), 9)] == [1, 2]
    assert server.requests[1].query == {"page_token": "abc"}
    assert connected.take(endpoints.list_jobs(), 9) == []


def test_unknown_fields_are_kept(connected: Face, server: ScriptedServer) -> None:
    """A field that a newer service answers reaches the user."""
    server.will(answer({"run_id": 7, "brand_new": {"a": 1}}))
    assert connected.send(endpoints.get_run(7))["brand_new"] == {"a": 1}


def test_tls_certificates_are_checked(
    face: Face, tls_server: ScriptedServer, tmp_path: Path
) -> None:
    """An untrusted certificate is final, nothing is sent; a CA bundle can be named."""
    face.connect(tls_server.url)
    with pytest.raises(errors.CertificateError, match="verify"):
        face.send(endpoints.get_run(7))
    assert (face.waits, tls_server.requests) == ([], [])
    face.connect(tls_server.url, verify=str(tls_server.ca_file))
    assert face.send(endpoints.get_run(7)) == {"run_id": 7}
    face.connect(tls_server.url, verify=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # urllib3's advice against it
        assert face.send(endpoints.get_run(7)) == {"run_id": 7}


def test_a_ca_bundle_is_not_read_in_the_event_loop(
    tls_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes many milliseconds, for which all others would wait; and once is enough."""
    read_in: list[threading.Thread] = []
    create = ssl.create_default_context

    def noted(**arguments: Any) -> ssl.SSLContext:
        read_in.append(threading.current_thread())
        return create(**arguments)

    monkeypatch.setattr(ssl, "create_default_context", noted)

    async def two_at_once() -> list[Any]:
        bundle = str(tls_server.ca_file)
        async with AsyncJobsClient(tls_server.url, Basic("me", "secret"), verify=bundle) as client:
            both = (client.send(endpoints.get_run(7)) for _ in range(2))
            return list(await asyncio.gather(*both))

    assert asyncio.run(two_at_once()) == [{"run_id": 7}] * 2
    (thread,) = read_in
    assert thread is not threading.current_thread()


def test_a_netrc_entry_does_not_replace_the_token(
    face: Face, server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The HTTP libraries read .netrc by themselves; the connection's credentials win."""
    file = tmp_path / "netrc"
    file.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(file))
    face.connect(server.url)
    face.send(endpoints.get_run(7))
    assert server.requests[0].headers["authorization"] == f"Bearer {TOKEN}"


def test_user_and_password(face: Face, server: ScriptedServer) -> None:
    """User and password become a Basic header."""
    face.connect(server.url, Basic("me", "secret"))
    face.send(endpoints.get_run(7))
    assert server.requests[0].headers["authorization"] == "Basic bWU6c2VjcmV0"


def test_the_environments_proxy_is_used(
    face: Face, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both faces go through the proxy that the environment names."""
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    face.connect("http://workspace.invalid", allow_http=True)
    face.send(endpoints.get_run(7))
    assert server.requests[0].headers["host"] == "workspace.invalid"


@pytest.mark.parametrize("kind", [JobsClient, AsyncJobsClient])
def test_no_credentials_over_plain_http_to_another_machine(kind: Any) -> None:
    """Plain http is for this machine only, unless allowed."""
    with pytest.raises(errors.CredentialsError, match="allow_http"):
        kind("http://example.com", Basic("me", "secret"))
    kind("http://example.com", Basic("me", "secret"), allow_http=True)


def test_deleting_what_the_lost_try_deleted_is_done(
    connected: Face, server: ScriptedServer
) -> None:
    """A delete whose answer got lost finds the run gone when repeated; that is success."""
    gone = answer(
        {"error_code": "INVALID_PARAMETER_VALUE", "message": "Run 7 does not exist."}, 400
    )
    server.will(lose, gone)
    connected.send(endpoints.delete_run(7))
    server.will(gone)
    with pytest.raises(errors.NotFoundError):
        connected.send(endpoints.delete_run(7))


def test_no_secret_in_a_repr(face: Face, server: ScriptedServer) -> None:
    """A client in a log line shows no credential."""
    assert TOKEN not in repr(face.connect(server.url))
    assert "secret" not in repr(face.connect(server.url, Basic("me", "secret")))


def test_no_secret_in_a_traceback_with_locals(connected: Face, server: ScriptedServer) -> None:
    """Airflow 3.0 logs exceptions with the local variables of each frame; none shows the token."""
    server.will(answer({"error_code": "BAD", "message": "no"}, 400))
    with pytest.raises(errors.BadRequestError) as caught:
        connected.send(endpoints.get_run(7))
    shown = []
    frame = caught.value.__traceback__
    while frame is not None:
        if "airflow_jobs_provider/api" in frame.tb_frame.f_code.co_filename:
            shown += [repr(value) for value in frame.tb_frame.f_locals.values()]
        frame = frame.tb_next
    assert "Request(" in "".join(shown)
    assert TOKEN not in "".join(shown)


def test_no_secret_in_the_log(
    connected: Face, server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """At DEBUG, neither this package nor the HTTP libraries log the token."""
    caplog.set_level("DEBUG")
    server.will(answer({}, 503), answer({"run_id": 7}))
    connected.send(endpoints.get_run(7))
    assert "runs/get failed" in caplog.text
    assert TOKEN not in caplog.text

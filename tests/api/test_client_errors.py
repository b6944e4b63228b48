"""What the clients make of errors: their types, and which calls are sent again."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_jobs_provider.api import endpoints, errors
from airflow_jobs_provider.api.retry import RetryPolicy
from tests.fakes.scripted_server import (
    TOKEN,
    ScriptedServer,
    answer,
    half_a_body,
    lose,
    never_answer,
    reset,
)
from tests.helpers.client_face import Face

ERRORS: dict[str, tuple[Any, type[errors.JobsAPIError], str]] = {
    "api error": (
        answer({"error_code": "INVALID_PARAMETER_VALUE", "message": "bad thing"}, 400),
        errors.BadRequestError,
        "INVALID_PARAMETER_VALUE: bad thing",
    ),
    "int code": (
        answer({"error_code": 403, "message": "Invalid access token."}, 403),
        errors.AuthenticationError,
        r"answered 403 Invalid access token\.",
    ),
    "401": (answer({}, 401), errors.AuthenticationError, "Check the credentials"),
    "expired": (
        answer({"error_code": "BAD", "message": "OAuth token has expired"}, 400),
        errors.AuthenticationError,
        "expired",
    ),
    "run gone 400": (
        answer({"error_code": "INVALID_PARAMETER_VALUE", "message": "Run 7 does not exist."}, 400),
        errors.NotFoundError,
        "Run 7 does not exist",
    ),
    "run gone 400, other words": (
        answer(
            {"error_code": "INVALID_PARAMETER_VALUE", "message": "Run: 7 in job: 3 doesn't exist"},
            400,
        ),
        errors.NotFoundError,
        "doesn't exist",
    ),
    "job gone 404": (
        answer({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "No such job"}, 404),
        errors.NotFoundError,
        "No such job",
    ),
    "wrong address": (
        answer("<html>Not Found</html>", 404),
        errors.UnexpectedResponseError,
        "host",
    ),
    "redirect": (
        answer("", 302, {"Location": "https://elsewhere.invalid/"}),
        errors.UnexpectedResponseError,
        "redirect",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_final_errors_are_typed_and_not_repeated(
    name: str, connected: Face, server: ScriptedServer
) -> None:
    """A refusal comes through at once, with the API's code and words."""
    step, kind, words = ERRORS[name]
    server.will(step)
    with pytest.raises(kind, match=words) as caught:
        connected.send(endpoints.get_run(7))
    assert type(caught.value) is kind
    assert (len(server.requests), connected.waits) == (1, [])
    assert caught.value.call == "runs/get"
    assert TOKEN not in repr(caught.value) + str(caught.value)


TROUBLE: dict[str, tuple[Any, list[float], bool]] = {
    # step, the first three waits, whether a creation may be repeated
    "lost answer": (lose, [0.5, 1, 2], False),
    "reset": (reset, [0.5, 1, 2], False),
    "time-out": (never_answer, [0.5, 1, 2], False),
    "half a body": (half_a_body, [0.5, 1, 2], False),
    "500": (answer({"error_code": "INTERNAL_ERROR", "message": "oops"}, 500), [30, 60, 60], False),
    "502 HTML": (answer("<html><title>Bad Gateway</title>", 502), [30, 60, 60], False),
    "503 without a body": (answer(b"", 503), [30, 60, 60], False),
    "HTML at 200": (answer("<html><title>Maintenance</title>"), [30, 60, 60], False),
    "429 with Retry-After": (answer({}, 429, {"Retry-After": "17"}), [17, 17, 17], True),
    "429 with a date long gone": (
        answer({}, 429, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}),
        [1, 2, 4],
        True,
    ),
    "429 with a date beyond all time": (
        answer({}, 429, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 +99999999999999"}),
        [1, 2, 4],
        True,
    ),
    "429 with Retry-After 0": (answer({}, 429, {"Retry-After": "0"}), [1, 2, 4], True),
    "429 with a negative Retry-After": (answer({}, 429, {"Retry-After": "-5"}), [1, 2, 4], True),
    "429 with Retry-After nan": (answer({}, 429, {"Retry-After": "nan"}), [1, 2, 4], True),
    "429 with a fraction as Retry-After": (
        answer({}, 429, {"Retry-After": "0.001"}),
        [1, 2, 4],
        True,
    ),
    "429 with an absurd Retry-After": (
        answer({}, 429, {"Retry-After": "99999999"}),
        [300, 300, 300],
        True,
    ),
    "429": (answer({}, 429), [1, 2, 4], True),
    "lock": (
        answer({"error_code": "COULD_NOT_ACQUIRE_LOCK", "message": "busy"}, 400),
        [1, 2, 4],
        True,
    ),
}


def _timeout(name: str) -> float:
    """Return a time-out in seconds that only the server that never answers meets."""
    return 0.05 if name == "time-out" else 10.0


@pytest.mark.parametrize("name", TROUBLE)
def test_passing_trouble_is_waited_out(name: str, face: Face, server: ScriptedServer) -> None:
    """After three failures the fourth try's answer counts, and the waits are the policy's."""
    step, waits, _ = TROUBLE[name]
    no_deadline = RetryPolicy(random=lambda: 0.0, no_deadline=True)
    face.connect(server.url, timeout_seconds=_timeout(name), retries=no_deadline)
    server.will(step, step, step, answer({"run_id": 7}))
    # A launch, since aiohttp by itself repeats a lost GET once, at once.
    assert face.send(endpoints.submit_run({})) == 7
    assert face.waits == waits
    assert len({request.body["idempotency_token"] for request in server.requests}) == 1


@pytest.mark.parametrize("name", TROUBLE)
def test_a_creation_is_not_repeated_once_the_service_may_have_seen_it(
    name: str, face: Face, server: ScriptedServer
) -> None:
    """Creating a job has no idempotency token; a repeated one could make a second job."""
    step, _, repeated = TROUBLE[name]
    face.connect(server.url, timeout_seconds=_timeout(name))
    server.will(step, answer({"job_id": 3}))
    if repeated:
        assert face.send(endpoints.create_job({})) == 3
    else:
        with pytest.raises(errors.JobsAPIError):
            face.send(endpoints.create_job({}))
    assert len(server.requests) == 1 + repeated


def test_the_last_error_comes_through_typed(connected: Face, server: ScriptedServer) -> None:
    """After ten minutes of 503 the error is the server's, and says how long and how often."""
    server.will(*[answer({"error_code": "TEMPORARILY_UNAVAILABLE"}, 503)] * 50)
    with pytest.raises(errors.ServerError, match=r"\d+ attempts in \d+ s") as caught:
        connected.send(endpoints.get_run(7))
    error = caught.value
    assert error.status == 503
    assert error.error_code == "TEMPORARILY_UNAVAILABLE"
    assert error.attempts == len(server.requests) == len(connected.waits) + 1
    assert sum(connected.waits) <= 600 < sum(connected.waits) + 60
    assert min(connected.waits) >= 30


def test_an_endless_policy_waits_out_any_outage(connected: Face, server: ScriptedServer) -> None:
    """A known run is followed through an outage of more than ten minutes."""
    server.will(*[answer({}, 503)] * 40, answer({"run_id": 7}))
    without_deadline = RetryPolicy(random=lambda: 0.0).without_deadline()
    assert connected.send(endpoints.get_run(7), retries=without_deadline) == {"run_id": 7}
    assert sum(connected.waits) > 2000


def test_a_limit_and_delay_of_the_users_own(connected: Face, server: ScriptedServer) -> None:
    """databricks_retry_limit and databricks_retry_delay rule the tries."""
    server.will(*[answer({}, 503)] * 9)
    with pytest.raises(errors.ServerError):
        connected.send(
            endpoints.get_run(7),
            retries=RetryPolicy(max_attempts=3, initial_wait=2, random=lambda: 0.0),
        )
    assert (len(server.requests), connected.waits) == (3, [2, 4])


def test_tenacity_arguments_of_the_users_own(connected: Face, server: ScriptedServer) -> None:
    """databricks_retry_args replace parts of the policy."""
    import tenacity

    server.will(*[answer({}, 503)] * 9)
    policy = RetryPolicy(
        tenacity_args={"stop": tenacity.stop_after_attempt(2), "wait": tenacity.wait_fixed(7)}
    )
    with pytest.raises(errors.ServerError):
        connected.send(endpoints.get_run(7), retries=policy)
    assert connected.waits == [7]


def test_nobody_listens(face: Face, server: ScriptedServer) -> None:
    """A refused connection is tried again, also for a creation, and the error names the host."""
    server.close()
    face.connect(server.url, retries=RetryPolicy(max_attempts=3, random=lambda: 0.0))
    with pytest.raises(errors.ConnectError, match="Connection refused") as caught:
        face.send(endpoints.create_job({}))
    assert caught.value.host == f"127.0.0.1:{server.port}"
    assert (caught.value.attempts, face.waits) == (3, [0.5, 1])


@pytest.mark.slow
def test_a_host_name_that_does_not_resolve(face: Face) -> None:
    """A wrong host is given up after a minute, with a message that names it."""
    face.connect("https://no-such-workspace.invalid")
    with pytest.raises(errors.HostNotFoundError, match=r"no-such-workspace\.invalid.*host"):
        face.send(endpoints.get_run(7))
    assert sum(face.waits) <= 60

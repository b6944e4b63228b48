"""Which refusals end a task for good, and which leave it to the DAG's retries."""

from __future__ import annotations

import traceback
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    TaskDeferred,
)

from airflow_jobs_provider.api import errors
from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
from airflow_jobs_provider.operators.jobs import (
    DatabricksCancelRunsOperator,
    DatabricksCreateJobsOperator,
    DatabricksDeleteRunOperator,
    DatabricksExportRunOperator,
    DatabricksRunNowOperator,
)
from airflow_jobs_provider.sensors.jobs import DatabricksJobRunSensor
from tests.fakes.scripted_server import ScriptedServer, answer
from tests.helpers.responses import LAUNCHED, OUTPUT, RUNNING, SUCCEEDED
from tests.helpers.tasks import TaskInstance, events, operator_of, paths, retrying, submit

# Status, error_code, message.
FINAL = [
    (400, "INVALID_PARAMETER_VALUE", "Missing required field: new_cluster"),
    (400, "MALFORMED_REQUEST", "Could not parse request object"),
]
ABOUT_SOMETHING_ELSE = [
    (400, "INVALID_PARAMETER_VALUE", "Job 3 does not exist"),
    (400, "INVALID_PARAMETER_VALUE", "Cluster 1201-my-cluster does not exist"),
    (400, "QUOTA_EXCEEDED", "The quota for the number of jobs has been reached"),
    (400, "RESOURCE_EXHAUSTED", "Too many task runs"),
    (400, "RESOURCE_LIMIT_EXCEEDED", "Too many active runs"),
    (400, "INVALID_STATE", "The cluster does not have any associated worker environments"),
    (400, "FEATURE_DISABLED", "Serverless compute is not enabled"),
    (400, "PERMISSION_DENIED", "no Can Manage Run on job 3"),
    (400, "A_CODE_OF_NEXT_YEAR", "Something new"),
    (400, "", "Bad Request"),
    (400, "INVALID_PARAMETER_VALUE", "Token expired"),
    (401, "UNAUTHENTICATED", "Token expired"),
    (403, "403", "Invalid access token"),
    (403, "PERMISSION_DENIED", "no Can Restart on the cluster"),
    (404, "RESOURCE_DOES_NOT_EXIST", "Job 3 not found"),
    (404, "ENDPOINT_NOT_FOUND", "No API found"),
    (409, "RESOURCE_CONFLICT", "The job is being changed"),
    (413, "MAX_REQUEST_SIZE_EXCEEDED", "Too large"),
]
DELETED_RUN = [
    (400, "INVALID_PARAMETER_VALUE", "Run 7 with the given idempotency_token has been deleted"),
    (400, "INVALID_STATE", "The run of this idempotency token was deleted"),
    (400, "INVALID_PARAMETER_VALUE", "Run 7 does not exist"),
    (400, "INVALID_PARAMETER_VALUE", "The idempotency_token cannot be used again"),
    (404, "RESOURCE_DOES_NOT_EXIST", "Run 7 not found"),
    (404, "RESOURCE_DOES_NOT_EXIST", ""),
]

Refusal = tuple[int, str, str]


def refusal(status: int, error_code: str, message: str) -> Any:
    """Answer with an error of the API."""
    return answer({"error_code": error_code, "message": message}, status)


@pytest.mark.parametrize("refused", FINAL, ids=str)
def test_a_launch_that_can_never_succeed_is_not_retried(
    context: Any, server: ScriptedServer, refused: Refusal
) -> None:
    """One request; Airflow is told not to retry, in the service's words, once."""
    server.will(refusal(*refused))
    with pytest.raises(AirflowFailException, match=refused[2]) as caught:
        submit().execute(context)
    assert len(server.requests) == 1
    assert "".join(traceback.format_exception(caught.value)).count(refused[2]) == 1
    assert isinstance(caught.value, errors.BadRequestError)
    assert (caught.value.status, caught.value.error_code) == refused[:2]


@pytest.mark.parametrize("refused", ABOUT_SOMETHING_ELSE, ids=str)
def test_another_refusal_leaves_it_to_the_retries(
    context: Any, server: ScriptedServer, refused: Refusal
) -> None:
    """One request; the try fails with the service's words, code and status, and may be retried."""
    server.will(refusal(*refused))
    with pytest.raises(AirflowException, match=refused[2]) as caught:
        submit().execute(context)
    assert not isinstance(caught.value, AirflowFailException)
    assert len(server.requests) == 1
    assert isinstance(caught.value, errors.APIStatusError)
    assert caught.value.status == refused[0]
    assert (caught.value.call, caught.value.attempts) == ("runs/submit", 1)
    assert not caught.value.is_final


def test_a_missing_job_is_left_to_the_retries_by_id_and_by_name(
    context: Any, server: ScriptedServer
) -> None:
    """The job may be created by then; so may one of two with the same name be renamed."""
    twice = {"jobs": [{"job_id": n, "settings": {"name": "train"}} for n in (5, 6)]}
    for arguments, said in (
        ({"job_id": 3}, refusal(404, "RESOURCE_DOES_NOT_EXIST", "Job 3 does not exist")),
        ({"job_name": "score"}, answer({"jobs": []})),
        ({"job_name": "train"}, answer(twice)),
    ):
        server.will(said)
        with pytest.raises(AirflowException) as caught:
            DatabricksRunNowOperator(task_id="etl", **arguments).execute(context)
        assert not isinstance(caught.value, AirflowFailException)


@pytest.mark.parametrize(
    "operator",
    [
        DatabricksCreateJobsOperator(task_id="t", name="train", validate=False),
        DatabricksCancelRunsOperator(task_id="t", run_id=7),
        DatabricksDeleteRunOperator(task_id="t", run_id=7),
        DatabricksExportRunOperator(task_id="t", run_id=7, path="/nowhere"),
    ],
    ids=lambda operator: type(operator).__name__,
)
def test_all_operators_follow_one_rule(context: Any, server: ScriptedServer, operator: Any) -> None:
    """A request that is wrong is final; a 403 is not."""
    server.will(refusal(*FINAL[0]))
    with pytest.raises(AirflowFailException, match="Missing required field"):
        operator.execute(context)
    server.will(refusal(403, "PERMISSION_DENIED", "not yet"))
    with pytest.raises(AirflowException, match="not yet") as caught:
        operator.execute(context)
    assert not isinstance(caught.value, AirflowFailException)
    assert isinstance(caught.value, errors.AuthenticationError)


@pytest.mark.parametrize("deferrable", [False, True])
def test_the_sensor_follows_it_on_the_worker(
    context: Any, server: ScriptedServer, deferrable: bool
) -> None:
    """Also at the one look that a deferrable sensor takes before it defers."""
    sensor = DatabricksJobRunSensor(task_id="t", run_id=7, deferrable=deferrable)
    for refused, is_final in ((FINAL[0], True), (ABOUT_SOMETHING_ELSE[0], False)):
        server.will(refusal(*refused))
        with pytest.raises(AirflowException, match=refused[2]) as caught:
            sensor.execute(context)
        assert isinstance(caught.value, AirflowFailException) is is_final
        assert isinstance(caught.value, errors.BadRequestError)


@pytest.mark.parametrize("kind", ["operator", "sensor"])
def test_what_the_triggerer_is_refused_is_as_final(
    context: Any, server: ScriptedServer, kind: str
) -> None:
    """The worker that hears of it decides as if it had asked itself."""
    operator: Any = submit(deferrable=True)
    if kind == "sensor":
        operator = DatabricksJobRunSensor(
            task_id="t", run_id=7, poke_interval=0.01, deferrable=True
        )
    for refused, is_final in ((FINAL[0], True), (ABOUT_SOMETHING_ELSE[0], False)):
        server.will(*([LAUNCHED] if kind == "operator" else []), RUNNING)
        with pytest.raises(TaskDeferred) as deferred:
            operator.execute(context)
        trigger: Any = deferred.value.trigger
        trigger.launched_at = None  # long ago
        server.will(refusal(*refused))
        (event,) = events(trigger)
        with pytest.raises(AirflowException, match=refused[2]) as caught:
            operator.execute_complete(context, event, **(deferred.value.kwargs or {}))
        assert isinstance(caught.value, AirflowFailException) is is_final


@pytest.mark.parametrize("refused", ABOUT_SOMETHING_ELSE, ids=str)
def test_a_refused_token_of_an_earlier_try_launches_nothing_new(
    context: Any, server: ScriptedServer, refused: Refusal
) -> None:
    """Its run may be live: the try fails, and a later one finds that run."""
    retrying(context)
    server.will(refusal(*refused))
    with pytest.raises(AirflowException, match=refused[2]):
        submit().execute(context)
    assert paths(server) == ["runs/submit"]
    context["ti"] = TaskInstance()  # of another process
    server.will(LAUNCHED, RUNNING, SUCCEEDED, OUTPUT)
    assert submit().execute(context) == "42"
    first, again = (r.body["idempotency_token"] for r in server.requests if r.body)
    assert first == again


@pytest.mark.parametrize("refused", DELETED_RUN, ids=str)
def test_a_token_whose_run_was_deleted_is_passed_over(
    context: Any, server: ScriptedServer, refused: Refusal
) -> None:
    """The reference promises an error for it; the next token launches a run."""
    retrying(context)
    server.will(refusal(*refused), LAUNCHED, SUCCEEDED, OUTPUT)
    assert submit().execute(context) == "42"
    tokens = [r.body["idempotency_token"] for r in server.requests if r.body]
    assert len(set(tokens)) == 2


def test_a_request_that_can_never_succeed_is_told_by_the_last_token(
    context: Any, server: ScriptedServer
) -> None:
    """At a retry it cannot be told from a deleted run, until the last token is refused, too."""
    retrying(context)
    server.will(*[refusal(*FINAL[0])] * 2)
    with pytest.raises(AirflowFailException, match="Missing required field"):
        submit().execute(context)
    assert paths(server) == ["runs/submit"] * 2


@pytest.mark.parametrize("kind", ["runs/submit", "run-now"])
@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize("token", ["", " ", "None", "none", "NULL", "null\n"])
def test_a_token_that_does_not_tell_launches_apart_is_refused(
    context: Any, server: ScriptedServer, token: str, validate: bool, kind: str
) -> None:
    """A template without a value gives it to all tasks, and they would share one run."""
    for arguments in (
        {"idempotency_token": "{{ token }}"},
        {"json": {"idempotency_token": "{{ token }}"}},
    ):
        operator = operator_of(kind, validate=validate, **arguments)
        operator.render_template_fields({"token": token})
        with pytest.raises(
            AirflowFailException, match="idempotency_token must be different"
        ) as caught:
            operator.execute(context)
        assert isinstance(caught.value, errors.InvalidRequestError)
    assert server.requests == []


@pytest.mark.parametrize("token", ["", "None", "null"])
def test_such_a_token_is_refused_when_the_dag_is_parsed(token: str) -> None:
    """Where it stands there as text; a None is no token, and the task makes its own."""
    with pytest.raises(errors.InvalidRequestError, match="idempotency_token must be different"):
        submit(idempotency_token=token)
    submit(idempotency_token=None)


def test_the_hook_refuses_such_a_token_too(context: Any, server: ScriptedServer) -> None:
    """But for an empty one, which counts as not given: a random one is sent."""
    hook = DatabricksJobsHook()
    with pytest.raises(errors.InvalidRequestError, match="idempotency_token must be different"):
        hook.run_now({"job_id": 3, "idempotency_token": "None"})
    server.will(LAUNCHED)
    hook.run_now({"job_id": 3, "idempotency_token": ""})
    assert len(server.requests[0].body["idempotency_token"]) == 32

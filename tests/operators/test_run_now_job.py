"""The job of a run-now task: by its id or name, and read for its retries, over real HTTP."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    TaskDeferred,
)

from airflow_jobs_provider.api.errors import InvalidRequestError
from airflow_jobs_provider.api.retry import no_waiting
from airflow_jobs_provider.exceptions import DatabricksRunFailedError
from airflow_jobs_provider.operators.jobs import (
    DatabricksRunNowOperator,
)
from airflow_jobs_provider.triggers.jobs import DatabricksJobRunTrigger
from tests.fakes.scripted_server import ScriptedServer, answer
from tests.helpers.responses import (
    FAILED,
    FAILED_OUTPUT,
    LAUNCHED,
    OUTPUT,
    RUNNING,
    SUCCEEDED,
    run,
)
from tests.helpers.tasks import (
    events,
    paths,
    run_now,
)


def test_run_now(context: Any, server: ScriptedServer) -> None:
    """An id from a template is text; the API gets a number, and no run_name."""
    server.will(LAUNCHED, SUCCEEDED, OUTPUT)
    operator = run_now(job_id="3", notebook_params={"n": 1}, idempotency_token="t")
    assert operator.execute(context) == "42"
    assert server.requests[0].path.endswith("/run-now")
    assert server.requests[0].body == {
        "job_id": 3,
        "notebook_params": {"n": "1"},
        "idempotency_token": "t",
    }


def test_run_now_by_name(context: Any, server: ScriptedServer) -> None:
    """The job's name stands for its id."""
    jobs = {"jobs": [{"job_id": 5, "settings": {"name": "train"}}]}
    server.will(answer(jobs), LAUNCHED, SUCCEEDED, OUTPUT)
    run_now(job_name="train").execute(context)
    assert server.requests[1].body["job_id"] == 5
    assert "job_name" not in server.requests[1].body
    server.will(answer(jobs))
    with pytest.raises(AirflowException, match="'score'"):
        run_now(job_name="score").execute(context)
    twice = {"jobs": [{"job_id": n, "settings": {"name": "train"}} for n in (5, 6)]}
    server.will(answer(twice))
    with pytest.raises(AirflowException, match="job_id 5, 6"):
        run_now(job_name="train").execute(context)


@pytest.mark.parametrize("arguments", [{}, {"job_id": "{{ 3 }}", "job_name": "train"}])
def test_run_now_wants_a_job(
    arguments: dict[str, Any], context: Any, server: ScriptedServer
) -> None:
    """Either the id or the name; nothing is sent else."""
    operator = run_now(**arguments)
    operator.render_template_fields({})
    with pytest.raises(AirflowFailException, match="exactly one of job_id and job_name"):
        operator.execute(context)
    assert server.requests == []


@pytest.mark.parametrize(
    "arguments",
    [{"job_id": 3, "job_name": "train"}, {"job_name": "train", "json": {"job_id": 3}}],
)
def test_both_the_id_and_the_name_of_a_job_are_refused_when_parsed(
    arguments: dict[str, Any],
) -> None:
    """As by the official provider."""
    with pytest.raises(InvalidRequestError, match="exactly one of job_id and job_name"):
        run_now(**arguments)


NO_JOB = answer({"error_code": "PERMISSION_DENIED", "message": "no View on job 3"}, 403)


def test_a_job_that_may_not_be_read_is_not_waited_for(context: Any, server: ScriptedServer) -> None:
    """Whether the service retries the run is then not known; the task fails at once, as it did."""
    server.will(LAUNCHED, FAILED, NO_JOB, FAILED_OUTPUT)
    operator = DatabricksRunNowOperator(task_id="etl", job_id=3, polling_period_seconds=0.01)
    with no_waiting() as waits, pytest.raises(DatabricksRunFailedError, match="no rows"):
        operator.execute(context)
    assert sum(waits) < 1
    assert paths(server) == ["run-now", "runs/get", "get", "runs/get-output"]


def test_credentials_that_ran_out_are_waited_for_at_the_job_too(
    context: Any, server: ScriptedServer
) -> None:
    """A 401 is not about the job, so the service's own retry is found."""
    job = {"job_id": 3, "settings": {"max_retries": 1}}
    server.will(LAUNCHED, FAILED, answer({}, 401), answer(job))
    second = run("TERMINATED", "SUCCESS", run_id=8, original_attempt_run_id=7, attempt_number=1)
    server.will(answer({"runs": [{**second, "run_id": 8}]}), OUTPUT)
    operator = DatabricksRunNowOperator(task_id="etl", job_id=3, polling_period_seconds=0.01)
    with no_waiting():
        assert operator.execute(context) == "42"


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_list_of_attempts_that_does_not_advance(
    context: Any, server: ScriptedServer, deferrable: bool
) -> None:
    """It is no proof that there is no further attempt: the list is read again."""
    job = {"job_id": 3, "settings": {"max_retries": 1}}
    stuck = answer({"runs": [{"run_id": 7}], "next_page_token": "a"})
    operator = DatabricksRunNowOperator(
        task_id="etl", job_id=3, polling_period_seconds=0.01, deferrable=deferrable
    )
    second = run("TERMINATED", "SUCCESS", run_id=8, original_attempt_run_id=7, attempt_number=1)
    found = [stuck, stuck, answer({"runs": [{**second, "run_id": 8}]}), OUTPUT]
    if not deferrable:
        server.will(LAUNCHED, FAILED, answer(job), *found)
        assert operator.execute(context) == "42"
        return
    server.will(LAUNCHED, RUNNING)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    server.will(FAILED, answer(job), *found)
    trigger = deferred.value.trigger
    assert isinstance(trigger, DatabricksJobRunTrigger)
    (event,) = events(trigger)
    kwargs = deferred.value.kwargs or {}
    assert operator.execute_complete(context, event, **kwargs) == "42"

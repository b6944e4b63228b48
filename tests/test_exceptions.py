"""Errors of the Jobs API as exceptions of Airflow: for each class of the tree."""

from __future__ import annotations

import copy
import inspect
import pickle
import traceback
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_jobs_provider.api import errors
from airflow_jobs_provider.api.problems import Problem
from airflow_jobs_provider.api.states import RunState
from airflow_jobs_provider.api.workflows.outputs import TaskOutput
from airflow_jobs_provider.exceptions import (
    DatabricksRunFailedError,
    DatabricksRunTimeoutError,
    airflow_exceptions,
)

TREE = [
    kind
    for kind in (getattr(errors, name) for name in errors.__all__)
    if isinstance(kind, type) and issubclass(kind, errors.JobsAPIError)
]
FACTS: dict[str, Any] = {
    "status": 400,
    "error_code": "INVALID_PARAMETER_VALUE",
    "api_message": "Missing required field: new_cluster",
    "request_id": "r-1",
}
FAILED = RunState("TERMINATED", "FAILED", "no file")
PROBLEM = Problem("job_id", "must be a whole number", "it is null")


def sample(kind: type[errors.JobsAPIError]) -> errors.JobsAPIError:
    """Make an error of this class, with attributes of all kinds."""
    error: errors.JobsAPIError
    if issubclass(kind, errors.APIStatusError):
        error = kind(**FACTS)
    elif kind is errors.InvalidRequestError:
        error = errors.InvalidRequestError("create", [PROBLEM])
    elif kind is errors.DuplicateNameError:
        error = errors.DuplicateNameError("job", "etl", [1, 2])
    else:
        error = kind("no response")
    error.record_attempts("runs/get", 3, 4.0, outcome_unknown=True)
    return error


def convert(error: errors.JobsAPIError, *, fail_without_retry: bool) -> Any:
    """Raise an error inside of the context manager and return what comes out."""
    with (
        pytest.raises(AirflowException) as caught,
        airflow_exceptions(fail_without_retry=fail_without_retry),
    ):
        raise error
    return caught.value


@pytest.mark.parametrize("fail_without_retry", [True, False])
@pytest.mark.parametrize("kind", TREE)
def test_an_error_is_of_both_kinds(
    kind: type[errors.JobsAPIError], fail_without_retry: bool
) -> None:
    """It is the same object, with the same text; only in an operator it may forbid a retry."""
    error = sample(kind)
    before = (str(error), repr(error), error.args, dict(vars(error)))
    both = convert(error, fail_without_retry=fail_without_retry)
    assert both is error
    assert isinstance(both, kind)
    assert isinstance(both, AirflowFailException) is (error.is_final and fail_without_retry)
    assert (str(both), repr(both), both.args, vars(both)) == before
    names = ("__name__", "__qualname__", "__module__", "__doc__")
    assert all(getattr(type(both), name) == getattr(kind, name) for name in names)


@pytest.mark.parametrize("kind", TREE)
def test_an_operator_forbids_the_retry_of_what_the_hook_has_raised(
    kind: type[errors.JobsAPIError],
) -> None:
    """Both borders may be passed, in any order; a class of both is made once."""
    both = convert(convert(sample(kind), fail_without_retry=False), fail_without_retry=True)
    assert isinstance(both, AirflowFailException) is both.is_final
    assert type(both) is type(convert(sample(kind), fail_without_retry=True))
    assert type(convert(both, fail_without_retry=False)) is type(both)
    assert type(both).__bases__[0] is kind


@pytest.mark.parametrize("fail_without_retry", [True, False, None])
@pytest.mark.parametrize("kind", TREE)
def test_an_error_can_be_pickled_and_copied(
    kind: type[errors.JobsAPIError], fail_without_retry: bool | None
) -> None:
    """As it is when it leaves a process; also before it is one of Airflow's (None)."""
    error = sample(kind)
    if fail_without_retry is not None:
        convert(error, fail_without_retry=fail_without_retry)
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is type(error)
        assert (str(again), again.args, vars(again)) == (str(error), error.args, vars(error))


@pytest.mark.parametrize(
    "error",
    [
        DatabricksRunFailedError(7, FAILED, "http://x/7", [TaskOutput.unread("a", 8, {})], "a"),
        DatabricksRunTimeoutError(7, "execution_timeout", "http://x/7"),
    ],
)
def test_the_exception_of_a_run_can_be_pickled_and_copied(error: AirflowException) -> None:
    """With all that it says about the run."""
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is type(error)
        assert (str(again), vars(again)) == (str(error), vars(error))


def test_cause_context_and_traceback_are_kept() -> None:
    """The log shows where the error began, and what it came from, once."""

    def fail() -> None:
        try:
            int("seven")
        except ValueError as cause:
            raise sample(errors.ServerError) from cause

    def fail_while_handling() -> None:
        try:
            int("eight")
        except ValueError:
            raise sample(errors.ServerError)  # noqa: B904

    for function, word in ((fail, "seven"), (fail_while_handling, "eight")):
        with pytest.raises(AirflowException) as caught, airflow_exceptions():
            function()
        shown = "".join(traceback.format_exception(caught.value))
        assert f"invalid literal for int() with base 10: '{word}'" in shown
        assert f"in {function.__name__}" in shown
        assert shown.count("Missing required field") == 1
        chained = caught.value.__cause__ or caught.value.__context__
        assert isinstance(chained, ValueError)


def test_other_exceptions_are_left_alone() -> None:
    """Also one that Airflow raises to defer or to skip."""
    with pytest.raises(KeyError) as caught, airflow_exceptions():
        raise KeyError("k")
    assert type(caught.value) is KeyError


def test_the_status_has_its_official_name() -> None:
    """``except DatabricksApiError as error: error.http_status_code`` goes on working."""
    from airflow_jobs_provider.exceptions import DatabricksApiError

    error = sample(errors.BadRequestError)
    with pytest.raises(DatabricksApiError) as caught, airflow_exceptions():
        raise error
    assert caught.value.http_status_code == 400
    assert inspect.isclass(DatabricksApiError)

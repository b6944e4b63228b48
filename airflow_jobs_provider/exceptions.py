"""The exceptions of operators and sensor: a run that did not succeed, or an error of the API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_jobs_provider.api.errors import APIStatusError, JobsAPIError
from airflow_jobs_provider.api.states import RunStatus
from airflow_jobs_provider.official_names import missing_name

if TYPE_CHECKING:
    from airflow_jobs_provider.api.states import RunState
    from airflow_jobs_provider.api.workflows.outputs import TaskOutput

__all__ = [
    "DatabricksApiError",
    "DatabricksRunFailedError",
    "DatabricksRunTimeoutError",
    "airflow_exceptions",
]

DatabricksApiError = APIStatusError
"""An error response of the service, under its name in the official provider."""

_HOW_IT_ENDED = {
    RunStatus.ACTIVE: "is active",
    RunStatus.SUCCEEDED: "succeeded",
    RunStatus.SUCCEEDED_WITH_FAILURES: "succeeded with failures",
    RunStatus.FAILED: "failed",
    RunStatus.TIMED_OUT: "timed out",
    RunStatus.CANCELED: "was canceled",
    RunStatus.SKIPPED: "was skipped",
}


if not TYPE_CHECKING:

    def __getattr__(name: str) -> NoReturn:
        raise missing_name(__name__, name)


class DatabricksRunFailedError(AirflowException):
    """A run ended without success: it failed, timed out, was canceled or skipped.

    :ivar run_id: the run.
    :ivar state: its state.
    :ivar run_page_url: its page in the workspace; empty if unknown.
    :ivar outputs: its output, or that of each failed task, with errors and stack traces.
    :ivar task_key: the task, if it is the run of one task of another run; else None.
    """

    def __init__(
        self,
        run_id: int,
        state: RunState,
        run_page_url: str = "",
        outputs: Sequence[TaskOutput] = (),
        task_key: str | None = None,
    ) -> None:
        self.run_id = run_id
        self.state = state
        self.run_page_url = run_page_url
        self.outputs = list(outputs)
        self.task_key = task_key
        super().__init__("\n".join(self._lines()))

    def __reduce__(self) -> tuple[Any, ...]:
        facts = (self.run_id, self.state, self.run_page_url, self.outputs, self.task_key)
        return type(self), facts

    def _lines(self) -> list[str]:
        run = f"Run {self.run_id}"
        subject = f"Task {self.task_key!r} ({run.lower()})" if self.task_key else run
        lines = [f"{subject} {_HOW_IT_ENDED[self.state.status]} ({self.state})"]
        failed = [output for output in self.outputs if not output.state.is_successful]
        for output in failed:
            # The state message is in the first line already.
            is_told = output.error in ("", self.state.state_message) and len(failed) == 1
            if output.task_key or not is_told:
                lines += output.failure_lines()
        if self.state.status is RunStatus.SUCCEEDED_WITH_FAILURES:
            lines.append("With fail_on_partial_success=False the task would succeed")
        if self.run_page_url:
            lines.append(f"See {self.run_page_url}")
        return lines


class DatabricksRunTimeoutError(AirflowException):
    """The task timed out before the run ended. With ``cancel_on_kill`` the run was canceled.

    :ivar run_id: the run.
    :ivar limit: the argument that set the limit: ``execution_timeout`` or
        ``queued_timeout_seconds``.
    :ivar run_page_url: its page in the workspace; empty (default) if unknown.
    """

    def __init__(self, run_id: int, limit: str, run_page_url: str = "") -> None:
        self.run_id = run_id
        self.limit = limit
        self.run_page_url = run_page_url
        see = f". See {run_page_url}" if run_page_url else ""
        super().__init__(f"Run {run_id} took longer than the task's {limit} allows{see}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.run_id, self.limit, self.run_page_url)


@contextmanager
def airflow_exceptions(*, fail_without_retry: bool = True) -> Iterator[None]:
    """Turn errors of the Jobs API into exceptions of Airflow as well.

    The error stays the same object, with its attributes, traceback and cause. It gets a class with
    two bases: its own, such as :class:`~airflow_jobs_provider.api.errors.ServerError`, and one of
    Airflow's.

    :param fail_without_retry: whether a final error becomes an AirflowFailException, as in an
        operator; default True. False leaves the task's retries to the caller, as in the hook.
    :raises AirflowFailException: the same request can never succeed. Airflow does not retry.
    :raises AirflowException: any other error of the API. The DAG's ``retries`` decide.
    """
    try:
        yield
    except JobsAPIError as error:
        is_final = fail_without_retry and error.is_final
        of_airflow = AirflowFailException if is_final else AirflowException
        if not isinstance(error, of_airflow):
            error.__class__ = _class_of_both(_class_of_api(error), of_airflow)
        raise


@cache
def _class_of_both(of_api: Any, of_airflow: Any) -> Any:
    """Return a class with both bases, under the name of the API's error."""
    facts = {"__module__": of_api.__module__, "__doc__": of_api.__doc__, "__reduce__": _reduce}
    return type(of_api.__name__, (of_api, of_airflow), facts)


def _class_of_api(error: JobsAPIError) -> Any:
    kind = type(error)
    return kind.__bases__[0] if issubclass(kind, AirflowException) else kind


def _reduce(error: JobsAPIError) -> tuple[Any, ...]:
    # The class is made at run time, so pickle cannot import it.
    of_api, of_airflow = type(error).__bases__
    return _restore, (of_api, of_airflow, error.args, error.__dict__.copy())


def _restore(
    of_api: Any, of_airflow: Any, args: tuple[Any, ...], attributes: Mapping[str, Any]
) -> Any:
    kind = _class_of_both(of_api, of_airflow)
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error

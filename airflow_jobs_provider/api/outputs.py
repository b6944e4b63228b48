"""What a run gave back: which calls bring its output, and how their answers are read.

The API gives the output of one task at a time. A run of one task is asked by its own id; a run
that lists ``tasks`` is asked for each of them, at its latest attempt.

Reference: "Runs get output", "NotebookOutput".
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from airflow_jobs_provider.api.calls import get_run_output
from airflow_jobs_provider.api.errors import (
    AuthenticationFailed,
    BadRequest,
    DoesNotExist,
    InvalidRequest,
    JobsApiError,
    PassingConflict,
)
from airflow_jobs_provider.api.states import RunResultState, RunState, Verdict
from airflow_jobs_provider.api.steps import Step, whole_run

__all__ = ["TaskOutput", "failed_tasks", "latest_attempts", "output_value", "read_outputs"]

_BECAUSE_OF_OTHERS = (RunResultState.UPSTREAM_FAILED, RunResultState.UPSTREAM_CANCELED)


@dataclass(frozen=True, slots=True)
class TaskOutput:
    """The output of one task run.

    :ivar task_key: the task's key; None in a run that lists no tasks.
    :ivar run_id: the task run's id.
    :ivar result: the text that the notebook gave to ``dbutils.notebook.exit()``; None without one.
    :ivar truncated: whether the service cut the result off.
    :ivar error: the task's own error; empty if it has none.
    :ivar error_trace: the error's stack trace, where the service gives one.
    :ivar state: the task run's state.
    """

    task_key: str | None
    run_id: int
    result: str | None
    truncated: bool
    error: str
    error_trace: str
    state: RunState

    @classmethod
    def of(cls, task_key: str | None, run_id: int, answer: dict[str, Any]) -> TaskOutput:
        """Read the answer of ``runs/get-output``."""
        notebook_output = answer.get("notebook_output") or {}
        result = notebook_output.get("result")
        return cls(
            task_key=task_key,
            run_id=run_id,
            result=None if result is None else str(result),
            truncated=bool(notebook_output.get("truncated")),
            error=str(answer.get("error") or ""),
            error_trace=str(answer.get("error_trace") or ""),
            state=RunState.of(answer.get("metadata") or {}),
        )

    def cut(self, max_bytes: int | None) -> TaskOutput:
        """Return the output with its result cut off after so many bytes of UTF-8."""
        if max_bytes is None or self.result is None or len(self.result.encode()) <= max_bytes:
            return self
        kept = self.result.encode()[:max_bytes].decode(errors="ignore")
        return replace(self, result=kept, truncated=True)


def latest_attempts(run: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the task runs of a run by task key, the highest attempt of each."""
    latest: dict[str, Mapping[str, Any]] = {}
    for task in run.get("tasks") or ():
        key = str(task.get("task_key") or task.get("run_id"))
        attempt = int(task.get("attempt_number") or 0)
        if key not in latest or attempt >= int(latest[key].get("attempt_number") or 0):
            latest[key] = task
    return latest


def failed_tasks(run: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the task runs that failed themselves, by task key, at their latest attempt.

    Not those that were skipped, or did not run because of others.
    """
    return {key: task for key, task in latest_attempts(run).items() if _failed_itself(task)}


def read_outputs(
    run: Mapping[str, Any],
    *,
    of_failed_tasks_only: bool = False,
    on_unreadable: Callable[[Mapping[str, int], JobsApiError], None] | None = None,
) -> Generator[Step, Any, list[TaskOutput]]:
    """Read the outputs of a run that has ended, one for each of its tasks: an exchange.

    :param run: the run as ``runs/get`` or ``runs/list`` answered it.
    :param of_failed_tasks_only: leave out the tasks of a run of several that succeeded, or did not
        run because of others.
    :param on_unreadable: told of tasks of a run of several whose output cannot be read, as run ids
        by task key; their output is then empty. Trouble that is not one task's own takes the tasks
        that were not yet asked for with it. None raises what went wrong.
    :raises JobsApiError: the output cannot be read.
    """
    if not run.get("tasks"):
        run_id = int(run["run_id"])
        try:
            answer = yield get_run_output(run_id)
        except DoesNotExist:
            raise
        except BadRequest:
            # A list does not tell a run's tasks, and a run of several has no output of its own.
            run = yield from whole_run(run_id)
            if not run.get("tasks"):
                raise
        else:
            return [TaskOutput.of(None, run_id, answer)]
    tasks = failed_tasks(run) if of_failed_tasks_only else latest_attempts(run)
    wanted = {key: task for key, task in tasks.items() if task.get("run_id") is not None}
    outputs: list[TaskOutput] = []
    goes_on = True
    for task_key, task in wanted.items():
        run_id = int(task["run_id"])
        answer = {"metadata": task}
        if goes_on:
            try:
                answer = yield get_run_output(run_id)
            except InvalidRequest:
                raise
            except JobsApiError as error:
                if on_unreadable is None:
                    raise
                goes_on = _is_of_one_task(error)
                lost = [task_key] if goes_on else list(wanted)[len(outputs) :]
                on_unreadable({key: int(wanted[key]["run_id"]) for key in lost}, error)
        outputs.append(TaskOutput.of(task_key, run_id, answer))
    return outputs


def _is_of_one_task(error: JobsApiError) -> bool:
    """Whether the next task may fare better; else it would be waited for as long, and in vain."""
    refused = isinstance(error, (BadRequest, AuthenticationFailed))
    return refused and not isinstance(error, PassingConflict)


def _failed_itself(task: Mapping[str, Any]) -> bool:
    state = RunState.of(task)
    return state.verdict not in (Verdict.SUCCEEDED, Verdict.SKIPPED) and (
        state.result_state not in _BECAUSE_OF_OTHERS
    )


def output_value(outputs: Sequence[TaskOutput]) -> str | dict[str, str | None] | None:
    """Return what a run gave back: a text or None, or a dict by task key for several tasks."""
    if len(outputs) == 1:
        return outputs[0].result
    return {str(output.task_key): output.result for output in outputs} or None

"""What a run gave back: which calls bring its output, and how their answers are read.

The API gives the output of one task at a time. A run of one task is asked by its own id; a run
that lists ``tasks`` is asked for each of them, at its latest attempt.

Reference: "Runs get output", "NotebookOutput".
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from airflow_jobs_provider.api.calls import Call, get_run_output
from airflow_jobs_provider.api.states import RunState

__all__ = ["TaskOutput", "latest_attempts", "output_calls", "output_value", "read_outputs"]


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


def output_calls(
    run: Mapping[str, Any],
) -> list[tuple[str | None, int, Call[dict[str, Any]]]]:
    """Return task key, run id and call for each output that a run has."""
    tasks = latest_attempts(run)
    if not tasks:
        run_id = int(run["run_id"])
        return [(None, run_id, get_run_output(run_id))]
    return [
        (key, int(task["run_id"]), get_run_output(int(task["run_id"])))
        for key, task in tasks.items()
        if task.get("run_id") is not None
    ]


def read_outputs(
    run: Mapping[str, Any],
) -> Generator[Call[dict[str, Any]], dict[str, Any], list[TaskOutput]]:
    """Read the outputs of a run that has ended, one for each of its tasks: an exchange.

    :param run: the run as ``runs/get`` answered it.
    """
    outputs = []
    for task_key, run_id, call in output_calls(run):
        answer = yield call
        outputs.append(TaskOutput.of(task_key, run_id, answer))
    return outputs


def output_value(outputs: Sequence[TaskOutput]) -> str | dict[str, str | None] | None:
    """Return what a run gave back: a text or None, or a dict by task key for several tasks."""
    if len(outputs) == 1:
        return outputs[0].result
    return {str(output.task_key): output.result for output in outputs} or None

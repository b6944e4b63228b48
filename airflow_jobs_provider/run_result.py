"""The result of a task from its ended run: the output or an exception, on worker and triggerer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from airflow_jobs_provider.airflow_compat.storable_text import storable_output
from airflow_jobs_provider.api.errors import JobsAPIError
from airflow_jobs_provider.api.ids import parse_id
from airflow_jobs_provider.api.run_summary import latest_attempts
from airflow_jobs_provider.api.states import RunState
from airflow_jobs_provider.api.text import printable, printable_lines
from airflow_jobs_provider.api.workflows.follow import whole_run
from airflow_jobs_provider.api.workflows.outputs import (
    OutputValue,
    TaskOutput,
    failed_tasks,
    output_value,
    read_outputs,
)
from airflow_jobs_provider.exceptions import DatabricksRunFailedError
from airflow_jobs_provider.xcom import (
    OUTPUT_TRUNCATED_KEY,
    RESERVED_KEYS,
    RETURN_VALUE_KEY,
    TASK_RUN_IDS_KEY,
)

if TYPE_CHECKING:
    from airflow_jobs_provider.api.schema.types import Run
    from airflow_jobs_provider.api.workflows.base import Workflow
    from airflow_jobs_provider.api.workflows.progress import Log

__all__ = ["RunResult", "read_result", "result_or_raise", "task_run_ids"]


@dataclass(frozen=True, slots=True)
class RunResult:
    """The output of a run that succeeded.

    :ivar value: the text given to ``dbutils.notebook.exit()``, or None; a list of them for a
        ``for_each_task``; a dict of them by task key for a run of several tasks.
    :ivar truncated: whether a part of it is missing.
    :ivar by_task: the output of each task by its key, if the run lists tasks.
    :ivar task_run_ids: the task runs of a run of several tasks: their ids by task key.
    """

    value: OutputValue | dict[str, OutputValue] = None
    truncated: bool = False
    by_task: Mapping[str, OutputValue] = field(default_factory=dict)
    task_run_ids: Mapping[str, int] = field(default_factory=dict)

    def xcoms(self, log: Log, *, multiple_outputs: bool = False) -> dict[str, Any]:
        """Return the task's XComs by key; no ``return_value`` if it is None.

        :param log: the task's logger.
        :param multiple_outputs: push each task's output under the task's key as well, also None, as
            Airflow does, but under none of :data:`.xcom.RESERVED_KEYS`; default False.
        """
        xcoms: dict[str, Any] = {}
        if multiple_outputs:
            xcoms = {key: value for key, value in self.by_task.items() if key not in RESERVED_KEYS}
            for key in sorted(self.by_task.keys() - xcoms.keys()):
                log.warning(
                    "The output of task %r is in return_value only: the XCom %r is something else.",
                    key,
                    key,
                )
            if self.value is not None and not self.by_task:
                log.info("multiple_outputs: the run has no task keys; see return_value.")
        if self.value is not None:
            xcoms[RETURN_VALUE_KEY] = self.value
        if self.truncated:
            xcoms[OUTPUT_TRUNCATED_KEY] = True
        if self.task_run_ids:
            xcoms[TASK_RUN_IDS_KEY] = dict(self.task_run_ids)
        return xcoms


def read_result(
    run: Run,
    log: Log,
    *,
    want_output: bool = True,
    max_output_bytes: int | None = None,
    fail_on_partial_success: bool = True,
) -> Workflow[RunResult]:
    """Read a run's output and return it, or raise where the run did not succeed: a workflow.

    Output that cannot be read does not change the result; it is a warning in the log.

    :param run: the run, ended, as ``runs/get`` returned it.
    :param log: the task's logger.
    :param want_output: read the output of a run that succeeded; default True. The errors of a run
        that failed are always read.
    :param max_output_bytes: cut off each text after so many bytes of UTF-8; default no limit.
    :param fail_on_partial_success: count the result SUCCESS_WITH_FAILURES as failed; default True.
    :raises DatabricksRunFailedError: the run failed, timed out, was canceled or skipped.
    """

    def warn(tasks: Mapping[str, int], error: JobsAPIError) -> None:
        (key, run_id), *others = tasks.items()
        log.warning(
            "The output of run %s (task %s) cannot be read: %s", run_id, printable(key), error
        )
        if others:
            keys = printable(", ".join(key for key, _ in others))
            log.warning("So the outputs of these tasks were not asked for, either: %s", keys)

    outputs: list[TaskOutput] = []
    state = RunState.from_run(run)
    is_successful = state.succeeded(fail_on_partial_success=fail_on_partial_success)
    if is_successful and not state.is_successful and not run.get("tasks"):
        # runs/list does not list the tasks; the failed ones are named in the log.
        try:
            run = yield from whole_run(int(run["run_id"]))
        except JobsAPIError as error:
            log.warning("The tasks of run %s cannot be read: %s", run["run_id"], error)
    if want_output or not is_successful:
        try:
            outputs = yield from read_outputs(
                run, of_failed_tasks_only=not is_successful, on_unreadable=warn
            )
        except JobsAPIError as error:
            log.warning("The output of run %s cannot be read: %s", run["run_id"], error)
    result = result_or_raise(
        run,
        outputs,
        log,
        max_output_bytes=max_output_bytes,
        fail_on_partial_success=fail_on_partial_success,
    )
    # Without an output nothing is pushed.
    return result if want_output else replace(result, task_run_ids={})


def result_or_raise(
    run: Run,
    outputs: Sequence[TaskOutput],
    log: Log,
    *,
    max_output_bytes: int | None = None,
    fail_on_partial_success: bool = True,
) -> RunResult:
    """Return the output of a run that succeeded; raise where it did not succeed.

    :param run: the run, ended.
    :param outputs: its outputs, as far as they could be read.
    :param log: the task's logger.
    :param max_output_bytes: cut off each text after so many bytes of UTF-8; default no limit.
    :param fail_on_partial_success: count the result SUCCESS_WITH_FAILURES as failed; default True.
    :raises DatabricksRunFailedError: the run failed, timed out, was canceled or skipped.
    """
    state = RunState.from_run(run)
    if state.succeeded(fail_on_partial_success=fail_on_partial_success):
        if not state.is_successful:
            _warn_of_failed_tasks(run, outputs, log)
        outputs = [_with_storable_result(output, log).cut(max_output_bytes) for output in outputs]
        truncated = [one for output in outputs for one in output.each() if one.truncated]
        for one in truncated:
            log.warning("The output of run %s is too long; it was cut off.", one.run_id)
        by_task = {one.task_key: one.value for one in outputs if one.task_key is not None}
        return RunResult(
            output_value(outputs), bool(truncated), by_task, task_run_ids(run, outputs)
        )
    for output in (one for several in outputs for one in several.each()):
        if output.error_trace and not output.state.is_successful:
            log.error(
                "The trace of run %s:\n%s", output.run_id, printable_lines(output.error_trace)
            )
    raise DatabricksRunFailedError(
        run_id=int(run["run_id"]),
        state=state,
        run_page_url=str(run.get("run_page_url") or ""),
        outputs=outputs,
        task_key=run.get("task_key"),
    )


def task_run_ids(run: Mapping[str, Any], outputs: Sequence[TaskOutput]) -> dict[str, int]:
    """Return the ids of the task runs of a run of several tasks, by task key; else nothing.

    :param run: the run, ended. A list of runs may not have its tasks.
    :param outputs: its outputs, as far as they could be read.
    """
    ids = {key: parse_id(task.get("run_id")) for key, task in latest_attempts(run).items()}
    is_listed = bool(ids)
    ids |= {one.task_key: one.run_id for one in outputs if one.task_key is not None}
    # A for_each_task that is waited for by itself is its own only task.
    known = {key: one for key, one in ids.items() if one and one != parse_id(run.get("run_id"))}
    return {} if is_listed and len(known) < 2 else known


def _with_storable_result(output: TaskOutput, log: Log) -> TaskOutput:
    if output.iterations is not None:
        iterations = (one and _with_storable_result(one, log) for one in output.iterations)
        return replace(output, iterations=tuple(iterations))
    result = storable_output(output.result, name=f"The output of run {output.run_id}", log=log)
    return output if result is output.result else replace(output, result=result)


def _warn_of_failed_tasks(run: Run, outputs: Sequence[TaskOutput], log: Log) -> None:
    read = {output.task_key: output for output in outputs}
    lines = [
        f"Run {run['run_id']} succeeded with failures, as is accepted ({RunState.from_run(run)})"
    ]
    for key, task in failed_tasks(run).items():
        output = read.get(key) or TaskOutput.unread(key, int(task.get("run_id") or 0), task)
        lines += output.failure_lines()
    log.warning("%s", "\n".join(lines))

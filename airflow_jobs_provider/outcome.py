"""How a run that has ended becomes the end of an Airflow task: operators and sensor alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_jobs_provider.api.outputs import output_value
from airflow_jobs_provider.api.states import RunState
from airflow_jobs_provider.exceptions import DatabricksRunFailedError

if TYPE_CHECKING:
    from airflow_jobs_provider.api.outputs import TaskOutput
    from airflow_jobs_provider.api.progress import Log
    from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook

__all__ = ["conclude"]


def conclude(
    run: Mapping[str, Any],
    hook: DatabricksJobsHook,
    log: Log,
    *,
    want_output: bool = True,
) -> str | dict[str, str | None] | None:
    """Return what a run that ended well gave back; raise where it did not end well.

    Output that cannot be read never spoils a verdict: it is a warning in the log.

    :param run: the run, ended, as ``runs/get`` answers it.
    :param hook: what to read the output with.
    :param log: the task's log.
    :param want_output: read a good run's output; the errors of a bad one are always read.
    :return: the text given to ``dbutils.notebook.exit()``, a dict of such texts by task key for a
        run of several tasks, or None.
    :raises DatabricksRunFailedError: the run failed, timed out, was canceled or skipped.
    """
    state = RunState.of(run)
    if state.is_successful:
        outputs = _read_outputs(run, hook, log) if want_output else []
        for output in outputs:
            if output.truncated:
                log.warning(
                    "The output of run %s is longer than the API gives; it was cut off.",
                    output.run_id,
                )
        return output_value(outputs)
    outputs = _read_outputs(run, hook, log)
    for output in outputs:
        if output.error_trace and not output.state.is_successful:
            log.error("The trace of run %s:\n%s", output.run_id, output.error_trace)
    raise DatabricksRunFailedError(
        run_id=int(run["run_id"]),
        state=state,
        run_page_url=str(run.get("run_page_url") or ""),
        outputs=outputs,
    )


def _read_outputs(run: Mapping[str, Any], hook: DatabricksJobsHook, log: Log) -> list[TaskOutput]:
    from airflow_jobs_provider.api.errors import JobsApiError

    try:
        return hook.get_outputs(run)
    except JobsApiError as error:
        log.warning("The output of run %s cannot be read: %s", run.get("run_id"), error)
        return []

"""Repairing a run: its failed tasks run again under the same run_id (API 2.1 and later).

The service lists a run's repairs. So no state is stored here: any process that reads the run knows
how often it was repaired. The service refuses to repair an active run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from airflow_jobs_provider.api.endpoints import cancel_run, repair_run
from airflow_jobs_provider.api.errors import BadRequestError, JobsAPIError
from airflow_jobs_provider.api.run_summary import latest_attempts
from airflow_jobs_provider.api.states import RunState, RunStatus
from airflow_jobs_provider.api.versions import LATEST_API_VERSION
from airflow_jobs_provider.api.workflows.base import Wait, Workflow, within_deadline
from airflow_jobs_provider.api.workflows.follow import read_run, whole_run
from airflow_jobs_provider.api.workflows.job_definitions import has_tasks, job_change
from airflow_jobs_provider.api.workflows.permissions import update_with_permissions

if TYPE_CHECKING:
    from airflow_jobs_provider.api.schema.types import Run

__all__ = [
    "RunNotRepairableError",
    "is_repairable",
    "latest_repair_id",
    "repair_once",
    "repair_reason",
    "repair_tasks",
    "repaired_at",
    "repairs_of",
    "run_parameters",
]


# A run that succeeded with failures has failed tasks, which are repaired if it counts as failed.
_REPAIRABLE = (RunStatus.FAILED, RunStatus.TIMED_OUT, RunStatus.SUCCEEDED_WITH_FAILURES)
# Reads of the run until the service shows the repair that it has accepted.
_READS_AFTER_REPAIR = 10
# Reads after a refused request, or one without a response, and the longest wait between two.
_READS_AFTER_REFUSAL = 3
_REFUSAL_WAIT_SECONDS = 5.0


def repair_once(
    run_id: int,
    *,
    max_repairs: int,
    polling_period_seconds: float,
    fail_on_partial_success: bool = True,
    new_settings_by_reason: Mapping[str, Mapping[str, Any]] | None = None,
    launched_at: float | None = None,
) -> Workflow[Run | None]:
    """Run the failed tasks of a run again, with the parameters that the run was launched with.

    The service runs them with the settings that the job has at that time. So a change of the job,
    such as a larger cluster, takes effect.

    Returns the run as it is after the repair has started. So it does where another user has started
    the repair, or a request whose response was lost. Returns None where the run is not repaired: it
    was canceled or skipped, was repaired ``max_repairs`` times, or failed for another reason.

    :param run_id: a run that failed.
    :param max_repairs: repairs of the run at the most, including those by other users.
    :param polling_period_seconds: seconds between two reads until the repair is shown.
    :param fail_on_partial_success: repair a run with the result SUCCESS_WITH_FAILURES, too; default
        True.
    :param new_settings_by_reason: repair only a run whose state message contains one of these
        texts, and first update the job with the settings of the first such text. Default None, as
        an empty mapping: repair with the job's settings as they are.
    :param launched_at: when the run was launched, in seconds since the epoch; see
        :func:`~.follow.read_run`. Default None.
    :raises JobsAPIError: the service does not repair the run, or does not update the job.
    """

    def read() -> Workflow[Run]:
        return read_run(
            run_id,
            launched_at=launched_at,
            period=polling_period_seconds,
            include_history=True,
        )

    run = yield from read()
    if RunState.from_run(run).status is RunStatus.ACTIVE:
        return run
    repairs = repairs_of(run)
    repairable = is_repairable(run, fail_on_partial_success=fail_on_partial_success)
    if not repairable or len(repairs) >= max_repairs:
        return None
    if new_settings_by_reason:
        reason = repair_reason(run, new_settings_by_reason)
        if reason is None:
            return None
        calls = update_with_permissions(int(run["job_id"]), new_settings_by_reason[reason])
        for call in calls:  # noqa: UP028  (a list takes no exceptions)
            yield call
    request = {
        "run_id": run_id,
        "rerun_all_failed_tasks": True,
        **run_parameters(run),
    }
    if repairs:
        request["latest_repair_id"] = latest_repair_id(run)
    repair_id, found = yield from _send_repair(request, read, len(repairs), polling_period_seconds)
    if found is not None:
        return found
    # The service may show the state before the repair for a moment.
    for _ in range(_READS_AFTER_REPAIR):
        run = yield from read()
        if not RunState.from_run(run).is_terminal or any(
            repair.get("id") == repair_id and RunState.from_run(repair).is_terminal
            for repair in repairs_of(run)
        ):
            break
        yield Wait(polling_period_seconds)
    return run


class RunNotRepairableError(RuntimeError):
    """A run must not be repaired, since other tasks would run than those that it was launched with.

    The message is the reason.
    """


def repair_tasks(
    run_id: int,
    task_key: str,
    *,
    after: int,
    choose: Callable[[Run], Collection[str]],
    settings: Mapping[str, Any],
    polling_period_seconds: float,
) -> Workflow[Run]:
    """Run a task of a run that has ended again, together with others; return the whole run.

    Several callers may do this at the same moment, each for a task of its own. The service repairs
    no active run, and requires the id of the latest repair. So it accepts one of their requests and
    refuses the others, which then find their task among those that run again, or the run active.
    Nothing is repaired if the task was run again meanwhile, or if the run is active.

    The service runs the tasks with the job's settings of that moment. So the job is read right
    before the repair and right after it. If another caller changes it between the two, and the
    tasks run with other settings, they are canceled. A change of settings that a task does not
    show, such as those of a shared cluster, is not noticed in that time.

    :param run_id: the run.
    :param task_key: the task that must run again.
    :param after: the task's latest run that is known; a later one needs no repair.
    :param choose: returns the keys of all tasks to run again, from the whole run.
    :param settings: the settings with which the job was defined when the run was launched.
    :param polling_period_seconds: seconds between two reads until the repair is shown.
    :raises JobsAPIError: the service does not repair the run.
    :raises RunNotRepairableError: the job does not have these settings any more.
    """

    def read() -> Workflow[Run]:
        return whole_run(run_id, api_version=LATEST_API_VERSION, include_history=True)

    def is_rerun(run: Run) -> bool:
        task = latest_attempts(run).get(task_key) or {}
        return task.get("run_id") != after

    run = yield from read()
    if is_rerun(run) or not RunState.from_run(run).is_terminal:
        return run
    repairs, job_id = repairs_of(run), int(run["job_id"])
    chosen = sorted({task_key, *choose(run)})
    request = {"run_id": run_id, "rerun_tasks": chosen, **run_parameters(run)}
    if (latest := latest_repair_id(run)) is not None:
        request["latest_repair_id"] = latest
    # The run has ended, so nothing is lost if refused credentials fail the try at once.
    change = yield from within_deadline(job_change(job_id, settings))
    if change is not None:
        raise RunNotRepairableError(change)
    _, found = yield from _send_repair(request, read, len(repairs), polling_period_seconds)
    if found is not None:
        return found
    for _ in range(_READS_AFTER_REPAIR):
        run = yield from read()
        if is_rerun(run):
            break
        yield Wait(polling_period_seconds)
    change = yield from job_change(job_id, settings)
    if change is not None and not has_tasks(run, settings, chosen):
        # No task runs but those of the repair.
        yield cancel_run(run_id)
        raise RunNotRepairableError(f"{change}, while it was repaired, and the repair is canceled")
    return run


def _send_repair(
    request: dict[str, Any],
    read: Callable[[], Workflow[Run]],
    repairs: int,
    polling_period_seconds: float,
) -> Workflow[tuple[int | None, Run | None]]:
    """Send a repair; return its id, or in place of it the run that another request repairs.

    :param request: the repair.
    :param read: reads the run.
    :param repairs: the number of repairs before this one.
    :param polling_period_seconds: seconds between two reads, at most.
    :raises JobsAPIError: the request has failed, and no other one repairs the run.
    """
    try:
        repair_id: int = yield repair_run(request)
    except JobsAPIError as error:
        if not _may_be_under_repair(error):
            raise
        found = yield from _run_under_repair(read, repairs, polling_period_seconds)
        if found is None:
            raise
        return None, found
    return repair_id, None


def _may_be_under_repair(error: JobsAPIError) -> bool:
    """Whether a run may be under repair although the request for it has failed.

    Another caller was faster, or the response to the same request was lost.
    """
    return isinstance(error, BadRequestError) or error.outcome_unknown


def _run_under_repair(
    read: Callable[[], Workflow[Run]], repairs: int, polling_period_seconds: float
) -> Workflow[Run | None]:
    """Return a run that another request repairs, or has repaired; None if none does.

    The service may show the state before the repair for a moment. A caller that took that for a
    refusal of any repair would run the task once more elsewhere.

    :param read: reads the run.
    :param repairs: the number of repairs before the request.
    :param polling_period_seconds: seconds between two reads, at most.
    """
    for look in range(_READS_AFTER_REFUSAL):
        if look:
            yield Wait(min(polling_period_seconds, _REFUSAL_WAIT_SECONDS))
        run = yield from read()
        if not RunState.from_run(run).is_terminal or len(repairs_of(run)) > repairs:
            return run
    return None


def is_repairable(run: Run, *, fail_on_partial_success: bool = True) -> bool:
    """Whether a run has ended in a way that a repair may help."""
    state = RunState.from_run(run)
    succeeded = state.succeeded(fail_on_partial_success=fail_on_partial_success)
    return state.status in _REPAIRABLE and not succeeded


def repair_reason(run: Run, reasons: Iterable[str]) -> str | None:
    """Return the first of these texts that a run's state message contains; None for none.

    :param run: the run.
    :param reasons: the texts.
    """
    message = RunState.from_run(run).state_message
    return next((reason for reason in reasons if reason in message), None)


def repaired_at(run: Run) -> float | None:
    """Return when the latest repair of a run began, in seconds since the epoch; None without one.

    A repaired run is queued again, but keeps its start_time.
    """
    repairs = repairs_of(run)
    started = repairs[-1].get("start_time") if repairs else None
    return None if started is None else float(started) / 1000


def repairs_of(run: Run) -> list[Mapping[str, Any]]:
    """Return the repairs of a run, oldest first."""
    history = run.get("repair_history") or ()
    return [item for item in history if item.get("type") != "ORIGINAL" and item.get("id")]


def latest_repair_id(run: Run) -> int | None:
    """Return the id of the latest repair of a run; None if it was not repaired."""
    repairs = repairs_of(run)
    return int(repairs[-1]["id"]) if repairs else None


def run_parameters(run: Run) -> dict[str, Any]:
    """Return the parameters with which a run was launched, as fields of a request.

    A repair has to send them again. Otherwise the service uses the job's parameters.
    """
    parameters = dict(run.get("overriding_parameters") or {})
    given = {
        parameter["name"]: parameter["value"]
        for parameter in run.get("job_parameters") or ()
        if parameter.get("name") and parameter.get("value") is not None
    }
    if given:
        parameters["job_parameters"] = given
    return parameters

"""What an attempt of a task in a workflow group does next, and which tasks run again with it.

What an attempt does depends on the task's latest run in the group's run:

==========================================  ====================================================
Latest run of the task                      The attempt
==========================================  ====================================================
active                                      waits for its end and reports that
active, but an attempt before the clear     cancels it and runs the task again: a user has cleared
has followed it                             the task, and the cancel may be under way already
ended, and no attempt has reported it       reports it
ended, and an earlier attempt has reported  runs the task again: Airflow retries it, or a user has
it                                          cleared it
an earlier attempt was to run it again      runs the task again
failed, and no attempt has reported it,     runs the task again: an earlier attempt was to report
though an earlier one was to                it, and died or never started
the same, no attempt has recorded           reports it if a repair has started it and there are as
anything                                    many runs as attempts: the repair was for this attempt
canceled, though the attempt is not the     runs the task again: the kill of an earlier attempt
first one                                   has canceled it
not run, because a task before it failed    runs the task again: Airflow counts that one as
or was canceled                             successful by now
==========================================  ====================================================

An attempt may never start, as when its worker is lost. It records nothing. So the numbers of the
attempts are compared: each record has the number of its attempt. Without a record, all earlier
attempts were to report the run, unless the launching task was cleared. Then some of them belong to
an earlier run, and only those since the task's last clear count.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from airflow_jobs_provider.airflow_compat.workflow_records import (
    UNKNOWN_ATTEMPT,
    LaterAttempt,
    TaskRecord,
    is_about_to_start,
    is_running,
    is_to_be_executed,
    is_to_be_retried,
    is_unfinished,
)

if TYPE_CHECKING:
    from airflow_jobs_provider.airflow_compat.task_identity import TaskAttempt

__all__ = [
    "NOT_RUN",
    "NextStep",
    "Rerun",
    "has_succeeded",
    "next_step",
    "runs_again_too",
    "unmet_conditions",
    "was_repaired",
]

#: Results of a task that did not run, because a task before it failed or was canceled.
NOT_RUN = ("UPSTREAM_FAILED", "UPSTREAM_CANCELED")


class NextStep(Enum):
    """What an attempt of a task in a group does; see the module's table."""

    REPORT = auto()
    RERUN = auto()


def next_step(
    task: Mapping[str, Any],
    record: TaskRecord,
    attempt: TaskAttempt,
    *,
    own: int | None = None,
    cancels: bool = True,
    max_retries: int = 0,
) -> NextStep:
    """Return what an attempt does with the latest run of its task, active or ended.

    :param task: the task's latest run.
    :param record: what earlier attempts have recorded.
    :param attempt: the attempt.
    :param own: the task run that this attempt has started by a repair; None for none.
    :param cancels: whether a run is canceled if a user clears its task; default True.
    :param max_retries: the service's own retries of the task, -1 for no limit; default 0.
    """
    from airflow_jobs_provider.api.states import RunState, RunStatus

    state, run_id = RunState.from_run(task), task.get("run_id")
    if run_id == own:
        return NextStep.REPORT
    if run_id == record.wants_rerun_of:
        return NextStep.RERUN
    if not state.is_terminal:
        is_outdated = cancels and _was_followed_before_clear(task, record, attempt, max_retries)
        return NextStep.RERUN if is_outdated else NextStep.REPORT
    if run_id == record.reported:
        # An attempt that has recorded a success, but died before it told Airflow, is retried.
        is_untold = attempt.attempt_index > 0 and record.max_tries == attempt.max_tries
        succeeded = state.status in (RunStatus.SUCCEEDED, RunStatus.SKIPPED)
        return NextStep.REPORT if is_untold and succeeded else NextStep.RERUN
    if state.result_state in NOT_RUN:
        return NextStep.RERUN
    if state.status is RunStatus.CANCELED:
        return NextStep.RERUN if attempt.try_number > 1 else NextStep.REPORT
    failed = state.status in (RunStatus.FAILED, RunStatus.TIMED_OUT)
    # An attempt that wants the task to run again, or that follows a run, has not reported it yet.
    has_reported = record.wants_rerun_of is None and record.follows in (None, record.reported)
    reporter = record.try_number - (not has_reported)
    died = attempt.try_number - reporter > 1
    if record == TaskRecord() and was_repaired(task, max_retries):
        # A repair that another task has made was for this attempt, if there are as many runs of
        # the task as attempts.
        died = int(task.get("attempt_number") or 0) + 1 < attempt.try_number
    return NextStep.RERUN if failed and died else NextStep.REPORT


def _was_followed_before_clear(
    task: Mapping[str, Any], record: TaskRecord, attempt: TaskAttempt, max_retries: int
) -> bool:
    """Return whether the attempts before the clear of a task have followed its active run."""
    if attempt.attempts_before_clear == 0 or record.try_number > attempt.attempts_before_clear:
        return False
    if task.get("run_id") == record.follows:
        return True
    # The first attempt of all records nothing where it follows the task's first run, unless the
    # launching task was cleared: then the record has the number of an attempt before that.
    return record == TaskRecord() and not was_repaired(task, max_retries)


def was_repaired(task: Mapping[str, Any], max_retries: int) -> bool:
    """Return whether a repair has started a task run, rather than the launch of the group's run.

    A repair goes on with the numbers of the attempts, as a retry of the service does.

    :param task: the task run. False if it may as well be a retry.
    :param max_retries: the service's own retries of the task, -1 for no limit.
    """
    return 0 <= max_retries < int(task.get("attempt_number") or 0)


class Rerun(Enum):
    """Whether a repair that one task of a group makes runs another task again, too."""

    YES = auto()
    NO = auto()
    #: The task is executed, and is about to tell: it ends, or records that it is to run again.
    UNDECIDED = auto()


def has_succeeded(task: Mapping[str, Any] | None) -> bool:
    """Return whether the run of a task has succeeded, or was skipped.

    :param task: the task's run; None for none.
    """
    from airflow_jobs_provider.api.states import RunState, RunStatus

    if task is None:
        return False
    return RunState.from_run(task).status in (RunStatus.SUCCEEDED, RunStatus.SKIPPED)


def runs_again_too(
    state: str | None,
    task: Mapping[str, Any] | None,
    record: TaskRecord,
    later: LaterAttempt = UNKNOWN_ATTEMPT,
    *,
    follows_run: bool = True,
    launch_was_cleared: bool = False,
    max_retries: int = 0,
    has_waited: bool = False,
) -> Rerun:
    """Return whether another task of the group runs again with the same repair.

    ================================  ==========================================================
    State of the other task           It runs again
    ================================  ==========================================================
    it waits for a repair             yes
    to be executed, latest run        yes. But not where an attempt has died after it had recorded
    reported                          a success: the retry reports that
    to be executed, latest run not    if that did not run, because of a task before it
    reported
    to be retried, latest run         if that was canceled, or the attempt has died: it has followed
    canceled, or failed and not       the run, or no attempt has recorded anything and no repair has
    reported                          started the run
    about to be executed, likewise    undecided: the attempt will report that, or run the task again
    it does not wait for its run      no, unless that did not run, because of a task before it
    running, latest run reported      yes if a later attempt has begun: it runs the task again.
                                      Otherwise the attempt is about to end
    executed, latest run failed and   undecided: the attempt is about to report that, and Airflow
    not reported                      may retry it
    any other                         no
    ================================  ==========================================================

    :param state: the other task's state in Airflow.
    :param task: its latest run; None where the group's run has no such task.
    :param record: what its attempts have recorded.
    :param later: what Airflow tells of attempts after the one that has recorded this.
    :param follows_run: whether the other task waits for the end of its run; default True. One that
        does not neither reports nor records anything.
    :param launch_was_cleared: whether the launching task was cleared. Then it is not known whether
        attempts that have recorded nothing belong to the group's run. Default False.
    :param max_retries: the service's own retries of the task, -1 for no limit; default 0.
    :param has_waited: whether an undecided task has had time to tell. Then a task that is still
        running although it has reported a failure counts as one that was started again, and whose
        process has died. Other undecided tasks do not run again.
    """
    from airflow_jobs_provider.api.states import RunState, RunStatus

    if task is None or record.is_alone or not is_unfinished(state):
        return Rerun.NO
    run_id, status = task.get("run_id"), RunState.from_run(task).status
    if record.wants_rerun_of == run_id:
        return Rerun.YES
    undecided = Rerun.NO if has_waited else Rerun.UNDECIDED
    succeeded = has_succeeded(task)
    if record.reported != run_id:
        not_run = RunState.from_run(task).result_state in NOT_RUN
        if is_to_be_executed(state) and not_run:
            return Rerun.YES
        if not follows_run:
            return Rerun.NO
        if is_to_be_executed(state):
            if status not in (RunStatus.FAILED, RunStatus.TIMED_OUT, RunStatus.CANCELED):
                return Rerun.NO
            if is_to_be_retried(state):
                is_untouched = record == TaskRecord() and not was_repaired(task, max_retries)
                has_died = record.follows == run_id or (is_untouched and not launch_was_cleared)
                return Rerun.YES if has_died or status is RunStatus.CANCELED else Rerun.NO
            return undecided if is_about_to_start(state) else Rerun.NO
        return Rerun.NO if succeeded or status is RunStatus.ACTIVE else undecided
    if is_to_be_executed(state):
        is_untold = is_to_be_retried(state) and succeeded and not later.was_cleared
        return Rerun.NO if is_untold else Rerun.YES
    if not is_running(state):
        return undecided
    if later.has_begun and (later.was_cleared or not succeeded):
        return Rerun.YES
    return Rerun.YES if has_waited and not succeeded else undecided


def unmet_conditions(
    keys: Collection[str],
    definitions: Iterable[Mapping[str, Any]],
    latest: Mapping[str, Mapping[str, Any]],
) -> dict[str, str]:
    """Return the tasks that a repair could not run, with the task before them that is to blame.

    Databricks looks at the latest runs of the tasks before. A user may have marked such a task as
    successful in Airflow, or it has run alone, though its run in the group has failed.

    :param keys: keys of the tasks that are to run again.
    :param definitions: the tasks as the job defines them.
    :param latest: the latest runs of the run's tasks, by key.
    """
    by_key = {str(one["task_key"]): one for one in definitions}
    unmet: dict[str, str] = {}
    while True:
        chosen = {key for key in keys if key not in unmet}
        found = {key: _unmet_condition(by_key.get(key) or {}, latest, chosen) for key in chosen}
        more = {key: other for key, other in found.items() if other is not None}
        if not more:
            return unmet
        unmet |= more


def _unmet_condition(
    definition: Mapping[str, Any], latest: Mapping[str, Mapping[str, Any]], chosen: Collection[str]
) -> str | None:
    """Return the task because of which ``run_if`` of a task is not met; None if it may be met."""
    from airflow_jobs_provider.api.states import RunState, RunStatus

    before = [str(one["task_key"]) for one in definition.get("depends_on") or ()]
    statuses = {
        key: RunState.from_run(latest[key]).status
        for key in before
        if key in latest and key not in chosen
    }
    bad = (RunStatus.FAILED, RunStatus.TIMED_OUT, RunStatus.CANCELED)
    failed = [key for key, status in statuses.items() if status in bad]
    run_if = definition.get("run_if") or "ALL_SUCCESS"
    if run_if in ("ALL_SUCCESS", "NONE_FAILED"):
        return next(iter(failed), None)
    if run_if == "AT_LEAST_ONE_SUCCESS" and failed and len(failed) == len(before):
        return failed[0]
    return None

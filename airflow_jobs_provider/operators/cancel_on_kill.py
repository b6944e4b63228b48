"""The part of a launching operator that cancels its run when the task is killed or has failed."""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.providers.common.compat.sdk import AirflowException, AirflowTaskTimeout

from airflow_jobs_provider.airflow_compat.default_arguments import applies_defaults_once
from airflow_jobs_provider.airflow_compat.orphaned_runs import (
    cancels_orphans,
    recorded_run_id,
    with_orphan_callback,
)
from airflow_jobs_provider.airflow_compat.run_successor import (
    Successor,
    find_successor,
    is_request_in_progress,
    runs_under_supervisor,
)
from airflow_jobs_provider.api.workflows.launched_run import (
    is_just_launched,
    latest_launch_of_recorded_run,
)
from airflow_jobs_provider.operators.argument_checks import check_flags
from airflow_jobs_provider.operators.execution_state import ExecutionState, KillState
from airflow_jobs_provider.operators.wait import WaitForRunOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobs_provider.api.retry import RetryPolicy
    from airflow_jobs_provider.api.workflows.base import OnEvent, Workflow

__all__ = ["CancelOnKillOperator"]

T = TypeVar("T")

# Longest sleep before the process checks whether it was killed.
_LONGEST_SLEEP_SECONDS = 1.0


@applies_defaults_once
class CancelOnKillOperator(WaitForRunOperator):
    """Base class of the operators that launch a run, as far as kills are concerned.

    A kill may come at any moment, so the state of the execution is always up to date; see
    :class:`~.execution_state.ExecutionState`. Which process follows the run after a kill is decided
    in :mod:`airflow_jobs_provider.airflow_compat.run_successor`.

    :param wait_for_termination: wait for the run's end; default True.
    :param cancel_on_kill: cancel the run when the task is cleared, marked or timed out, or has
        failed for good; default True.
    """

    def __init__(
        self, *, wait_for_termination: bool = True, cancel_on_kill: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        check_flags(wait_for_termination=wait_for_termination, cancel_on_kill=cancel_on_kill)
        self.wait_for_termination = wait_for_termination
        self.cancel_on_kill = cancel_on_kill
        self._state = ExecutionState()
        if cancels_orphans(vars(self)):
            self.on_failure_callback = with_orphan_callback(self.on_failure_callback)

    def _next_try_finds_run(self) -> bool:
        """Whether a retry of the task would find the run of this try."""
        raise NotImplementedError

    @property
    def run_may_be_active(self) -> bool:
        """Whether the task has launched, or may have launched, a run that may be active."""
        return self._state.run.may_be_active

    def _logged_ids(self) -> tuple[int | None, int | None]:
        # The base class may log before there is a state.
        state: ExecutionState | None = getattr(self, "_state", None)
        return (None, None) if state is None else (state.run.run_id, state.job_id)

    def on_kill(self) -> None:
        """Cancel the run that the task was launching or waiting for, if nothing follows it.

        On Airflow 3 the process goes on after this.
        """
        if not self._state.run.may_be_active:
            if self._state.kill is KillState.NOT_KILLED:
                self._state = self._state.with_kill(KillState.KILLED)
        elif is_request_in_progress():
            # No other request can be sent to Airflow now: see _end_if_killed.
            self._state = self._state.with_kill(KillState.UNDECIDED)
        else:
            self._decide_on_kill()

    def _decide_on_kill(self) -> None:
        """Find out what follows the run of the killed task; cancel it if nothing does."""
        self._state = self._state.with_kill(KillState.KILLED)
        decision = KillState.from_successor(self._find_successor())
        self._state = self._state.with_kill(decision)
        if decision is not KillState.CANCEL:
            self.log.info("The run goes on: the task still waits for it, or its next try will.")
        elif not self._state.run.is_canceled:
            self._cancel_for_kill()

    def _find_successor(self) -> Successor:
        timed_out = isinstance(sys.exception(), AirflowTaskTimeout)
        if self._state.attempt is None or timed_out or not self._next_try_finds_run():
            return Successor.NONE
        return find_successor(self._state.attempt)

    def _cancel_for_kill(self) -> None:
        if self.cancel_on_kill and self._state.kill is KillState.CANCEL:
            self._cancel("the task was killed")

    def _cancel_for_refused_deferral(self) -> None:
        if not self._state.run.is_canceled:
            self._cancel("a user ended the task before it had deferred")

    def page_url_at_process_end(self) -> str | None:
        """Return the URL of the run's page; None where this object has executed no task.

        Airflow 3 asks for it at the end of a task's process.
        """
        self._at_process_end()
        return self._state.run_page_url

    def _at_process_end(self) -> None:
        """Cancel the run if Airflow has refused the deferral, since a user has ended the task."""
        if self._state.deferral is not None:
            self._state.deferral.finish()

    def cancel_orphaned_run(self, context: Context) -> None:
        """Cancel the run of this task, which has failed for good, if the run may be active.

        It may be active where it could not be read any more. Where the task's process died,
        Airflow's DAG processor calls this.

        :param context: the task's context.
        """
        if not cancels_orphans(vars(self)):
            return
        if self._state.kill not in (
            KillState.NOT_KILLED,
            KillState.UNDECIDED,
            KillState.LEFT_TO_RETRY,
        ):
            return  # The kill has been handled.
        if self._state.attempt is None:
            run_id = recorded_run_id(self, context)
            if run_id is None:
                return
            self._state = ExecutionState()
            self._state.run.answered(run_id, latest_launch_of_recorded_run(time.time()))
            self.databricks_conn_id = self.render_template(self.databricks_conn_id, context)
        self._cancel("its task has failed")

    @staticmethod
    def _retries_after_kill() -> RetryPolicy:
        """Return few retries: Airflow sends SIGKILL a few seconds after the first signal."""
        from airflow_jobs_provider.api.retry import RetryPolicy

        return RetryPolicy(max_attempts=3, initial_wait=0.5)

    def _cancel(self, reason: str) -> None:
        """Cancel the run if it may be active. An error is logged, not raised."""
        from airflow_jobs_provider.api.errors import JobsAPIError
        from airflow_jobs_provider.api.workflows.base import run_workflow
        from airflow_jobs_provider.api.workflows.cancel import (
            cancel_launched_run,
            log_failed_cancel,
        )

        run = self._state.run
        if not run.may_be_active:
            return
        retries, is_new = self._retries_after_kill(), True
        try:
            # A client of its own: the kill may have interrupted the other one, or a request to
            # Airflow.
            with self.hook.client.clone() as client:
                if run.run_id is None:
                    # The launch's response is missing. The same token brings the run's id.
                    assert run.call is not None
                    run.answered(client.send(run.call, retries=retries), launched_at=time.time())
                assert run.run_id is not None
                is_new = is_just_launched(run.launched_at, time.time())
                run_workflow(
                    cancel_launched_run(run.run_id, launched_at=run.launched_at),
                    send=partial(client.send, retries=retries),
                    wait=client.sleep,
                )
        except JobsAPIError as error:
            log_failed_cancel(self.log, run.run_id, error, is_new=is_new)
        else:
            run.canceled()
            self.log.info("Run %s was canceled, because %s.", run.run_id, reason)

    def _run_workflow(
        self,
        steps: Workflow[T],
        *,
        stop_after_any_kill: bool = False,
        on_event: OnEvent | None = None,
    ) -> T:
        """Execute a workflow, and stop it after a kill; Airflow 3 lets the process go on.

        :param steps: the workflow.
        :param stop_after_any_kill: stop it after any kill. Default False: only if a retry follows
            the run. After other kills Airflow ends the process, or the run's end ends the try.
        :param on_event: called with each event; by default the event is recorded.
        :raises AirflowException: the workflow was stopped.
        """
        client, run = self.hook.client, self._state.run

        def check() -> None:
            self._end_if_killed(after_any_kill=stop_after_any_kill)

        def wait(seconds: float) -> None:
            check()
            # A signal does not end a sleep on Airflow 3.
            while seconds > _LONGEST_SLEEP_SECONDS and runs_under_supervisor():
                client.sleep(_LONGEST_SLEEP_SECONDS)
                check()
                seconds -= _LONGEST_SLEEP_SECONDS
            client.sleep(seconds)

        return client.run(
            steps,
            on_attempt=run.on_attempt,
            on_event=on_event or run.record,
            before_step=check,
            wait=wait,
        )

    def _end_if_killed(self, *, after_any_kill: bool) -> None:
        """End the try if a retry follows its run, or after any kill.

        On Airflow 2 the process ends with on_kill.

        :raises AirflowException: the try is to end.
        """
        if self._state.kill is KillState.UNDECIDED:
            self._decide_on_kill()
        if self._state.kill is KillState.LEFT_TO_RETRY:
            run_id = self._state.run.run_id
            run = "The run" if run_id is None else f"Run {run_id}"
            raise AirflowException(
                f"The task's process was told to end. {run} goes on, and the next try follows it"
            )
        if self._state.kill is not KillState.NOT_KILLED and after_any_kill:
            raise AirflowException("the task was killed")

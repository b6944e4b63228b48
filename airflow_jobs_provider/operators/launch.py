"""What the operators that launch a run share: launching it once, waiting, and its output."""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from airflow.providers.common.compat.sdk import AirflowException, AirflowTaskTimeout

from airflow_jobs_provider.airflow_compat.deferral import Deferral
from airflow_jobs_provider.airflow_compat.handover import (
    Successor,
    find_successor,
    is_request_in_progress,
    runs_under_supervisor,
    xcoms_at_start,
)
from airflow_jobs_provider.airflow_compat.nested_operators import AttemptExecutions, executions_of
from airflow_jobs_provider.airflow_compat.orphaned_runs import (
    cancels_orphans,
    recorded_run_id,
    with_orphan_callback,
)
from airflow_jobs_provider.airflow_compat.task_attempt import TaskAttempt
from airflow_jobs_provider.api.workflows.launched_run import LaunchedRun, is_just_launched
from airflow_jobs_provider.exceptions import airflow_exceptions
from airflow_jobs_provider.links import DatabricksJobRunLink
from airflow_jobs_provider.operators.argument_checks import (
    check_flags,
    check_retry_args,
    check_storable,
    check_token,
    seconds,
)
from airflow_jobs_provider.operators.payload import PayloadOperator
from airflow_jobs_provider.operators.validation import check_before_sending
from airflow_jobs_provider.operators.wait import WaitForRunOperator

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow.sdk import Context

    from airflow_jobs_provider.api.endpoints import Call
    from airflow_jobs_provider.api.workflows.base import OnEvent, Workflow
    from airflow_jobs_provider.api.workflows.launch import Launched

__all__ = ["LaunchRunOperator"]

T = TypeVar("T")

# How long a wait may last until a process that was told to end sees it.
_LONGEST_PAUSE_SECONDS = 1.0


class LaunchRunOperator(PayloadOperator, WaitForRunOperator):
    """Launch a run, wait for its end, return its output: what both operators share.

    A subclass names its endpoint and the endpoint's fields, and makes the call.
    """

    operator_extra_links = (DatabricksJobRunLink(),)

    # Whether the service may retry the run by itself, as a job's max_retries asks.
    _service_may_retry: ClassVar[bool] = False

    def __init__(
        self,
        *,
        polling_period_seconds: float | timedelta = 10,
        wait_for_termination: bool = True,
        reattach: bool = True,
        cancel_on_kill: bool = True,
        queued_timeout_seconds: float | timedelta | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_flags(
            wait_for_termination=wait_for_termination,
            reattach=reattach,
            cancel_on_kill=cancel_on_kill,
        )
        if self.deferrable and wait_for_termination:
            check_storable(self.databricks_retry_args)
        self.polling_period_seconds = seconds("polling_period_seconds", polling_period_seconds)
        self.wait_for_termination = wait_for_termination
        self.reattach = reattach
        self.cancel_on_kill = cancel_on_kill
        self.queued_timeout_seconds = seconds(
            "queued_timeout_seconds", queued_timeout_seconds, optional=True
        )
        self._killed = self._is_undecided = False
        # Of the process that executes the task, which is not the only one to get here.
        self._attempt: TaskAttempt | None = None
        self._executions: AttemptExecutions | None = None
        # What a kill needs to know of the run; and who follows it after a kill.
        self._run = LaunchedRun()
        self._successor: Successor | None = None
        self._deferral: Deferral | None = None
        self._run_page_url: str | None = None
        if cancels_orphans(vars(self)):
            self.on_failure_callback = with_orphan_callback(self.on_failure_callback)
        # When this try began, where Airflow tells it wrongly, and what its deadline was before.
        self._began: float | None = None
        self._known_deadline: float | None = None

    if not TYPE_CHECKING:  # It has the type that Airflow gives it.

        @classmethod
        def partial(cls, **kwargs: Any) -> Any:
            """Begin a mapped task, which cancels its orphaned run as well.

            The DAG processor does not call the constructor of a mapped task, which adds the
            callback to others, and Airflow checks the arguments on the worker only.
            """
            if kwargs.get("deferrable") is True and kwargs.get("wait_for_termination", True):
                check_retry_args(kwargs.get("databricks_retry_args"))
                check_storable(kwargs.get("databricks_retry_args"))
            partial = super().partial(**kwargs)
            if cancels_orphans(partial.kwargs):
                partial.kwargs["on_failure_callback"] = with_orphan_callback(
                    partial.kwargs.get("on_failure_callback")
                )
            return partial

    def launch_call(self, context: Context) -> Call[int]:
        """Return the call that launches the run, but for its token."""
        raise NotImplementedError

    def execute(self, context: Context) -> Any:
        """Launch the run; wait for it unless told otherwise; return its output."""
        executions = self._begin(context)
        self._push(context, **xcoms_at_start(self._task_attempt))
        with airflow_exceptions(), executions.watching(self):
            return self._launch_and_wait(context, first_attempt_index=0)

    @property
    def run_may_be_live(self) -> bool:
        """Whether there may be a run that this task has launched and that goes on."""
        return self._run.may_be_live

    def _begin(self, context: Context, resumed: int | None = None) -> AttemptExecutions:
        """Begin an execution, or go on with one that was deferred."""
        executions = executions_of(context)
        if self._executions is executions and self._run.may_be_live:
            # Executed again in the same try, after an error that the task has caught.
            executions.watch(copy.copy(self))
        self._executions = executions
        if resumed is None:
            execution = executions.begin(self.task_id)
        else:
            execution = executions.resume(self.task_id, resumed)
        # Copies of this task, such as those of its other tries, share the object of before.
        self._run, self._deferral, self._run_page_url = LaunchedRun(), None, None
        self._attempt = TaskAttempt.from_context(
            context, operator_task_id=self.task_id, execution=execution
        )
        return executions

    @property
    def _task_attempt(self) -> TaskAttempt:
        assert self._attempt is not None, "the task was not begun"
        return self._attempt

    def execute_complete(
        self,
        context: Context,
        event: dict[str, Any],
        attempt_index: int | None = None,
        try_number: int | None = None,
        deadline: float | None = None,
        execution: int | None = None,
    ) -> Any:
        """Resume after the trigger's event: return the run's output, or raise why it failed.

        :param event: what the trigger fired.
        :param attempt_index: place of the run's token among the task's; None in events stored by
            versions without it.
        :param try_number: the try that deferred; None likewise.
        :param deadline: when its execution_timeout is over, in seconds since the epoch; None
            likewise, or without one.
        :param execution: how often the operator had been executed before in the try; None likewise.
        """
        if try_number not in (None, context["ti"].try_number):
            # Airflow 3.0 begins a retry with the event that ended the try before, and its start.
            self._began = time.time()
            return self.execute(context)
        # Airflow 3.0 lets the start of a try begin anew each time that it is resumed.
        self._known_deadline = deadline
        executions = self._begin(context, execution or 0)
        if event.get("run_id") is not None:
            self._run.answered(event["run_id"])
        if "run" in event:
            self._run.ended()
            self._run_page_url = event["run"].get("run_page_url")
        run = self._run_of(event)
        with airflow_exceptions(), executions.watching(self):
            following = self._following(context, run, attempt_index)
            if following is None:
                return self._result_or_raise(context, run)
            return self._wait_and_conclude(context, following)

    def on_kill(self) -> None:
        """Cancel the run that the task was launching or waiting for, if nobody follows it.

        See :mod:`.handover` for the rule. On Airflow 3 the process goes on after this.
        """
        self._killed = True
        if self._run.may_be_live:
            # In the middle of a question to Airflow no other can be asked: see _end_if_killed.
            self._is_undecided = is_request_in_progress()
            if not self._is_undecided:
                self._decide_on_kill()

    def _decide_on_kill(self) -> None:
        """Find out who follows the run of the killed task; cancel it if nobody does."""
        self._successor = self._find_successor()
        if self._successor is not Successor.NONE:
            self.log.info("The run goes on: the task still waits for it, or its next try will.")
        elif not self._run.is_canceled:
            self._cancel_for_kill()

    def _cancel_for_kill(self) -> None:
        if self.cancel_on_kill and self._successor is Successor.NONE:
            self._cancel("the task was killed")

    def _find_successor(self) -> Successor:
        if self._attempt is None or isinstance(sys.exception(), AirflowTaskTimeout):
            return Successor.NONE
        next_try_sends_its_token = self.reattach or bool(self.request().get("idempotency_token"))
        return find_successor(self._attempt) if next_try_sends_its_token else Successor.NONE

    def _cancel_for_refused_deferral(self) -> None:
        if not self._run.is_canceled:
            self._cancel("a user ended the task before it had deferred")

    def page_url_at_the_end(self) -> str | None:
        """Return the URL of the run's page; None where this object has executed no task.

        Airflow 3 asks for it at the end of a task's process.
        """
        if self._deferral is not None:
            self._deferral.finish()
        return self._run_page_url

    def cancel_orphaned_run(self, context: Context) -> None:
        """Cancel the run of this task, which has failed for good, if it goes on.

        That is so where the run could not be followed any more, and where the task's process died
        without a word: then Airflow's DAG processor calls this.
        """
        if not cancels_orphans(vars(self)):
            return
        waits_for_retry = self._is_undecided or self._successor is Successor.RETRY
        if self._killed and not waits_for_retry:
            return  # The kill has settled it.
        if self._attempt is None:
            run_id = recorded_run_id(self, context)
            if run_id is None:
                return
            self._run = LaunchedRun()
            self._run.answered(run_id)
            self.databricks_conn_id = self.render_template(self.databricks_conn_id, context)
        self._cancel("its task has failed")

    def _cancel(self, reason: str) -> None:
        from airflow_jobs_provider.api.endpoints import cancel_run
        from airflow_jobs_provider.api.errors import JobsAPIError, NotFoundError
        from airflow_jobs_provider.api.retry import RetryPolicy

        run = self._run
        if not run.may_be_live:
            return
        # A client of its own, since the kill may have interrupted the other one, or Airflow's
        # answer to a look-up; and quickly, since Airflow sends SIGKILL a few seconds after this.
        quickly, is_new = RetryPolicy(max_attempts=3, initial_wait=0.5), True
        try:
            with self.hook.client.clone() as client:
                if run.run_id is None:
                    # The answer is not there, or was lost. The same token brings the run's id.
                    assert run.call is not None
                    run.answered(client.send(run.call, retries=quickly), launched_at=time.time())
                assert run.run_id is not None
                is_new = is_just_launched(run.launched_at, time.time())
                client.send(
                    cancel_run(run.run_id), retries=replace(quickly, retry_not_found=is_new)
                )
        except JobsAPIError as error:
            if isinstance(error, NotFoundError) and run.run_id is not None and not is_new:
                self.log.info("Run %s does not exist any more and is not canceled.", run.run_id)
                return
            self.log.error(
                "Run %s could not be canceled and may still run: %s",
                run.run_id or "of this task",
                error,
            )
        else:
            run.canceled()
            self.log.info("Run %s was canceled, because %s.", run.run_id, reason)

    def _launch_and_wait(self, context: Context, *, first_attempt_index: int) -> Any:
        launched = self._launch(context, first_attempt_index)
        if self.wait_for_termination:
            return self._wait_and_conclude(context, launched)
        # Who does not wait for the run does not stop it later either.
        self._run.ended()
        return None

    def _wait_and_conclude(self, context: Context, launched: Launched) -> Any:
        from airflow_jobs_provider.api.states import RunState

        while True:
            run, deadline = launched.run, self._deadline(context)
            if not RunState.from_run(run).is_terminal and self._may_defer(context):
                if self._attempt is not None and self.cancel_on_kill:
                    self._deferral = Deferral(self._attempt, self._cancel_for_refused_deferral)
                self._defer_until_ended(
                    run,
                    polling_period_seconds=self.polling_period_seconds,
                    kwargs={
                        "attempt_index": launched.attempt_index,
                        "try_number": context["ti"].try_number,
                        "deadline": deadline,
                        "execution": self._task_attempt.execution,
                    },
                    cancel_on_kill=self.cancel_on_kill,
                    deadline=deadline,
                    queued_timeout_seconds=self.queued_timeout_seconds,
                    queued_since=launched.queued_since,
                    launched_at=launched.launched_at,
                    follow_attempts=self._service_may_retry,
                )
            run = self._wait(launched)
            following = self._following(context, run, launched.attempt_index)
            if following is None:
                return self._result_or_raise(context, run)
            launched = following

    def _following(
        self, context: Context, run: Mapping[str, Any], attempt_index: int | None
    ) -> Launched | None:
        """Return what is to be waited for next; None where the run's end is this task's."""
        if self._may_be_replaced(context, run, attempt_index):
            return self._launch(context, (attempt_index or 0) + 1)
        return None

    def _tokens(self, context: Context, request_token: str | None) -> list[str]:
        """Return the tokens of this try, one for each try so far."""
        check_token(request_token)
        if request_token:
            return [request_token]
        if not self.reattach:
            import uuid

            return [uuid.uuid4().hex]
        return self._task_attempt.tokens()

    def _before_launch(self, context: Context, call: Call[int]) -> Workflow[None]:
        """Do what is to be done before this try launches a run of its own; by default nothing."""
        yield from ()

    def _launch(self, context: Context, first_attempt_index: int) -> Launched:
        from airflow_jobs_provider.api.versions import OLDEST_API_VERSION
        from airflow_jobs_provider.api.workflows.base import Event, RunIdentified
        from airflow_jobs_provider.api.workflows.launch import launch_once

        call = self.launch_call(context)
        client = self.hook.client
        check_before_sending(call.path, call.parameters, validate=self.validate, client=client)
        version = client.version_of(call)
        tokens = self._tokens(context, self.request().get("idempotency_token"))

        def on_event(event: Event) -> None:
            self._run.record(event)
            if isinstance(event, RunIdentified):
                self._push(context, run_id=event.run_id)

        steps = launch_once(
            call,
            tokens,
            first_attempt_index=min(first_attempt_index, len(tokens) - 1),
            polling_period_seconds=self.polling_period_seconds,
            fail_on_partial_success=self.fail_on_partial_success,
            before_own_launch=self._before_launch(context, call),
        )
        launched = self._run_workflow(steps, after_any_kill=True, on_event=on_event)
        run = launched.run
        self._run_page_url = run.get("run_page_url")
        self._push(context, job_id=run.get("job_id"), run_page_url=self._run_page_url)
        verb = "Following" if launched.attempt_index < len(tokens) - 1 else "Launched"
        page = self._run_page_url or "the workspace"
        through = "" if version == OLDEST_API_VERSION else f" through version {version} of the API"
        self.log.info("%s run %s%s, see %s", verb, launched.run_id, through, page)
        return launched

    def _may_be_replaced(
        self, context: Context, run: Mapping[str, Any], attempt_index: int | None
    ) -> bool:
        """Whether the run is an earlier try's, cancelled by the kill of that try."""
        from airflow_jobs_provider.api.states import RunState, RunStatus

        if attempt_index is None or not self.reattach or self.request().get("idempotency_token"):
            return False
        is_own = attempt_index >= self._task_attempt.attempt_index
        return not is_own and RunState.from_run(run).status is RunStatus.CANCELED

    def _run_workflow(
        self,
        steps: Workflow[T],
        *,
        after_any_kill: bool = False,
        on_event: OnEvent | None = None,
    ) -> T:
        """Execute a workflow until the try is to end; Airflow 3 lets its process go on.

        :param steps: the workflow.
        :param after_any_kill: end the workflow after any kill; default False, only if the next try
            follows the run. Otherwise Airflow kills the process, or the run's end ends the try.
        :param on_event: called with each event; by default it is recorded.
        """
        client = self.hook.client

        def check() -> None:
            self._end_if_killed(after_any_kill)

        def wait(seconds: float) -> None:
            check()
            # A signal does not end a sleep on Airflow 3.
            while seconds > _LONGEST_PAUSE_SECONDS and runs_under_supervisor():
                client.sleep(_LONGEST_PAUSE_SECONDS)
                check()
                seconds -= _LONGEST_PAUSE_SECONDS
            client.sleep(seconds)

        return client.run(
            steps,
            on_attempt=self._run.on_attempt,
            on_event=on_event or self._run.record,
            before_step=check,
            wait=wait,
        )

    def _end_if_killed(self, after_any_kill: bool) -> None:
        """End the try if Airflow will retry it, or after any kill; on Airflow 2, on_kill ends it.

        :raises AirflowException: the try is to end.
        """
        if self._is_undecided:
            self._is_undecided = False
            self._decide_on_kill()
        if self._successor is Successor.RETRY:
            run = f"Run {self._run.run_id}" if self._run.run_id else "The run"
            raise AirflowException(
                f"The task's process was told to end. {run} goes on, and the next try follows it"
            )
        if self._killed and after_any_kill:
            raise AirflowException("the task was killed")

    def _deadline(self, context: Context) -> float | None:
        """Return when this try's execution_timeout is over, in seconds since the epoch."""
        if self.execution_timeout is None or self._known_deadline is not None:
            return self._known_deadline
        began = self._began
        if began is None:
            start = getattr(context["ti"], "start_date", None)
            began = time.time() if start is None else start.timestamp()
        return began + self.execution_timeout.total_seconds()

    def _wait(self, launched: Launched) -> dict[str, Any]:
        from airflow_jobs_provider.api.workflows.follow import follow_run
        from airflow_jobs_provider.api.workflows.progress import RunProgress
        from airflow_jobs_provider.exceptions import DatabricksRunTimeoutError

        steps = follow_run(
            launched.run_id,
            polling_period=lambda: self.polling_period_seconds,
            progress=RunProgress(launched.run_id, self.log),
            first_look=launched.run,
            queued_timeout_seconds=self.queued_timeout_seconds,
            queued_since=launched.queued_since,
            follow_attempts=self._service_may_retry,
            launched_at=launched.launched_at,
        )
        ended = self._run_workflow(steps)
        if ended.queued_too_long:
            if self.cancel_on_kill:
                self._cancel("it did not begin to run in time")
                self._run.ended()
            raise DatabricksRunTimeoutError(
                launched.run_id, "queued_timeout_seconds", ended.run.get("run_page_url") or ""
            )
        self._run.ended()
        return ended.run

"""What the operators that launch a run share: launching it once, waiting, and its output."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_jobs_provider.airflow_compat.default_arguments import applies_defaults_once
from airflow_jobs_provider.airflow_compat.nested_operators import executions_of
from airflow_jobs_provider.airflow_compat.orphaned_runs import (
    cancels_orphans,
    with_orphan_callback,
)
from airflow_jobs_provider.airflow_compat.refused_deferral import Deferral
from airflow_jobs_provider.airflow_compat.run_successor import xcoms_at_start
from airflow_jobs_provider.airflow_compat.task_identity import TaskAttempt
from airflow_jobs_provider.airflow_compat.telemetry import annotate_span
from airflow_jobs_provider.exceptions import airflow_exceptions
from airflow_jobs_provider.operators.argument_checks import (
    check_flags,
    check_json_serializable,
    check_retry_args,
    check_token,
    flag_or_option,
    openlineage_flag,
    to_seconds,
)
from airflow_jobs_provider.operators.extra_links import extra_links
from airflow_jobs_provider.operators.payload_validation import check_before_sending
from airflow_jobs_provider.operators.start_from_trigger import StartFromTriggerOperator
from airflow_jobs_provider.xcom import JOB_ID_KEY, RUN_ID_KEY, RUN_PAGE_URL_KEY

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow.sdk import Context

    from airflow_jobs_provider.airflow_compat.nested_operators import AttemptExecutions
    from airflow_jobs_provider.api.calls import Call
    from airflow_jobs_provider.api.schema.types import Run
    from airflow_jobs_provider.api.workflows.base import Workflow
    from airflow_jobs_provider.api.workflows.events import Event
    from airflow_jobs_provider.api.workflows.launch import LaunchResult

__all__ = ["LaunchRunOperator"]


@applies_defaults_once
class LaunchRunOperator(StartFromTriggerOperator):
    """Launch a run, wait for its end and return its output.

    A subclass names its endpoint and the endpoint's fields, and makes the call.

    :param polling_period_seconds: seconds, or a timedelta, between two reads of the run; default
        10 in the triggerer; on a worker 10, then 20, then 30.
    :param reattach: follow the run that an earlier try launched, where it is active or has
        succeeded; default True.
    :param durable: the official provider's name of ``reattach``; default None.
    :param queued_timeout_seconds: seconds, or a timedelta, after which the task fails if the run
        has not started; default no limit.
    """

    operator_extra_links: tuple[Any, ...] = extra_links()

    # Whether OpenLineage's information is sent with the run, in the operators that take this.
    openlineage_inject_parent_job_info: bool = False
    openlineage_inject_transport_info: bool = False
    # Whether a retry takes over the failed run of an earlier try, rather than launch a new one.
    adopts_failed_runs: ClassVar[bool] = False

    def __init__(
        self,
        *,
        polling_period_seconds: float | timedelta | None = None,
        reattach: bool = True,
        durable: bool | None = None,
        queued_timeout_seconds: float | timedelta | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_flags(reattach=reattach)
        if self.deferrable and self.wait_for_termination:
            check_json_serializable(self.databricks_retry_args)
        self._grows_period = polling_period_seconds is None and queued_timeout_seconds is None
        period = 10 if polling_period_seconds is None else polling_period_seconds
        self.polling_period_seconds = to_seconds("polling_period_seconds", period)
        if durable is not None:
            check_flags(durable=durable)
            if durable and not reattach:
                raise ValueError("reattach=False and durable=True contradict each other")
        self.reattach = reattach and durable is not False
        self.durable = self.reattach
        self.queued_timeout_seconds = to_seconds(
            "queued_timeout_seconds", queued_timeout_seconds, optional=True
        )

    if not TYPE_CHECKING:  # It has the type that Airflow gives it.

        @classmethod
        def partial(cls, **kwargs: Any) -> Any:
            """Map the operator over arguments; see Airflow's ``BaseOperator.partial``.

            Airflow calls the constructor of a mapped task on the worker only. So the arguments that
            it checks are checked here, and the failure callback that it adds is added here.
            """
            if kwargs.get("deferrable") is True and kwargs.get("wait_for_termination", True):
                check_retry_args(kwargs.get("databricks_retry_args"))
                check_json_serializable(kwargs.get("databricks_retry_args"))
            partial = super().partial(**kwargs)
            if cancels_orphans(partial.kwargs):
                partial.kwargs["on_failure_callback"] = with_orphan_callback(
                    partial.kwargs.get("on_failure_callback")
                )
            return partial

    @property
    def run_id(self) -> int | None:
        """The run that the task launched or follows; None before it is known."""
        return self._state.run.run_id

    def launch_call(self, context: Context) -> Call[int]:
        """Return the call that launches the run, without its token."""
        raise NotImplementedError

    def _with_billing_tags(
        self, request: dict[str, Any], context: Context, billing_tags: bool | None
    ) -> dict[str, Any]:
        """Return the request of a one-time run with billing tags, if they are asked for."""
        if not flag_or_option("billing_tags", billing_tags, "databricks_jobs", "billing_tags"):
            return request
        from airflow_jobs_provider.operators.billing_tags import (
            TagRules,
            run_tags,
            with_cluster_tags,
        )
        from airflow_jobs_provider.operators.payload_clusters import has_new_cluster

        # Of the option nothing is said: it is for all tasks.
        if billing_tags and not has_new_cluster(request):
            self.log.info("billing_tags has no effect: the run has no new cluster.")
        rules = TagRules.for_workspace(self.workspace_url)
        return with_cluster_tags(request, run_tags(context, self), rules, self.log)

    def _with_openlineage(self, request: dict[str, Any], context: Context) -> dict[str, Any]:
        """Return the request of a one-time run with OpenLineage's information, if asked for."""
        if not (self.openlineage_inject_parent_job_info or self.openlineage_inject_transport_info):
            return request
        from airflow_jobs_provider.operators.openlineage import inject_into_submit
        from airflow_jobs_provider.operators.payload_clusters import has_new_cluster

        name = "inject_transport_info"
        # Of the option nothing is said: it is for all tasks.
        is_asked_for = self.openlineage_inject_transport_info
        if is_asked_for and not openlineage_flag(self, name, None) and not has_new_cluster(request):
            self.log.info("openlineage_%s has no effect: the run has no new cluster.", name)
        return inject_into_submit(
            request,
            context,
            self.log,
            parent=self.openlineage_inject_parent_job_info,
            transport=self.openlineage_inject_transport_info,
        )

    def _request_reasons(self) -> list[str]:
        reasons = super()._request_reasons()
        if self.openlineage_inject_parent_job_info or self.openlineage_inject_transport_info:
            reasons.append("OpenLineage")
        return reasons

    def arguments_without_effect(self) -> dict[str, str]:
        """Return the arguments that were given and have no effect, each with the reason."""
        found = super().arguments_without_effect()
        if not self.reattach and self._user_token() is not None:
            found["reattach=False"] = "idempotency_token decides which run a try gets"
        if not self.wait_for_termination:
            given = {
                "deferrable": self._given_deferrable is True,
                "end_from_trigger": self._end_from_trigger,
                "queued_timeout_seconds": self.queued_timeout_seconds is not None,
            }
            names = [name for name, is_given in given.items() if is_given]
            names += self._given_for_output()
            found |= dict.fromkeys(names, "the task does not wait for the run's end")
        return found

    def execute(self, context: Context) -> Any:
        """Launch the run; wait for it unless told otherwise; return its output."""
        self._log_start_on_worker()
        executions = self._begin(context)
        self._push(context, xcoms_at_start(self._attempt))
        with airflow_exceptions(), executions.watching(self):
            self._log_arguments_without_effect()
            launched = self._launch(context, first_attempt_index=0)
            if self.wait_for_termination:
                return self._wait_for_result(context, launched)
            # A task that does not wait for the run does not cancel it later either.
            self._state.run.ended()
            return None

    def execute_complete(
        self,
        context: Context,
        event: dict[str, Any],
        attempt_index: int | None = None,
        try_number: int | None = None,
        deadline: float | None = None,
        execution: int | None = None,
        started_in_triggerer: bool = False,
    ) -> Any:
        """Resume after the trigger's event: return the run's output, or raise why it failed.

        The arguments after ``event`` are None where a version without them deferred the task.

        :param context: the task's context.
        :param event: the trigger's event.
        :param attempt_index: index of the run's token among the task's tokens.
        :param try_number: number of the try that deferred.
        :param deadline: when ``execution_timeout`` is over, in seconds since the epoch; None, too,
            without one.
        :param execution: how often the operator was executed before in the try.
        :param started_in_triggerer: whether the try started in the triggerer, and was handed to a
            worker before; default False.
        """
        if started_in_triggerer or try_number is None:
            self._continue_on_worker(context, event)
        if event.get("start_on_worker"):
            self.log.info("A worker starts this task: %s", event["start_on_worker"])
            self._delete_earlier_output(context)
            return self.execute(context)
        if try_number not in (None, context["ti"].try_number):
            # Airflow 3.0 resumes a retry with the event and the start time of the try before.
            self._state = self._state.with_start(time.time())
            self._delete_earlier_output(context)
            return self.execute(context)
        # In Airflow 3.0 the start time of a try changes each time that it is resumed.
        executions = self._begin(context, resumed=execution or 0, deadline=deadline)
        if event.get("run_id") is not None:
            self._state.run.answered(event["run_id"], event.get("launched_at"))
        if "run" in event:
            self._state.run.answered(int(event["run"]["run_id"]))
            self._state.run.ended()
            self._state.run_page_url = event["run"].get("run_page_url")
            self._state.job_id = event["run"].get("job_id")
        run = None if "run_state" in event else self._run_from_event(event)
        with airflow_exceptions(), executions.watching(self):
            if run is None:
                # The official provider's operator deferred the task, before the DAG was migrated.
                run = self._follow_on_worker(int(event["run_id"]))
            next_run = self._next_run(context, run, attempt_index)
            if next_run is None:
                if attempt_index is not None and self.do_xcom_push:
                    # The process that deferred has pushed the URL of the run's page.
                    self._leave_out_run_link()
                return self._end(context, run)
            return self._wait_for_result(context, next_run)

    def _begin(
        self, context: Context, *, resumed: int | None = None, deadline: float | None = None
    ) -> AttemptExecutions:
        """Begin an execution, or go on with one that was deferred."""
        executions = executions_of(context)
        if self._state.executions is executions and self._state.run.may_be_active:
            # Executed again in the same try, after an error that the task has caught.
            executions.watch(copy.copy(self))
        if resumed is None:
            execution = executions.begin(self.task_id)
        else:
            execution = executions.resume(self.task_id, resumed)
        attempt = TaskAttempt.from_context(
            context, operator_task_id=self.task_id, execution=execution
        )
        self._state = self._state.next_execution(attempt, executions, deadline)
        return executions

    @property
    def _attempt(self) -> TaskAttempt:
        assert self._state.attempt is not None, "nothing was executed"
        return self._state.attempt

    # -- launching -----------------------------------------------------------------------------

    def _launch(self, context: Context, first_attempt_index: int) -> LaunchResult:
        """Launch the run, or find the one of an earlier try.

        :param context: the task's context.
        :param first_attempt_index: index of the first token to use.
        """
        from airflow_jobs_provider.api.workflows.events import RunIdentified
        from airflow_jobs_provider.api.workflows.launch import launch_once, log_launch

        call = self.launch_call(context)
        client = self.hook.client
        check_before_sending(call.path, call.parameters, validate=self.validate, client=client)
        version = client.version_of(call)
        tokens = self._tokens()

        def on_event(event: Event) -> None:
            self._state.run.record(event)
            if isinstance(event, RunIdentified):
                self._push(context, {RUN_ID_KEY: event.run_id})

        steps = launch_once(
            call,
            tokens,
            first_attempt_index=min(first_attempt_index, len(tokens) - 1),
            polling_period_seconds=self.polling_period_seconds,
            fail_on_partial_success=self.fail_on_partial_success,
            adopt_failed=self.adopts_failed_runs,
            is_unique=self._user_token() is None,
            before_own_launch=self._before_own_launch(call),
        )
        launched = self._run_workflow(steps, stop_after_any_kill=True, on_event=on_event)
        run = self._last_run = launched.run
        page_url = self._state.run_page_url = run.get("run_page_url")
        self._state.job_id = run.get("job_id")
        self._push(context, {JOB_ID_KEY: self._state.job_id, RUN_PAGE_URL_KEY: page_url})
        log_launch(launched, self.log, api_version=version)
        annotate_span(launched.run_id, job_id=self._state.job_id, page_url=page_url)
        if (metrics := self.hook.metrics) is not None:
            metrics.launched(is_new=launched.is_new)
        return launched

    def _user_token(self) -> str | None:
        """Return the ``idempotency_token`` that the user gave; None for none."""
        token: str | None = self.request().get("idempotency_token")
        return token or None

    def _tokens(self) -> list[str]:
        """Return the tokens of this try, one for each try so far."""
        check_token(self.request().get("idempotency_token"))
        if (token := self._user_token()) is not None:
            return [token]
        if not self.reattach:
            import uuid

            return [uuid.uuid4().hex]
        return self._attempt.tokens()

    def tokens_in_triggerer(self, attempt: TaskAttempt) -> list[str]:
        """Return the tokens of an attempt that starts in the triggerer.

        They are the same in each triggerer that takes the attempt over, so also without
        ``reattach`` the token is made from the task's identity.

        :param attempt: the attempt.
        """
        check_token(self.request().get("idempotency_token"))
        if (token := self._user_token()) is not None:
            return [token]
        return attempt.tokens() if self.reattach else [attempt.token(attempt.attempt_index)]

    def _next_try_finds_run(self) -> bool:
        return self.reattach or self._user_token() is not None

    def _before_own_launch(self, call: Call[int]) -> Workflow[None] | None:
        """Return what to execute before this try launches a run of its own; here nothing."""
        return None

    def _known_run(self) -> Mapping[str, Any]:
        known, run_id = super()._known_run(), self._state.run.run_id
        if run_id is None or known.get("run_id") == run_id:
            return known
        page_url = self._state.run_page_url
        return {**self._run_of_arguments(), "run_id": run_id, "run_page_url": page_url}

    # -- waiting -------------------------------------------------------------------------------

    def _wait_for_result(self, context: Context, launched: LaunchResult) -> Any:
        """Wait for a run, and for those that replace it; return the output of the last one."""
        from airflow_jobs_provider.api.states import RunState

        next_run: LaunchResult | None = launched
        while next_run is not None:
            launched = next_run
            if not RunState.from_run(launched.run).is_terminal and self._may_defer(context):
                self._defer_until_ended(context, launched)
            run = self._wait_on_worker(launched)
            next_run = self._next_run(context, run, launched.attempt_index)
        return self._end(context, run)

    def _end(self, context: Context, run: Run) -> Any:
        """Return the output of the task's run, or raise why it failed."""
        value = self._result_or_raise(context, run)
        self._record_success(context)
        return value

    def _next_run(
        self, context: Context, run: Run, attempt_index: int | None
    ) -> LaunchResult | None:
        """Return the run to wait for after this one has ended; None where its end is the task's."""
        if self.is_canceled_earlier_run(run, attempt_index, self._attempt):
            return self._launch(context, (attempt_index or 0) + 1)
        return None

    def is_canceled_earlier_run(
        self, run: Mapping[str, Any], attempt_index: int | None, attempt: TaskAttempt
    ) -> bool:
        """Whether a run is an earlier try's and was canceled by the kill of that try.

        :param run: the run, ended.
        :param attempt_index: index of its token; None if that is not known.
        :param attempt: the attempt that waits for the run.
        """
        from airflow_jobs_provider.api.states import RunState, RunStatus

        if attempt_index is None or attempt_index >= attempt.attempt_index:
            return False
        is_canceled = RunState.from_run(run).status is RunStatus.CANCELED
        return is_canceled and self.reattach and self._user_token() is None

    def _defer_until_ended(self, context: Context, launched: LaunchResult) -> None:
        """Defer to a trigger that waits for the run; this raises."""
        from airflow_jobs_provider.api.states import RunState
        from airflow_jobs_provider.triggers.jobs import DatabricksJobRunTrigger

        run_id, state = launched.run_id, RunState.from_run(launched.run)
        deadline = self._deadline(context)
        self.log.info("Deferring: the triggerer waits for run %s, which is %s.", run_id, state)
        if self.cancel_on_kill:
            self._state.deferral = Deferral(self._attempt, self._cancel_for_refused_deferral)
        trigger = DatabricksJobRunTrigger(
            run_id=run_id,
            databricks_conn_id=self.databricks_conn_id,
            polling_period_seconds=self.polling_period_seconds,
            cancel_on_kill=self.cancel_on_kill,
            deadline=deadline,
            queued_timeout_seconds=self.queued_timeout_seconds,
            queued_since=launched.queue_start if self.queued_timeout_seconds else None,
            follow_attempts=self._service_may_retry,
            life_cycle_state=state.life_cycle_state or None,
            launched_at=launched.launched_at,
            reached_by=self.hook.client.reached_by,
            output_in_event=self._wants_output_in_event(),
            **self._hook_arguments(),
            **self._completion_arguments(),
        )
        self._defer_to(
            trigger,
            {
                "attempt_index": launched.attempt_index,
                "try_number": context["ti"].try_number,
                "deadline": deadline,
                "execution": self._attempt.execution,
                **({"started_in_triggerer": True} if self._started_in_triggerer else {}),
            },
        )

    def _deadline(self, context: Context) -> float | None:
        """Return when this try's execution_timeout is over, in seconds since the epoch."""
        if self.execution_timeout is None or self._state.deadline is not None:
            return self._state.deadline
        started_at = self._state.started_at
        if started_at is None:
            start = getattr(context["ti"], "start_date", None)
            started_at = time.time() if start is None else start.timestamp()
        return started_at + self.execution_timeout.total_seconds()

    def _wait_on_worker(self, launched: LaunchResult) -> Run:
        """Wait for a run in this process, and return it."""
        return self._follow_on_worker(
            launched.run_id,
            first_look=launched.run,
            queued_since=launched.queue_start,
            launched_at=launched.launched_at,
        )

    def _follow_on_worker(
        self,
        run_id: int,
        *,
        first_look: Run | None = None,
        queued_since: float | None = None,
        launched_at: float | None = None,
    ) -> Run:
        from airflow_jobs_provider.api.workflows.follow import follow_run
        from airflow_jobs_provider.api.workflows.progress import RunProgress
        from airflow_jobs_provider.exceptions import DatabricksRunTimeoutError

        steps = follow_run(
            run_id,
            polling_period=self._worker_period(),
            progress=RunProgress(run_id, self.log),
            first_look=first_look,
            queued_timeout_seconds=self.queued_timeout_seconds,
            queued_since=queued_since,
            follow_attempts=self._service_may_retry,
            launched_at=launched_at,
        )
        ended = self._run_workflow(steps)
        if ended.queued_too_long:
            if self.cancel_on_kill:
                self._cancel("it did not begin to run in time")
                self._state.run.ended()
            raise DatabricksRunTimeoutError(
                run_id, "queued_timeout_seconds", ended.run.get("run_page_url") or ""
            )
        self._state.run.ended()
        return ended.run

"""DatabricksLaunchTrigger: launch a run in the triggerer and wait for it, without a worker.

An operator with ``start_from_trigger`` starts with this trigger. The trigger makes the operator
again from its rendered arguments, so that the request and its tokens are those of a worker.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowException,
    AirflowFailException,
)

from airflow_jobs_provider.airflow_compat.completion_event import until_runs_are_stored
from airflow_jobs_provider.airflow_compat.launch_record import LaunchAttempt
from airflow_jobs_provider.api.errors import JobsAPIError
from airflow_jobs_provider.api.retry import RetryPolicy
from airflow_jobs_provider.api.states import RunState
from airflow_jobs_provider.api.workflows.base import run_workflow_async
from airflow_jobs_provider.api.workflows.launch import LaunchResult, launch_once, log_launch
from airflow_jobs_provider.api.workflows.launched_run import LaunchedRun
from airflow_jobs_provider.operators.attempt_trigger import needing_xcoms
from airflow_jobs_provider.operators.payload_validation import check_before_sending
from airflow_jobs_provider.operators.request_trigger import RequestTrigger
from airflow_jobs_provider.triggers.events import error_payload, run_payload
from airflow_jobs_provider.triggers.polling.registry import get_poller
from airflow_jobs_provider.xcom import JOB_ID_KEY, RUN_ID_KEY, RUN_PAGE_URL_KEY

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobs_provider.api.calls import Call
    from airflow_jobs_provider.api.schema.types import Run
    from airflow_jobs_provider.operators.launch import LaunchRunOperator

__all__ = ["DatabricksLaunchTrigger"]

# After a launch was given up, which has taken up to ten minutes.
_ONE_ATTEMPT = RetryPolicy(max_attempts=1)


class DatabricksLaunchTrigger(RequestTrigger):
    """Launch a run, wait for its end and fire one event.

    Airflow starts a task with this trigger and renders the request among its arguments. The event
    is that of :class:`~airflow_jobs_provider.triggers.jobs.DatabricksJobRunTrigger`. If the
    triggerer cannot launch the run, it is ``{"start_on_worker": "..."}`` with the reason.

    A triggerer that takes the trigger over makes the same idempotency tokens, and so gets the run
    that was launched. The run is canceled when a user clears or marks the task, and after
    ``execution_timeout``, also while its launch is not answered yet.

    :param arguments: text of the arguments below but ``mapped``; default None where each is given
        by itself, as versions before stored them.
    :param operator: import path of the operator's class.
    :param operator_arguments: arguments of the operator that are no template fields.
    :param mapped: the values of all instances of a mapped task; default None for another task.
    :param kwargs: the arguments of
        :class:`~airflow_jobs_provider.triggers.arguments.TriggerArguments`, and the operator's
        template fields as far as they are given.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._launched = LaunchedRun()
        self._begin_checking()

    def __repr__(self) -> str:
        """Return the operator, without the request, which may hold secrets."""
        return f"<{type(self).__name__} {self.operator}>"

    # -- the wait ------------------------------------------------------------------------------

    async def _start(self, begun: LaunchAttempt) -> dict[str, Any]:
        made: tuple[LaunchRunOperator, Call[int]] | None = None
        first_attempt_index = 0
        while True:
            seconds = None if self.deadline is None else max(0.0, self.deadline - time.time())
            limit = asyncio.timeout(seconds)
            try:
                async with limit:
                    await self._until_connected()
                    operator, call = made = made or await self._make_call(begun)
                    launched = await self._launch(operator, call, begun, first_attempt_index)
                    if self._has_user_token() and begun.orphan_run_id != launched.run_id:
                        await self._cancel_orphan(begun.orphan_run_id)
            except TimeoutError:
                if not limit.expired():
                    raise
                return await self._stop_starting()
            except (JobsAPIError, AirflowException, ValueError) as error:
                await self._find_run_of_lost_response()
                payload = error_payload(self._run_id, error, launched_at=self.launched_at)
                if isinstance(error, AirflowFailException):
                    payload["is_final"] = True
                return {**payload, "is_launch": True} if self._run_id is None else payload
            payload = await self._follow(launched)
            if "run" not in payload or not operator.is_canceled_earlier_run(
                payload["run"], launched.attempt_index, begun.attempt
            ):
                return payload
            first_attempt_index = launched.attempt_index + 1

    async def _follow(self, launched: LaunchResult) -> dict[str, Any]:
        state = RunState.from_run(launched.run)
        if state.is_terminal:
            return run_payload(launched.run)
        self.queued_since, self.launched_at = launched.queue_start, launched.launched_at
        self.life_cycle_state = state.life_cycle_state or None
        return await self._wait_for_run(launched.run_id)

    # -- the launch ----------------------------------------------------------------------------

    async def _make_call(self, begun: LaunchAttempt) -> tuple[LaunchRunOperator, Call[int]]:
        """Return the operator and its launch, validated."""
        request = await self._resolved_request(begun.attempt)
        client = await get_poller(self._hook).client()
        task_instance: Any = self.task_instance
        context = task_instance.get_template_context()

        def make() -> tuple[LaunchRunOperator, Call[int]]:
            operator = self._make_operator(context, request)
            operator.workspace_url = client.base_url
            try:
                call = operator.launch_call(context)
            finally:
                if "hook" in vars(operator):  # it has looked up a name
                    operator.hook.close()
            check_before_sending(
                call.path, call.parameters, validate=operator.validate, client=client
            )
            return operator, call

        # In a thread: it validates the request, and may look up a job or pipeline by its name.
        return await asyncio.to_thread(make)

    def _make_operator(self, context: Context, request: Mapping[str, Any]) -> LaunchRunOperator:
        arguments = dict(self.operator_arguments)
        seconds = arguments.pop("execution_timeout_seconds", None)
        # None, too: Airflow's configuration may have a default.
        arguments["execution_timeout"] = None if seconds is None else timedelta(seconds=seconds)
        ti = context["ti"]
        module, _, name = self.operator.rpartition(".")
        operator: LaunchRunOperator = getattr(import_module(module), name)(
            **{
                "task_id": ti.task_id,
                "dag": self._make_dag(context),
                "databricks_conn_id": self.databricks_conn_id,
                "start_from_trigger": False,
                **arguments,
                **request,
            }
        )
        operator.params = context["task"].params
        return operator

    @staticmethod
    def _make_dag(context: Context) -> DAG:
        """Return a DAG for the operator, which needs its name only."""
        return DAG(context["ti"].dag_id, schedule=None)

    async def _launch(
        self,
        operator: LaunchRunOperator,
        call: Call[int],
        begun: LaunchAttempt,
        first_attempt_index: int,
    ) -> LaunchResult:
        """Launch the run once, or find the one of an earlier attempt."""
        attempt = begun.attempt
        tokens = operator.tokens_in_triggerer(attempt)
        steps = launch_once(
            call,
            tokens,
            first_attempt_index=min(first_attempt_index, len(tokens) - 1),
            polling_period_seconds=self.polling_period_seconds,
            fail_on_partial_success=self.fail_on_partial_success,
            # One try too many is no retry. The scheduler has died before a worker could report the
            # failure, and Airflow starts such a task again.
            adopt_failed=operator.adopts_failed_runs or attempt.try_number > attempt.max_tries + 1,
            is_unique=not self._has_user_token(),
        )
        launched = await run_workflow_async(
            steps, send=self._send, wait=asyncio.sleep, on_event=self._launched.record
        )
        self._run_id = self._active_run_id = launched.run_id
        await self._push({JOB_ID_KEY: launched.run.get("job_id")})
        version = (await get_poller(self._hook).client()).version_of(call)
        for name, reason in operator.arguments_without_effect().items():
            self.log.info("%s has no effect: %s.", name, reason)
        # Between two messages: Airflow's main process then takes the line with the second one.
        log_launch(launched, self.log, api_version=version)
        if (metrics := self._hook.metrics) is not None:
            metrics.launched(is_new=launched.is_new)
        await self._push({RUN_PAGE_URL_KEY: launched.run.get("run_page_url")})
        return launched

    async def _send(self, call: Call[Any]) -> Any:
        """Send a call of the launch, in its turn among the launches of the triggerer."""
        if call.verb == "GET":
            return await self._read_launched_run(call)
        task_instance: Any = self.task_instance
        # The token before may have brought a run, which has ended.
        self._run_id = self._active_run_id = None
        self._is_recorded = False
        run_id = await get_poller(self._hook).send(
            call,
            without_deadline=False,
            dag_id=task_instance.dag_id,
            before_launch=self._before_launch,
            on_attempt=self._launched.on_attempt,
        )
        # A cancel may come before the service shows the run.
        self.launched_at = time.time()
        self._launched.answered(run_id, self.launched_at)
        self._run_id = self._active_run_id = run_id
        self._is_recorded = await self._push({RUN_ID_KEY: run_id})
        return run_id

    async def _read_launched_run(self, call: Call[Run]) -> Run:
        return await get_poller(self._hook).read_launched_run(call)

    async def _before_launch(self) -> None:
        """Look, in the turn of the launch, whether it is still wanted.

        The turn may come minutes later.
        """
        await until_runs_are_stored()
        with needing_xcoms():
            await self._raise_if_outdated()

    async def _stop_starting(self) -> dict[str, Any]:
        payload = await super()._stop_starting()
        return payload if self._run_id is not None else {**payload, "is_launch": True}

    # -- cancelling the run --------------------------------------------------------------------

    def _may_have_run(self) -> bool:
        return self._run_id is not None or self._launched.may_be_active

    def _has_user_token(self) -> bool:
        request = self._request()
        fields = request.get("json")
        of_json = fields.get("idempotency_token") if isinstance(fields, Mapping) else None
        return bool(request.get("idempotency_token") or of_json)

    def _retry_finds_run(self) -> bool:
        return self.operator_arguments.get("reattach", True) or self._has_user_token()

    async def _find_and_cancel(self, reason: str) -> None:
        """Cancel the run, after its launch was sent again for its id if that is not known."""
        if self._run_id is None:
            if not await self._find_run():
                return
            # Another triggerer may have followed it to its end.
            if await self._has_ended():
                return
        await self._cancel(reason)

    async def _find_run(self, retries: RetryPolicy | None = None) -> bool:
        """Send the launch again for the run's id; return whether it is known now."""
        call = self._launched.call
        assert call is not None
        try:
            run_id = await get_poller(self._hook).send(
                call, without_deadline=False, retries=retries
            )
        except JobsAPIError as error:
            self.log.error("The run of this task may still run, its id is unknown: %s", error)
            return False
        self._run_id = self._active_run_id = run_id
        self.launched_at = time.time()
        return True

    async def _find_run_of_lost_response(self) -> None:
        """Find the run of a failed launch of which a response was lost.

        A retry follows it. Without a retry the worker that fails the task cancels it.
        """
        if self._run_id is not None or not self._launched.may_be_active or not self.cancel_on_kill:
            return
        await self._stop_if_outdated()
        if not self._retry_finds_run():
            await self._find_and_cancel("its launch has failed")
        elif await self._find_run(_ONE_ATTEMPT):
            self._is_recorded = await self._push({RUN_ID_KEY: self._run_id})

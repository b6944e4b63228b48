"""DatabricksLaunchTrigger: launch a run in the triggerer and wait for it, without a worker.

An operator with ``start_from_trigger`` starts with this trigger. The trigger makes the operator
again from its rendered arguments, so that the request and its tokens are those of a worker.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowException,
    AirflowFailException,
)

from airflow_jobs_provider.airflow_compat.completion_event import push_xcoms
from airflow_jobs_provider.airflow_compat.deferred_tasks import is_no_longer_deferred
from airflow_jobs_provider.airflow_compat.launch_record import (
    LaunchAttempt,
    begin_attempt,
    begin_first_attempt,
    is_replaced,
    read_record,
    record_attempt,
    record_handover,
    recorded_run_id,
)
from airflow_jobs_provider.airflow_compat.threads import in_thread
from airflow_jobs_provider.airflow_compat.trigger_timeout import trigger_timeout
from airflow_jobs_provider.airflow_compat.triggerer_health import (
    PAUSE_SECONDS,
    triggerer_health,
)
from airflow_jobs_provider.api.endpoints import cancel_run, get_run
from airflow_jobs_provider.api.errors import JobsAPIError
from airflow_jobs_provider.api.retry import RetryPolicy, async_sleep
from airflow_jobs_provider.api.states import RunState
from airflow_jobs_provider.api.workflows.base import run_workflow_async
from airflow_jobs_provider.api.workflows.launch import LaunchResult, launch_once, log_launch
from airflow_jobs_provider.api.workflows.launched_run import LaunchedRun
from airflow_jobs_provider.operators.payload_validation import check_before_sending
from airflow_jobs_provider.operators.request_trigger import NeedsWorkerError, RequestTrigger
from airflow_jobs_provider.triggers.background import start_in_background
from airflow_jobs_provider.triggers.events import error_payload, run_payload
from airflow_jobs_provider.triggers.polling.registry import get_poller
from airflow_jobs_provider.xcom import JOB_ID_KEY, RUN_ID_KEY, RUN_PAGE_URL_KEY

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobs_provider.api.calls import Call
    from airflow_jobs_provider.api.schema.types import Run
    from airflow_jobs_provider.operators.launch import LaunchRunOperator
    from airflow_jobs_provider.run_result import RunResult

__all__ = ["DatabricksLaunchTrigger"]

_CANCEL_SECONDS = 19.0
# A task that was cleared may be deferred again for so long before its next attempt is recorded.
_NEXT_ATTEMPT_SECONDS = 20.0
_ORPHAN_RETRIES = RetryPolicy(max_attempts=3)


class DatabricksLaunchTrigger(RequestTrigger):
    """Launch a run, wait for its end and fire one event.

    Airflow starts a task with this trigger and renders the request among its arguments. The event
    is that of :class:`~airflow_jobs_provider.triggers.jobs.DatabricksJobRunTrigger`. If the
    triggerer cannot launch the run, it is ``{"start_on_worker": "..."}`` with the reason.

    A triggerer that takes the trigger over makes the same idempotency tokens, and so gets the run
    that was launched. The run is canceled when a user clears or marks the task, and after
    ``execution_timeout``, also while its launch is not answered yet.

    :param operator: import path of the operator's class.
    :param operator_arguments: arguments of the operator that are no template fields.
    :param mapped: the values of all instances of a mapped task; default None for another task.
    :param kwargs: the arguments of
        :class:`~airflow_jobs_provider.triggers.arguments.TriggerArguments`, and the operator's
        template fields as far as they are given.
    """

    run_id = None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._launched = LaunchedRun()
        # Whether the XCom run_id has the run.
        self._is_recorded = False
        # Then it was the latest attempt, unless the triggerer was paused; see triggerer_health.
        self._checked_at = time.monotonic() - PAUSE_SECONDS

    def __repr__(self) -> str:
        """Return the operator, without the request, which may hold secrets."""
        return f"<{type(self).__name__} {self.operator}>"

    # -- the wait ------------------------------------------------------------------------------

    async def _wait(self) -> dict[str, Any]:
        self.deadline = self._task_deadline()
        try:
            begun = await self._begin()
            if begun.is_outdated:
                await _wait_for_cancel()
            return await self._launch_and_wait(begun)
        except NeedsWorkerError as error:
            self.log.info("A worker will start the task: %s", error)
            return {"start_on_worker": str(error)}

    async def _launch_and_wait(self, begun: LaunchAttempt) -> dict[str, Any]:
        seconds = None if self.deadline is None else max(0.0, self.deadline - time.time())
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                operator, call = await self._make_call(begun)
                launched = await self._launch(operator, call, begun, 0)
                if self._has_user_token() and begun.orphan_run_id not in (None, launched.run_id):
                    await self._cancel_orphan(begun.orphan_run_id)
        except TimeoutError:
            if not limit.expired():
                raise
            return await self._stop_launching()
        except (JobsAPIError, AirflowException, ValueError) as error:
            payload = error_payload(self._run_id, error)
            if isinstance(error, AirflowFailException):
                payload["is_final"] = True
            return {**payload, "is_launch": True}
        while True:
            payload = await self._follow(launched)
            if "run" not in payload or not operator.is_canceled_earlier_run(
                payload["run"], launched.attempt_index, begun.attempt
            ):
                return payload
            launched = await self._launch(operator, call, begun, launched.attempt_index + 1)

    async def _follow(self, launched: LaunchResult) -> dict[str, Any]:
        state = RunState.from_run(launched.run)
        if state.is_terminal:
            return run_payload(launched.run)
        self.queued_since, self.launched_at = launched.queued_since, launched.launched_at
        self.life_cycle_state = state.life_cycle_state or None
        return await self._wait_for_run(launched.run_id)

    def _task_deadline(self) -> float | None:
        """Return when Airflow fails the task after ``execution_timeout``."""
        end = trigger_timeout(self)
        if end is None:
            return None
        return (end if end.tzinfo else end.replace(tzinfo=UTC)).timestamp()

    # -- the launch ----------------------------------------------------------------------------

    async def _begin(self) -> LaunchAttempt:
        """Find out which attempt this is, and record it."""
        task_instance: Any = self.task_instance
        self._check_rendering()
        if task_instance is None or self.trigger_id is None:
            raise NeedsWorkerError("the trigger is in no triggerer")
        triggerer_health().trigger_started()
        if not self._may_be_outdated() and triggerer_health().stores_xcoms:
            begun = begin_first_attempt(task_instance)
            if begun is not None:
                return begun
        try:
            return await self._begin_recorded(task_instance)
        except Exception as error:  # whatever Airflow's API says
            raise NeedsWorkerError(f"its XComs cannot be read or stored: {error}") from error

    async def _begin_recorded(self, task_instance: Any) -> LaunchAttempt:
        begun = await self._read_attempt(task_instance)
        if begun.is_new and not begun.is_outdated:
            # The user's token may bring the same run, which this attempt then follows.
            if not self._has_user_token():
                await self._cancel_orphan(begun.orphan_run_id)
            if self._may_be_outdated():  # or another triggerer may have gone on with this attempt
                begun = await self._read_attempt(task_instance)
        if begun.is_new and not begun.is_outdated:
            await in_thread(
                record_attempt, task_instance, begun, multiple_outputs=self.multiple_outputs
            )
        return begun

    async def _read_attempt(self, task_instance: Any) -> LaunchAttempt:
        self._checked_at = time.monotonic()
        return await in_thread(begin_attempt, task_instance)

    async def _cancel_orphan(self, run_id: int | None) -> None:
        """Cancel the run of an attempt before a clear; mostly it has ended."""
        if run_id is None or not self.cancel_on_kill:
            return
        try:
            poller = get_poller(self._hook)
            run = await poller.send(get_run(run_id), retries=_ORPHAN_RETRIES)
            if not RunState.from_run(run).is_terminal:
                await poller.send(cancel_run(run_id), retries=_ORPHAN_RETRIES)
                self.log.info("Run %s was canceled: its attempt was cleared.", run_id)
        except (JobsAPIError, AirflowException, ValueError) as error:
            self.log.warning("Run %s of an earlier attempt may still run: %s", run_id, error)

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
        if (seconds := arguments.pop("execution_timeout_seconds", None)) is not None:
            arguments["execution_timeout"] = timedelta(seconds=seconds)
        ti = context["ti"]
        module, _, name = self.operator.rpartition(".")
        operator: LaunchRunOperator = getattr(import_module(module), name)(
            task_id=ti.task_id,
            # Of the DAG the operator needs the name only.
            dag=DAG(ti.dag_id, schedule=None),
            databricks_conn_id=self.databricks_conn_id,
            start_from_trigger=False,
            **arguments,
            **request,
        )
        operator.params = context["task"].params
        return operator

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
            adopt_failed=attempt.try_number > attempt.max_tries + 1,
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
            return await get_poller(self._hook).send(call)
        await self._stop_if_outdated()
        task_instance: Any = self.task_instance
        # Not before: a poller that nobody uses may close meanwhile.
        run_id = await get_poller(self._hook).send(
            call,
            without_deadline=False,
            dag_id=task_instance.dag_id,
            on_attempt=self._launched.on_attempt,
        )
        self._launched.answered(run_id, time.time())
        self._run_id = self._active_run_id = run_id
        self._is_recorded = False
        self._is_recorded = await self._push({RUN_ID_KEY: run_id})
        return run_id

    async def _stop_if_outdated(self) -> None:
        """Go no further if a later attempt has begun while this triggerer was paused."""
        if not self._may_be_outdated():
            return
        checked_at, is_outdated = time.monotonic(), False
        with suppress(Exception):  # whatever Airflow's API says
            is_outdated = await self._has_later_attempt()
            self._checked_at = checked_at
        if is_outdated:
            await _wait_for_cancel()

    def _may_be_outdated(self) -> bool:
        """Whether a later attempt may have begun, so that Airflow has to be asked."""
        return triggerer_health().may_have_paused(self._checked_at)

    async def _push(self, xcoms: Mapping[str, Any]) -> bool:
        """Push XComs that are not None; return whether Airflow has stored any."""
        values = {key: value for key, value in xcoms.items() if value is not None}
        if not values:
            return False
        await self._stop_if_outdated()
        try:
            await push_xcoms(self, values)
        except Exception as error:  # noqa: BLE001 - whatever Airflow's API says
            self.log.warning("XComs are not stored (%s): %s", ", ".join(values), error)
            is_stored = False
        else:
            is_stored = True
        triggerer_health().stores_xcoms = is_stored
        return is_stored

    async def _stop_launching(self) -> dict[str, Any]:
        """Cancel the run after ``execution_timeout``, also where its id is not known."""
        # A retry may follow the run.
        await self._stop_if_outdated()
        if self.cancel_on_kill and self._launched.may_be_active:
            cancel = start_in_background(self._find_and_cancel("execution_timeout is over"))
            await asyncio.wait({cancel}, timeout=_CANCEL_SECONDS)
        run_id = self._run_id
        if run_id is not None:
            return run_payload({"run_id": run_id}, timed_out="execution_timeout")
        return {"run_id": None, "error": "execution_timeout is over", "is_launch": True}

    # -- cancelling the run --------------------------------------------------------------------

    async def _cancel_unless_deferred(self) -> None:
        if not self._may_have_run() and self.task_instance is not None:
            await self._find_recorded_run()
        await super()._cancel_unless_deferred()

    async def _find_recorded_run(self) -> None:
        """Find the run that a triggerer before this one has launched.

        This one is canceled before it has asked for the run: the task was marked meanwhile.
        """
        try:
            run_id = await in_thread(recorded_run_id, self.task_instance)
        except Exception as error:  # noqa: BLE001 - whatever Airflow's API says
            self.log.warning("A run of this task may still run, its id is unknown: %s", error)
        else:
            self._run_id = self._active_run_id = run_id
            self._is_recorded = run_id is not None

    def _may_have_run(self) -> bool:
        return self._run_id is not None or self._launched.may_be_active

    async def _has_stopped_waiting(self) -> bool:
        deadline = time.monotonic() + _NEXT_ATTEMPT_SECONDS
        while not await is_no_longer_deferred(self, None):
            # Deferred again after a clear? Then the record is that of another attempt.
            replaced = await in_thread(
                is_replaced, self.task_instance, retry_finds_run=self._retry_finds_run()
            )
            if replaced is None and self._is_recorded:
                return await is_no_longer_deferred(self, self._run_id)
            # The next attempt cancels a run whose id is recorded. Nobody else knows of this one.
            if replaced or self._is_recorded or time.monotonic() > deadline:
                return bool(replaced)
            await async_sleep(1.0)
        return True

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
            call = self._launched.call
            assert call is not None
            try:
                self._run_id = self._active_run_id = await get_poller(self._hook).send(
                    call, without_deadline=False
                )
            except JobsAPIError as error:
                self.log.error("The run of this task may still run, its id is unknown: %s", error)
                return
            self.launched_at = time.time()
            # Another triggerer may have followed it to its end.
            if await self._has_ended():
                return
        await self._cancel(reason)

    # -- the end of the task -------------------------------------------------------------------

    async def _read_result(self, run: Run) -> RunResult:
        """Read the output; stop if a later attempt has begun while this triggerer was paused."""
        result = await super()._read_result(run)
        await self._stop_if_outdated()
        return result

    async def _has_later_attempt(self) -> bool:
        task_instance: Any = self.task_instance
        record = await in_thread(read_record, task_instance)
        return record is not None and record.try_number > task_instance.try_number

    async def _before_resume(self) -> None:
        """Record that a worker goes on with the attempt."""
        try:
            await in_thread(record_handover, self.task_instance)
        except Exception as error:  # noqa: BLE001 - whatever Airflow's API says
            self.log.warning("The next try will not find this one's run: %s", error)


async def _wait_for_cancel() -> None:
    """Wait until Airflow cancels the trigger: it finds that another one has ended the task."""
    await asyncio.Event().wait()

"""DatabricksJobsBaseTrigger: what the triggers share, from the wait's end to the task's end."""

from __future__ import annotations

import asyncio
import functools
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_jobs_provider.airflow_compat.completion_event import success_event
from airflow_jobs_provider.airflow_compat.early_events import seconds_until_event
from airflow_jobs_provider.airflow_compat.event_batches import event_batches
from airflow_jobs_provider.airflow_compat.storable_text import replace_unstorable
from airflow_jobs_provider.airflow_compat.telemetry import (
    annotate_span,
    stats_are_on,
    traces_are_on,
)
from airflow_jobs_provider.airflow_compat.trigger_cancellation import calls_on_kill
from airflow_jobs_provider.api import endpoints
from airflow_jobs_provider.api.errors import JobsAPIError
from airflow_jobs_provider.api.proxies import record_reached
from airflow_jobs_provider.api.retry import RetryPolicy, async_sleep
from airflow_jobs_provider.api.states import RunLifeCycleState, RunState
from airflow_jobs_provider.api.text import error_text
from airflow_jobs_provider.api.workflows.base import run_workflow_async
from airflow_jobs_provider.api.workflows.cancel import cancel_launched_run, log_failed_cancel
from airflow_jobs_provider.api.workflows.events import Event, RunIdentified
from airflow_jobs_provider.api.workflows.follow import follow_run
from airflow_jobs_provider.api.workflows.launched_run import is_just_launched
from airflow_jobs_provider.api.workflows.progress import RunProgress, run_log
from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
from airflow_jobs_provider.triggers.arguments import TriggerArguments
from airflow_jobs_provider.triggers.background import start_in_background, wait_despite_cancels
from airflow_jobs_provider.triggers.events import error_payload, run_payload
from airflow_jobs_provider.triggers.polling.registry import get_poller, run_workflow_unpolled

if TYPE_CHECKING:
    from airflow_jobs_provider.api.calls import Call
    from airflow_jobs_provider.api.schema.types import Run
    from airflow_jobs_provider.run_result import RunResult

__all__ = ["DatabricksJobsBaseTrigger", "OutdatedError"]

# Airflow gives on_kill 30 seconds, and does not start the trigger here again before its end.
_ON_KILL_SECONDS = 25.0
# How long the event of a run that took too long waits for the run's last state, or for its cancel;
# and how long a cancel waits to know whether the run has ended.
_LAST_READ_SECONDS = 19.0
# How long it waits for the response to that read, once the request is sent.
_RESPONSE_BEFORE_CANCEL_SECONDS = 5.0
# Whatever the task's own retry arguments are: a hundred cancels at once may meet a rate limit.
_CANCEL_RETRIES = RetryPolicy()
# How long a connection is looked up that was used before, and the longest wait between.
_LOOK_UP_SECONDS, _LONGEST_LOOK_UP_WAIT = 600.0, 30.0
# If the service does not answer, the cancel is what is to be retried.
_ONE_ATTEMPT = RetryPolicy(max_attempts=1)
# Longer than a cancel is retried: this bounds what comes before it, such as a secrets backend.
_CANCEL_SECONDS = 900.0
# Longer than a single output is retried, so that one task's failure does not lose what was read of
# the others.
_OUTPUT_SECONDS = 900.0


class OutdatedError(Exception):
    """A later attempt of the task has begun, which a paused triggerer has missed."""


class DatabricksJobsBaseTrigger(TriggerArguments, BaseTrigger):
    """Base class of the triggers that wait for a run and fire one event.

    A subclass waits in :meth:`_wait`. All else is the same: what the event says, that it may end
    the task, that a user who clears or marks the task cancels the run.
    """

    # One of the subclass's arguments.
    run_id: Any
    # Whether the run was seen to have ended, so that there is nothing to cancel any more.
    _run_has_ended = False
    # Whether the task starts in the triggerer, with no worker before.
    _starts_task = False

    def __post_init__(self) -> None:
        BaseTrigger.__init__(self)
        # The run that the task waits for; None until it is known.
        self._run_id: int | None = None
        # The same, or the run by which the service retries it.
        self._active_run_id: int | None = None
        self._progress: RunProgress | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments that make this trigger again."""
        cls = type(self)
        return f"{cls.__module__}.{cls.__qualname__}", self.as_kwargs()

    @property
    def log(self) -> Any:
        """The trigger's logger. In a structured log its lines carry the ids of the task's run."""
        run_id = getattr(self, "_active_run_id", None)
        job_id = None if run_id is None or self._progress is None else self._progress.job_id
        return run_log(super().log, run_id, job_id)

    @property
    def _hook(self) -> DatabricksJobsHook:
        return DatabricksJobsHook(
            self.databricks_conn_id,
            retry_limit=self.retry_limit,
            retry_delay=self.retry_delay,
            retry_args=self.retry_args,
            caller=self.caller,
        )

    def get_template_env(self, dag: Any = None) -> Any:
        """Return Airflow's environment; an undefined name is an error, as on a worker."""
        from jinja2 import StrictUndefined

        environment = super().get_template_env(dag)
        environment.undefined = StrictUndefined
        return environment

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait until the run has ended, then yield the one event."""
        event: TriggerEvent | None = None
        began = time.monotonic()
        # Without a known state the run may have ended long before.
        not_before = time.time() if self.life_cycle_state is None else 0.0
        if self.reached_by:
            record_reached(self.reached_by)
        if self.cancel_on_kill:
            # Like what is imported further down: not needed by a task that defers with the trigger.
            from airflow_jobs_provider.airflow_compat.deferred_tasks import warm_up

            warm_up(self)
        try:
            try:
                if self.reached_by:
                    await self._until_connected()
                payload = await self._wait()
                self._run_has_ended = _has_ended_run(payload)
                # Without an id the trigger is in no triggerer: dag.test() cannot end a task this
                # way.
                is_in_triggerer = self.trigger_id is not None
                if self.end_from_trigger and is_in_triggerer and self._succeeded(payload):
                    with event_batches().ending_task():
                        event = await self._task_success_event(payload["run"])
                elif self.output_in_event and self.do_xcom_push and self._succeeded(payload):
                    await self._add_outputs(payload)
                if event is None and is_in_triggerer and not self._starts_task:
                    await async_sleep(seconds_until_event(began, self.polling_period_seconds))
            except (JobsAPIError, AirflowException, ValueError, TimeoutError) as error:
                payload = error_payload(
                    self._run_id or self.run_id, error, launched_at=self.launched_at
                )
            ends_task = event is not None
            if event is None:
                await self._before_resume()
                event = TriggerEvent(replace_unstorable(payload))
            if self.trigger_id is not None:
                await event_batches().wait(ends_task=ends_task)
        except asyncio.CancelledError:
            # From 3.3 Airflow calls on_kill itself, and not when the triggerer stops.
            if self.cancel_on_kill and not calls_on_kill():
                await self._cancel_on_kill()
            raise
        self._record_end(payload, not_before)
        yield event

    def _record_end(self, payload: Mapping[str, Any], not_before: float) -> None:
        """Record the run in Airflow's trace, and the time from its end to the event in a metric.

        :param payload: the event's payload.
        :param not_before: the time from which the event may be late, in seconds since the epoch.
        """
        if "run" not in payload:
            return
        run = payload["run"]
        if traces_are_on():
            annotate_span(
                run["run_id"],
                job_id=run.get("job_id"),
                page_url=run.get("run_page_url"),
                state=str(RunState.from_run(run)),
            )
        end = run.get("end_time")
        if not end or not isinstance(end, int) or not stats_are_on():
            return
        if (metrics := self._hook.metrics) is not None:
            # The service's clock may be ahead of this one.
            metrics.event_fired(max(0.0, time.time() - max(end / 1000, not_before)))

    async def on_kill(self) -> None:
        """Cancel the run after a user cleared or marked the task (Airflow 3.3 and later).

        Airflow calls this also where another triggerer has taken the trigger over. Then the task is
        still deferred, and the run is not canceled; nor is it where Airflow does not tell the
        task's state.
        """
        if self.cancel_on_kill:
            await self._cancel_on_kill()

    # -- the wait ------------------------------------------------------------------------------

    async def _until_connected(self) -> None:
        """Wait until Airflow finds the connection, if it was used before.

        Airflow takes a failure of a secrets backend for a connection that does not exist.
        """
        wait, waited = 1.0, 0.0
        while True:
            try:
                await get_poller(self._hook).client()
                return
            except AirflowException as error:
                is_over = self.deadline is not None and time.time() >= self.deadline
                if is_over or waited >= _LOOK_UP_SECONDS or not await self._was_connected():
                    return  # The wait raises it.
                if not waited:
                    self.log.warning("The connection is looked up again: %s", error)
            await async_sleep(wait)
            waited, wait = waited + wait, min(2 * wait, _LONGEST_LOOK_UP_WAIT)

    async def _was_connected(self) -> bool:
        """Whether the connection was used before, by the worker that has deferred the task."""
        return self.reached_by is not None

    @abstractmethod
    async def _wait(self) -> dict[str, Any]:
        """Wait until the run has ended, or a time limit is over; return the event's payload."""

    async def _wait_for_run(self, run_id: int) -> dict[str, Any]:
        """Wait until a run has ended, or a time limit is over; return the event's payload."""
        self._run_id = self._active_run_id = run_id
        self._progress = RunProgress(
            # The plain logger: thousands of triggers keep theirs.
            run_id,
            super().log,
            known_life_cycle_state=self.life_cycle_state,
        )
        steps = follow_run(
            run_id,
            polling_period=self._polling_period,
            progress=self._progress,
            queued_timeout_seconds=self.queued_timeout_seconds,
            queued_since=self.queued_since,
            launched_at=self.launched_at,
            follow_attempts=self.follow_attempts,
        )
        following = get_poller(self._hook).run_workflow(
            steps,
            period=self.polling_period_seconds,
            life_cycle_state=self.life_cycle_state,
            every_read=self.queued_timeout_seconds is not None,
            on_event=self._record,
        )
        if self.deadline is None:
            ended = await following
        else:
            limit = asyncio.timeout(max(0.0, self.deadline - time.time()))
            try:
                async with limit:
                    ended = await following
            except TimeoutError:
                if not limit.expired():
                    raise  # another time limit, not the task's
                # The run may have ended since it was read last.
                run = await self._read_once_more(self._active_run_id or run_id)
                if RunState.from_run(run).is_terminal:
                    return run_payload(run)
                return await self._stop_waiting(run, "execution_timeout")
        if ended.queued_too_long:
            return await self._stop_waiting(ended.run, "queued_timeout_seconds")
        return run_payload(ended.run)

    @property
    def _polling_period(self) -> Callable[[], float]:
        """Returns the polling period, in seconds."""
        return _always(self.polling_period_seconds)

    def _record(self, event: Event) -> None:
        if isinstance(event, RunIdentified):
            self._active_run_id = event.run_id

    async def _read_once_more(self, run_id: int) -> Mapping[str, Any]:
        try:
            async with asyncio.timeout(_LAST_READ_SECONDS):
                return await get_poller(self._hook).send(endpoints.get_run(run_id))
        except (JobsAPIError, TimeoutError):
            return {"run_id": run_id}

    async def _stop_waiting(self, run: Mapping[str, Any], timed_out: str) -> dict[str, Any]:
        if self.cancel_on_kill:
            cancel = start_in_background(self._cancel(f"it took longer than {timed_out} allows"))
            await asyncio.wait({cancel}, timeout=_LAST_READ_SECONDS)
        return run_payload(run, timed_out=timed_out)

    # -- the end of the task -------------------------------------------------------------------

    async def _before_resume(self) -> None:
        """Do what has to be done before an event resumes the task on a worker; here nothing."""

    def _succeeded(self, payload: Mapping[str, Any]) -> bool:
        if payload.get("timed_out") or "run" not in payload:
            return False
        state = RunState.from_run(payload["run"])
        return state.succeeded(fail_on_partial_success=self.fail_on_partial_success)

    async def _add_outputs(self, payload: dict[str, Any]) -> None:
        """Add the run's outputs to an event, so that the worker need not read them."""
        from airflow_jobs_provider.triggers.event_outputs import output_reader

        ti = self.task_instance
        outputs = await output_reader().read(
            self._hook,
            payload["run"],
            task=None if ti is None else (ti.dag_id, ti.task_id),
            max_output_bytes=self.max_output_bytes,
        )
        if outputs:
            payload["outputs"] = outputs

    async def _task_success_event(self, run: Run) -> TriggerEvent | None:
        """Return the event that ends the task; None to let a worker end it."""
        result = await self._read_result(run)
        try:
            xcoms = result.xcoms(self.log, multiple_outputs=self.multiple_outputs)
            await self._delete_earlier_output()
            return await success_event(
                self, {**self._run_xcoms(run), **xcoms}, before_push=self._before_push
            )
        except OutdatedError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever Airflow's API says
            self.log.warning(
                "A worker will end the task, since its XComs are not stored: %s", error_text(error)
            )
            return None

    async def _delete_earlier_output(self) -> None:
        """Delete the output of an earlier attempt; a worker that starts the task has done so."""

    async def _before_push(self) -> None:
        """Do what has to be done before XComs are stored, in their turn; here nothing.

        :raises OutdatedError: a later attempt of the task has begun.
        """

    def _run_xcoms(self, run: Run) -> dict[str, Any]:  # noqa: ARG002
        """Return the XComs about the run that no worker has pushed before, by key."""
        return {}

    async def _read_result(self, run: Run) -> RunResult:
        from airflow_jobs_provider.run_result import RunResult, read_result

        steps = read_result(
            run,
            self.log,
            want_output=self.do_xcom_push,
            max_output_bytes=self.max_output_bytes,
            fail_on_partial_success=self.fail_on_partial_success,
        )
        try:
            async with asyncio.timeout(_OUTPUT_SECONDS):
                # Within limits, as on a worker: the service may be unable to give an output.
                return await run_workflow_unpolled(self._hook, steps, without_deadline=False)
        except (JobsAPIError, AirflowException, ValueError, TimeoutError) as error:
            # The run succeeded, so the task does, even if the connection was deleted meanwhile.
            why = str(error) or f"no answer for {_OUTPUT_SECONDS:.0f} s"
            self.log.warning("The output of run %s cannot be read: %s", run["run_id"], why)
            return RunResult()

    # -- canceling the run --------------------------------------------------------------------

    async def _cancel_on_kill(self) -> None:
        await wait_despite_cancels(self._cancel_unless_deferred(), timeout_seconds=_ON_KILL_SECONDS)

    async def _cancel_unless_deferred(self) -> None:
        """Cancel the run if the task is no longer deferred with it."""
        if self._run_has_ended or not self._may_have_run():
            return
        run_id = self._run_id or "of this task"
        try:
            cancel = await self._has_stopped_waiting()
        except asyncio.CancelledError:
            self.log.warning(
                "Run %s is not canceled, since the triggerer stops before the state of its task is "
                "known",
                run_id,
            )
            raise
        except Exception as error:  # noqa: BLE001 - whatever Airflow's API says
            self.log.warning(
                "Run %s is not canceled, since the state of its task is not known: %s",
                run_id,
                error_text(error),
            )
            return
        if not cancel:
            self.log.info("Run %s is not canceled: its task is still deferred.", run_id)
        elif not self._is_terminating() and not await self._has_ended():
            await self._find_and_cancel("a user ended the task")

    def _may_have_run(self) -> bool:
        """Whether there may be a run to cancel."""
        return self._run_id is not None

    async def _has_stopped_waiting(self) -> bool:
        """Return whether the task is not deferred with this trigger's run any more."""
        from airflow_jobs_provider.airflow_compat.deferred_tasks import is_no_longer_deferred

        return await is_no_longer_deferred(self, self._run_id)

    async def _find_and_cancel(self, reason: str) -> None:
        """Cancel the run, and log whether that worked."""
        await self._cancel(reason)

    async def _has_ended(self) -> bool:
        """Read whether the run has ended.

        After a silence of this triggerer, another one may have resumed the task with the ended run.
        Airflow's answer is then the same as for a task that a user has cleared.
        """
        run_id = self._active_run_id
        if run_id is None:
            return False
        limit = asyncio.timeout(_LAST_READ_SECONDS)

        def shorten(_call: object, _error: object) -> None:
            now = asyncio.get_running_loop().time()
            limit.reschedule(now + _RESPONSE_BEFORE_CANCEL_SECONDS)

        try:
            async with limit:
                run = await get_poller(self._hook).send(
                    endpoints.get_run(run_id),
                    retries=_ONE_ATTEMPT,
                    is_urgent=True,
                    on_attempt=shorten,
                )
        except Exception as error:  # noqa: BLE001 - a run that cannot be read may be active
            self.log.info(
                "Run %s cannot be read before it is canceled: %s", run_id, error_text(error)
            )
            return False
        if not RunState.from_run(run).is_terminal:
            return False
        self.log.info("Run %s is not canceled: it has ended.", run_id)
        return True

    def _is_terminating(self) -> bool:
        """Whether the run was last seen TERMINATING: another triggerer may have canceled it."""
        state = None if self._progress is None else self._progress.life_cycle_state
        return state == RunLifeCycleState.TERMINATING

    async def _cancel(self, reason: str) -> None:
        """Cancel the run, and log whether that worked."""
        run_id = self._active_run_id
        assert run_id is not None
        is_new = is_just_launched(self.launched_at, time.time())
        try:
            async with asyncio.timeout(_CANCEL_SECONDS):
                await self._until_connected()
                await run_workflow_async(
                    cancel_launched_run(run_id, launched_at=self.launched_at),
                    send=self._send_cancel,
                    wait=async_sleep,
                )
        except asyncio.CancelledError:
            self.log.error(
                "Run %s could not be canceled and may still run: the triggerer stops", run_id
            )
            raise
        except Exception as error:  # noqa: BLE001 - nobody else would log it
            log_failed_cancel(self.log, run_id, error, is_new=is_new)
        else:
            self.log.info("Run %s was canceled, because %s.", run_id, reason)

    def _send_cancel(self, call: Call[Any]) -> Awaitable[Any]:
        """Send a call with the client, and within the rate limit, of all triggers."""
        return get_poller(self._hook).send(call, retries=_CANCEL_RETRIES)


def _has_ended_run(payload: Mapping[str, Any]) -> bool:
    return "run" in payload and RunState.from_run(payload["run"]).is_terminal


@functools.cache
def _always(seconds: float) -> Callable[[], float]:
    """Return a function that returns a number of seconds; one for all triggers with that number.

    :param seconds: the number.
    """
    return lambda: seconds

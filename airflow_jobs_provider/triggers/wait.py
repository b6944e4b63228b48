"""WaitForRunTrigger: what the triggers share, from the wait's end to the task's end."""

from __future__ import annotations

import asyncio
import functools
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException
from airflow.triggers.base import TriggerEvent

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
from airflow_jobs_provider.api.retry import async_sleep
from airflow_jobs_provider.api.states import RunState
from airflow_jobs_provider.api.text import error_text
from airflow_jobs_provider.api.workflows.events import Event, RunIdentified
from airflow_jobs_provider.api.workflows.follow import follow_run
from airflow_jobs_provider.api.workflows.progress import RunProgress
from airflow_jobs_provider.triggers.background import start_in_background
from airflow_jobs_provider.triggers.base import OutdatedError
from airflow_jobs_provider.triggers.cancel_on_kill import CancelOnKillTrigger
from airflow_jobs_provider.triggers.events import error_payload, run_payload
from airflow_jobs_provider.triggers.polling.registry import get_poller, run_workflow_unpolled

if TYPE_CHECKING:
    from airflow_jobs_provider.api.schema.types import Run
    from airflow_jobs_provider.run_result import RunResult

__all__ = ["WaitForRunTrigger"]

# How long the event of a run that took too long waits for the run's last state, or for its cancel.
_LAST_READ_SECONDS = 19.0
# Longer than a single output is retried, so that one task's failure does not lose what was read of
# the others.
_OUTPUT_SECONDS = 900.0


class WaitForRunTrigger(CancelOnKillTrigger):
    """Base class of the triggers that wait for a run and fire one event.

    A subclass waits in :meth:`_wait`. All else is the same: what the event says, that it may end
    the task, that a user who clears or marks the task cancels the run.
    """

    # One of the subclass's arguments.
    run_id: Any
    # Whether the task starts in the triggerer, with no worker before.
    _starts_task = False

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

    # -- the wait ------------------------------------------------------------------------------

    @abstractmethod
    async def _wait(self) -> dict[str, Any]:
        """Wait until the run has ended, or a time limit is over; return the event's payload."""

    async def _wait_for_run(self, run_id: int) -> dict[str, Any]:
        """Wait until a run has ended, or a time limit is over; return the event's payload."""
        self._run_id = self._active_run_id = run_id
        self._progress = RunProgress(
            # The plain logger: thousands of triggers keep theirs.
            run_id,
            self._plain_log,
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


def _has_ended_run(payload: Mapping[str, Any]) -> bool:
    return "run" in payload and RunState.from_run(payload["run"]).is_terminal


@functools.cache
def _always(seconds: float) -> Callable[[], float]:
    """Return a function that returns a number of seconds; one for all triggers with that number.

    :param seconds: the number.
    """
    return lambda: seconds

"""DatabricksJobRunTrigger: wait for a run in the triggerer, without a worker."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from dataclasses import replace
from typing import Any

from airflow.providers.common.compat.sdk import AirflowException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_jobs_provider.airflow_compat.completion_event import success_event
from airflow_jobs_provider.airflow_compat.deferred_tasks import (
    is_no_longer_deferred,
    prepare_questions,
)
from airflow_jobs_provider.api import endpoints
from airflow_jobs_provider.api.errors import JobsAPIError
from airflow_jobs_provider.api.proxies import note_reached
from airflow_jobs_provider.api.retry import RetryPolicy
from airflow_jobs_provider.api.states import RunLifeCycleState, RunState
from airflow_jobs_provider.api.workflows.base import Event, RunIdentified
from airflow_jobs_provider.api.workflows.follow import follow_run
from airflow_jobs_provider.api.workflows.launched_run import is_just_launched
from airflow_jobs_provider.api.workflows.progress import RunProgress
from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
from airflow_jobs_provider.run_result import RunResult, read_result
from airflow_jobs_provider.triggers.polling.registry import poller_of, run_unbatched

__all__ = ["DatabricksJobRunTrigger"]

# What an event keeps of a run: enough for its result. A run may list its whole cluster
# definition, and events are stored in Airflow's database.
_RUN_FIELDS = ("run_id", "task_key", "job_id", "run_page_url", "state", "start_time", "end_time")
_TASK_FIELDS = ("run_id", "task_key", "attempt_number", "state")
# How long a trigger waits for its own clean-up, which goes on after that: Airflow gives ``on_kill``
# 30 seconds, and does not start the trigger here again before its end.
_ON_KILL_SECONDS = 25.0
# How long the event of a run that took too long waits for the run's last state, or its cancel.
_LAST_LOOK_SECONDS = 19.0
# Whatever the task's own retry arguments are: a hundred cancels at once may meet a rate limit.
_CANCEL = RetryPolicy()
# Longer than a cancel is tried for: it bounds what comes before, such as a secrets backend.
_CANCEL_SECONDS = 900.0
# An output may be what the service cannot give. Longer than a call is tried for by itself, so that
# one task's trouble does not lose what was read of the others.
_OUTPUT_SECONDS = 900.0


class DatabricksJobRunTrigger(BaseTrigger):
    """Fire one event when a run has ended.

    The event's payload is ``{"run": {...}}`` with the ended run's ids, state, page and tasks;
    ``"timed_out"`` beside it names the limit that was passed where the run was given up; where the
    run cannot be followed it is ``{"run_id": ..., "error": "..."}``, with ``"is_final": True``
    where a retry cannot help.

    With ``end_from_trigger`` the event of a run that ended well ends the task as well, with the
    run's output in the XComs ``return_value`` and ``output_truncated``; all other news goes to a
    worker, who knows what to do about it.

    A run is cancelled when a user clears or marks the task that waits for it, never when the
    triggerer restarts or hands its triggers to another one, nor when Airflow does not tell which of
    the two it was.

    :param run_id: the run to wait for.
    :param databricks_conn_id: connection to its workspace.
    :param polling_period_seconds: seconds between two looks; default 30.
    :param retry_limit: see :class:`~airflow_jobs_provider.hooks.jobs.DatabricksJobsHook`.
    :param retry_delay: likewise.
    :param retry_args: likewise.
    :param caller: likewise.
    :param cancel_on_kill: cancel the run when a user ends the wait, or when it is given up;
        default False.
    :param deadline: give the run up at this time, in seconds since the epoch.
    :param queued_timeout_seconds: give the run up if it has not begun to run for so long.
    :param queued_since: count from then, in seconds since the epoch, instead of the run's start.
    :param follow_attempts: go on with the service's own retries of the run; default False.
    :param life_cycle_state: the run's when the task was deferred, which its log has already.
    :param end_from_trigger: end the task of a run that ended well; default False.
    :param do_xcom_push: push the output then; default True.
    :param max_output_bytes: cut the output off after so many bytes; default none.
    :param fail_on_partial_success: leave the task of a run that ended ``SUCCESS_WITH_FAILURES`` to
        a worker, where it fails; default False: the task ends well, with a warning that names the
        failed tasks. (Triggers stored by versions without the argument mean that.)
    :param launched_at: when the run was launched, in seconds since the epoch; for 60 s from then a
        run that is not found is read again. Default: long ago.
    :param multiple_outputs: push the output of each task of the run under its task key as well;
        default False.
    :param reached_by: how the worker reached the workspace: host, and proxy without credentials. If
        the triggerer reaches it in the same way, a proxy or host name that fails is an outage, even
        before the triggerer's first answer. Default: not known.
    """

    def __init__(
        self,
        run_id: int,
        databricks_conn_id: str = DatabricksJobsHook.default_conn_name,
        polling_period_seconds: float = 30,
        retry_limit: int | None = None,
        retry_delay: float | None = None,
        retry_args: dict[str, Any] | None = None,
        caller: str = "DatabricksJobRunTrigger",
        cancel_on_kill: bool = False,
        deadline: float | None = None,
        queued_timeout_seconds: float | None = None,
        follow_attempts: bool = False,
        life_cycle_state: str | None = None,
        end_from_trigger: bool = False,
        do_xcom_push: bool = True,
        max_output_bytes: int | None = None,
        queued_since: float | None = None,
        fail_on_partial_success: bool = False,
        launched_at: float | None = None,
        reached_by: str | None = None,
        multiple_outputs: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.run_id = run_id
        self.databricks_conn_id = databricks_conn_id
        self.polling_period_seconds = polling_period_seconds
        self.retry_limit = retry_limit
        self.retry_delay = retry_delay
        self.retry_args = retry_args
        self.caller = caller
        self.cancel_on_kill = cancel_on_kill
        self.deadline = deadline
        self.queued_timeout_seconds = queued_timeout_seconds
        self.queued_since = queued_since
        self.follow_attempts = follow_attempts
        self.life_cycle_state = life_cycle_state
        self.end_from_trigger = end_from_trigger
        self.do_xcom_push = do_xcom_push
        self.max_output_bytes = max_output_bytes
        self.fail_on_partial_success = fail_on_partial_success
        self.launched_at = launched_at
        self.reached_by = reached_by
        self.multiple_outputs = multiple_outputs
        # The run itself, or the attempt with which the service retries it.
        self._active_run_id = run_id
        self._progress: RunProgress | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments that make this trigger again."""
        return (
            "airflow_jobs_provider.triggers.jobs.DatabricksJobRunTrigger",
            {
                "run_id": self.run_id,
                "databricks_conn_id": self.databricks_conn_id,
                "polling_period_seconds": self.polling_period_seconds,
                "retry_limit": self.retry_limit,
                "retry_delay": self.retry_delay,
                "retry_args": self.retry_args,
                "caller": self.caller,
                "cancel_on_kill": self.cancel_on_kill,
                "deadline": self.deadline,
                "queued_timeout_seconds": self.queued_timeout_seconds,
                "queued_since": self.queued_since,
                "follow_attempts": self.follow_attempts,
                "life_cycle_state": self.life_cycle_state,
                "end_from_trigger": self.end_from_trigger,
                "do_xcom_push": self.do_xcom_push,
                "max_output_bytes": self.max_output_bytes,
                "launched_at": self.launched_at,
                "reached_by": self.reached_by,
                "fail_on_partial_success": self.fail_on_partial_success,
                "multiple_outputs": self.multiple_outputs,
            },
        )

    @property
    def _hook(self) -> DatabricksJobsHook:
        return DatabricksJobsHook(
            self.databricks_conn_id,
            retry_limit=self.retry_limit,
            retry_delay=self.retry_delay,
            retry_args=self.retry_args,
            caller=self.caller,
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until the run has ended, then yield the one event."""
        event = None
        if self.reached_by:
            note_reached(self.reached_by)
        if self.cancel_on_kill:
            prepare_questions(self)
        try:
            payload = await self._wait()
            # Without a number it is in no triggerer: dag.test() knows nothing of tasks that end so.
            if self.end_from_trigger and self.trigger_id is not None and self._succeeded(payload):
                event = await self._end(payload)
        except (JobsAPIError, AirflowException, ValueError, TimeoutError) as error:
            why = str(error) or type(error).__name__
            payload = {"run_id": self.run_id, "error": why}
            # Such as an argument that was rendered wrong in the triggerer.
            if isinstance(error, JobsAPIError) and error.is_final:
                payload["is_final"] = True
        except asyncio.CancelledError:
            # From 3.3 Airflow calls on_kill itself, and not when the triggerer stops.
            if self.cancel_on_kill and not hasattr(BaseTrigger, "on_kill"):
                await _outlast_cancels(self._cancel_if_abandoned())
            raise
        yield event or TriggerEvent(payload)

    async def on_kill(self) -> None:
        """Cancel the run after a user cleared or marked the task (Airflow 3.3 and later).

        Airflow calls it also where another triggerer has taken over: then the task still waits, and
        the run is left alone. So it is where Airflow does not tell the task's state.
        """
        if self.cancel_on_kill:
            await _outlast_cancels(self._cancel_if_abandoned())

    async def _wait(self) -> dict[str, Any]:
        seen: dict[str, Any] = {"run_id": self._active_run_id}
        self._progress = RunProgress(
            self.run_id, self.log, known_life_cycle_state=self.life_cycle_state
        )
        steps = follow_run(
            self._active_run_id,
            polling_period=lambda: self.polling_period_seconds,
            progress=self._progress,
            queued_timeout_seconds=self.queued_timeout_seconds,
            queued_since=self.queued_since,
            launched_at=self.launched_at,
            follow_attempts=self.follow_attempts,
        )
        timed_out = ""
        seconds = None if self.deadline is None else max(0.0, self.deadline - time.time())
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                ended = await poller_of(self._hook).run(
                    steps,
                    period=self.polling_period_seconds,
                    life_cycle_state=self.life_cycle_state,
                    wake_each_time=self.queued_timeout_seconds is not None,
                    on_event=self._record,
                )
            seen = ended.run
            if ended.queued_too_long:
                timed_out = "queued_timeout_seconds"
        except TimeoutError:
            if not limit.expired():
                # Not the task's time is over: somebody else waited for something in vain.
                raise
            # It may have ended since the last look.
            seen = await self._last_look() or seen
            if not RunState.from_run(seen).is_terminal:
                timed_out = "execution_timeout"
        if not timed_out:
            return {"run": excerpt(seen)}
        if self.cancel_on_kill:
            reason = f"it took longer than {timed_out} allows"
            await asyncio.wait({_in_background(self._cancel(reason))}, timeout=_LAST_LOOK_SECONDS)
        return {"run": excerpt(seen), "timed_out": timed_out}

    def _succeeded(self, payload: Mapping[str, Any]) -> bool:
        if payload.get("timed_out"):
            return False
        state = RunState.from_run(payload["run"])
        return state.succeeded(fail_on_partial_success=self.fail_on_partial_success)

    async def _end(self, payload: Mapping[str, Any]) -> TriggerEvent | None:
        """Return the event that ends the task; None to let a worker do it."""
        outcome = await self._read_result(payload["run"])
        try:
            xcoms = outcome.xcoms(self.log, multiple_outputs=self.multiple_outputs)
            xcoms = {**self._more_xcoms(payload["run"]), **xcoms}
            return await success_event(
                self, xcoms, afresh=self._begins_task, multiple_outputs=self.multiple_outputs
            )
        except Exception as error:  # noqa: BLE001 - whatever Airflow's API says
            why = str(error) or type(error).__name__
            self.log.warning("A worker will end the task, since its XComs are not stored: %s", why)
            return None

    @property
    def _begins_task(self) -> bool:
        """Whether the task begins with the trigger, with no worker before: here never."""
        return False

    def _more_xcoms(self, run: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """Return what no worker has pushed before: here nothing."""
        return {}

    async def _read_result(self, run: Mapping[str, Any]) -> RunResult:
        steps = read_result(
            run,
            self.log,
            want_output=self.do_xcom_push,
            max_output_bytes=self.max_output_bytes,
            fail_on_partial_success=self.fail_on_partial_success,
        )
        try:
            async with asyncio.timeout(_OUTPUT_SECONDS):
                # As a worker does: an output may be what the service cannot give, or not to us.
                return await run_unbatched(self._hook, steps, without_deadline=False)
        except (JobsAPIError, AirflowException, ValueError, TimeoutError) as error:
            # Not even a connection that is gone meanwhile spoils a good run.
            why = str(error) or f"no answer for {_OUTPUT_SECONDS:.0f} s"
            self.log.warning("The output of run %s cannot be read: %s", run["run_id"], why)
            return RunResult()

    async def _last_look(self) -> dict[str, Any] | None:
        try:
            async with asyncio.timeout(_LAST_LOOK_SECONDS):
                return await poller_of(self._hook).send(endpoints.get_run(self._active_run_id))
        except (JobsAPIError, TimeoutError):
            return None

    def _record(self, event: Event) -> None:
        if isinstance(event, RunIdentified):
            self._active_run_id = event.run_id

    async def _cancel_if_abandoned(self) -> None:
        try:
            abandoned = await is_no_longer_deferred(self, self.run_id)
        except asyncio.CancelledError:
            self.log.warning(
                "Run %s is not canceled, since the triggerer stops before the state of its task is "
                "known",
                self.run_id,
            )
            raise
        except Exception as error:  # noqa: BLE001 - whatever Airflow's API says
            self.log.warning(
                "Run %s is not canceled, since the state of its task is not known: %s",
                self.run_id,
                str(error) or type(error).__name__,
            )
            return
        if not abandoned:
            self.log.info("Run %s is not canceled: its task still waits for it.", self.run_id)
        elif not self._is_terminating():
            await self._cancel("a user ended the task")

    def _is_terminating(self) -> bool:
        """Whether the run is on its way out: another triggerer, perhaps, was told the same."""
        seen = None if self._progress is None else self._progress.life_cycle_state
        return seen == RunLifeCycleState.TERMINATING

    async def _cancel(self, reason: str) -> None:
        run_id = self._active_run_id
        try:
            async with asyncio.timeout(_CANCEL_SECONDS):
                is_new = is_just_launched(self.launched_at, time.time())
                retries = replace(_CANCEL, missing_passes=is_new)
                # With the client, and at the rate, of all triggers of the connection.
                await poller_of(self._hook).send(endpoints.cancel_run(run_id), retries=retries)
        except asyncio.CancelledError:
            self.log.error(
                "Run %s could not be canceled and may still run: the triggerer stops", run_id
            )
            raise
        except Exception as error:  # noqa: BLE001 - nobody else would tell
            self.log.error(
                "Run %s could not be canceled and may still run: %s",
                run_id,
                str(error) or "no answer in time",
            )
        else:
            self.log.info("Run %s was canceled, because %s.", run_id, reason)


_background: set[asyncio.Task[None]] = set()


def _in_background(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Start work that goes on when its trigger has ended."""
    task = asyncio.create_task(work)
    _background.add(task)
    task.add_done_callback(_background.discard)
    return task


async def _outlast_cancels(work: Coroutine[Any, Any, None]) -> None:
    """Start work, and wait for it although Airflow cancels a trigger every second until it ends."""
    task = _in_background(work)
    deadline = time.monotonic() + _ON_KILL_SECONDS
    while not task.done() and (left := deadline - time.monotonic()) > 0:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({task}, timeout=left)


def excerpt(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an event keeps of a run."""
    kept = {name: run[name] for name in _RUN_FIELDS if name in run} | _kinds(run)
    if run.get("tasks"):
        kept["tasks"] = [
            {name: task[name] for name in _TASK_FIELDS if name in task} | _kinds(task)
            for task in run["tasks"]
        ]
    return kept


def _kinds(task: Mapping[str, Any]) -> dict[str, Any]:
    """Return of a task what kind it is, without its settings: a for_each_task is read by itself."""
    return {name: {} for name in task if name.endswith("_task") and task[name] is not None}

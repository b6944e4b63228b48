"""The part of a trigger that cancels its run, such as when a user clears or marks the task."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from airflow_jobs_provider.api import endpoints
from airflow_jobs_provider.api.retry import RetryPolicy, async_sleep
from airflow_jobs_provider.api.states import RunLifeCycleState, RunState
from airflow_jobs_provider.api.text import error_text
from airflow_jobs_provider.api.workflows.base import run_workflow_async
from airflow_jobs_provider.api.workflows.cancel import cancel_launched_run, log_failed_cancel
from airflow_jobs_provider.api.workflows.launched_run import is_just_launched
from airflow_jobs_provider.triggers.background import wait_despite_cancels
from airflow_jobs_provider.triggers.base import DatabricksJobsBaseTrigger
from airflow_jobs_provider.triggers.polling.registry import get_poller

if TYPE_CHECKING:
    from airflow_jobs_provider.api.calls import Call

__all__ = ["CancelOnKillTrigger"]

# Airflow gives on_kill 30 seconds, and does not start the trigger here again before its end.
_ON_KILL_SECONDS = 25.0
# How long a cancel waits to know whether the run has ended.
_READ_BEFORE_CANCEL_SECONDS = 19.0
# How long it waits for the response to that read, once the request is sent.
_RESPONSE_BEFORE_CANCEL_SECONDS = 5.0
# If the service does not answer, the cancel is what is to be retried.
_ONE_ATTEMPT = RetryPolicy(max_attempts=1)
# Whatever the task's own retry arguments are: a hundred cancels at once may meet a rate limit.
_CANCEL_RETRIES = RetryPolicy()
# Longer than a cancel is retried: this bounds what comes before it, such as a secrets backend.
_CANCEL_SECONDS = 900.0


class CancelOnKillTrigger(DatabricksJobsBaseTrigger):
    """Base class of the triggers that wait for a run, as far as its cancel is concerned.

    Airflow cancels a trigger also where another triggerer has taken it over. So it is asked for the
    task's state first; see :mod:`airflow_jobs_provider.airflow_compat.deferred_tasks`.
    """

    # Whether the run was seen to have ended, so that there is nothing to cancel any more.
    _run_has_ended = False

    async def on_kill(self) -> None:
        """Cancel the run after a user cleared or marked the task (Airflow 3.3 and later).

        Airflow calls this also where another triggerer has taken the trigger over. Then the task is
        still deferred, and the run is not canceled; nor is it where Airflow does not tell the
        task's state.
        """
        if self.cancel_on_kill:
            await self._cancel_on_kill()

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
        limit = asyncio.timeout(_READ_BEFORE_CANCEL_SECONDS)

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

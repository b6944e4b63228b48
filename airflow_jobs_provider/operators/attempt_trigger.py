"""AttemptTrigger: determines which attempt of its task a trigger starts, and which run is its own.

Airflow starts a task with such a trigger. Another triggerer may take it over, and users may clear
or mark the task at any moment. See :mod:`airflow_jobs_provider.airflow_compat.launch_record`.
"""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException

from airflow_jobs_provider.airflow_compat.completion_event import push_xcoms
from airflow_jobs_provider.airflow_compat.deferred_tasks import is_no_longer_deferred
from airflow_jobs_provider.airflow_compat.launch_record import (
    begin_attempt,
    begin_first_attempt,
    is_replaced,
    read_record,
    record_attempt,
    record_handover,
    recorded_run_id,
)
from airflow_jobs_provider.airflow_compat.threads import in_thread
from airflow_jobs_provider.airflow_compat.trigger_timeout import trigger_deadline
from airflow_jobs_provider.airflow_compat.triggerer_health import triggerer_health
from airflow_jobs_provider.api.errors import JobsAPIError
from airflow_jobs_provider.api.retry import async_sleep
from airflow_jobs_provider.api.states import RunState
from airflow_jobs_provider.api.workflows.base import run_workflow_async
from airflow_jobs_provider.api.workflows.cancel import cancel_unless_ended, log_failed_cancel
from airflow_jobs_provider.api.workflows.launched_run import latest_launch_of_recorded_run
from airflow_jobs_provider.triggers.background import start_in_background
from airflow_jobs_provider.triggers.base import OutdatedError
from airflow_jobs_provider.triggers.events import run_payload
from airflow_jobs_provider.triggers.outdated import StopsIfOutdated, wait_for_cancel
from airflow_jobs_provider.xcom import JOB_ID_KEY, RUN_ID_KEY, RUN_PAGE_URL_KEY

if TYPE_CHECKING:
    from airflow_jobs_provider.airflow_compat.launch_record import LaunchAttempt
    from airflow_jobs_provider.api.schema.types import Run

__all__ = ["AttemptTrigger", "NeedsWorkerError", "needing_xcoms"]

# A task that was cleared may be deferred again for so long before its next attempt is recorded.
_NEXT_ATTEMPT_SECONDS = 20.0
# How long the event of a start that took too long waits for the cancel of the run.
_CANCEL_SECONDS = 19.0


class NeedsWorkerError(Exception):
    """The triggerer cannot start the task; a worker can. The message says why."""


@contextmanager
def needing_xcoms() -> Iterator[None]:
    """Leave the task to a worker if Airflow's XComs cannot be read or stored in the context.

    :raises NeedsWorkerError: they cannot.
    """
    try:
        yield
    except (NeedsWorkerError, OutdatedError):
        raise
    except Exception as error:  # whatever Airflow's API says
        raise NeedsWorkerError(f"XComs cannot be stored or read: {error}") from error


class AttemptTrigger(StopsIfOutdated):
    """Base class of the triggers that start a task."""

    run_id: int | None = None
    _starts_task = True
    # Whether nobody else knows the task's run before the XCom run_id is stored.
    _launches_run = True
    # Whether the XCom run_id has the run.
    _is_recorded = False
    # Whether the run of an attempt before a clear is being canceled.
    _has_orphan = False
    # XComs that Airflow could not store. They are pushed again at the end of the task.
    _unstored: Mapping[str, Any] = {}

    async def _wait(self) -> dict[str, Any]:
        self.deadline = trigger_deadline(self)
        try:
            begun = await self._begin()
            if begun.is_outdated:
                await wait_for_cancel()
            payload = await self._start(begun)
            return {**payload, "xcoms": dict(self._unstored)} if self._unstored else payload
        except OutdatedError:
            # Here, and not where others wait for the end of its turn.
            await wait_for_cancel()
            raise
        except NeedsWorkerError as error:
            self.log.info("A worker will start the task: %s", error)
            return {"start_on_worker": str(error)}

    @abstractmethod
    async def _start(self, begun: LaunchAttempt) -> dict[str, Any]:
        """Start the task; return the event's payload.

        :param begun: the attempt, which is the latest one.
        :raises NeedsWorkerError: a worker has to start it.
        """

    # -- the attempt ---------------------------------------------------------------------------

    async def _begin(self) -> LaunchAttempt:
        """Find out which attempt this is, and record it."""
        task_instance: Any = self.task_instance
        self._check_arguments()
        if task_instance is None or self.trigger_id is None:
            raise NeedsWorkerError("the trigger is in no triggerer")
        if not hasattr(task_instance, "get_template_context"):
            # The task was changed meanwhile. Airflow then makes no context for its trigger.
            raise NeedsWorkerError("a task that does not start in the triggerer any more")
        health = triggerer_health()
        health.trigger_started()
        begun = self._begin_unrecorded()
        if begun is not None:
            return begun
        with needing_xcoms():
            # A later attempt needs a record of its own, and may have to cancel a run before.
            if health.stores_xcoms or task_instance.try_number > 1:
                return await self._begin_recorded(task_instance)
            # Once Airflow has stored the record of one, the others that wait need none.
            async with health.first_record:
                return self._begin_unrecorded() or await self._begin_recorded(task_instance)

    def _begin_unrecorded(self) -> LaunchAttempt | None:
        """Return the first attempt of the task if nothing need be asked or stored; else None.

        After a pause Airflow is asked later, before the trigger changes anything.
        """
        if not triggerer_health().stores_xcoms:
            return None
        return begin_first_attempt(self.task_instance)

    def _check_arguments(self) -> None:
        """Raise a NeedsWorkerError if the triggerer cannot read an argument; here nothing."""

    async def _begin_recorded(self, task_instance: Any) -> LaunchAttempt:
        begun = await self._read_attempt(task_instance)
        if begun.is_new and not begun.is_outdated:
            # The user's token may bring the same run, which this attempt then follows.
            if not self._has_user_token():
                # Also if the task is marked meanwhile, so that there is no next attempt.
                work = self._cancel_orphan(begun.orphan_run_id)
                await asyncio.shield(start_in_background(work))
            if self._may_be_outdated():  # or another triggerer may have gone on with this attempt
                begun = await self._read_attempt(task_instance)
        health = triggerer_health()
        is_first = begun.attempt.try_number == 1 and health.stores_xcoms
        if begun.is_new and not begun.is_outdated and not is_first:
            await in_thread(
                record_attempt, task_instance, begun, multiple_outputs=self.multiple_outputs
            )
            health.stores_xcoms = True
        return begun

    async def _read_attempt(self, task_instance: Any) -> LaunchAttempt:
        self._checked_at = time.monotonic()
        return await in_thread(begin_attempt, task_instance)

    async def _cancel_orphan(self, run_id: int | None) -> None:
        """Cancel the run of an attempt before a clear; mostly it has ended."""
        if run_id is None or not self.cancel_on_kill:
            return
        self._has_orphan = True
        launched_at = latest_launch_of_recorded_run(time.time())
        try:
            await self._until_connected()
            is_canceled = await run_workflow_async(
                cancel_unless_ended(run_id, launched_at=launched_at),
                send=self._send_cancel,
                wait=async_sleep,
            )
        except (JobsAPIError, AirflowException, ValueError) as error:
            log_failed_cancel(self.log, run_id, error, is_new=False)
        else:
            if is_canceled:
                self.log.info("Run %s was canceled: its attempt was cleared.", run_id)
        finally:
            self._has_orphan = False  # This attempt itself has launched nothing yet.

    async def _push(self, xcoms: Mapping[str, Any]) -> bool:
        """Push XComs that are not None; return whether Airflow has stored any."""
        values = {key: value for key, value in xcoms.items() if value is not None}
        if not values:
            return False
        try:
            await push_xcoms(
                self,
                values,
                before_push=self._before_push,
                of_launch=self._launches_run and RUN_ID_KEY in values,
            )
        except OutdatedError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever Airflow's API says
            self.log.warning("XComs are not stored (%s): %s", ", ".join(values), error)
            self._unstored = {**self._unstored, **values}
            is_stored = False
        else:
            unstored = self._unstored.items()
            self._unstored = {key: value for key, value in unstored if key not in values}
            is_stored = True
        triggerer_health().stores_xcoms = is_stored
        return is_stored

    async def _was_connected(self) -> bool:
        """Whether this triggerer, or one before, has launched a run of the task."""
        if self._run_id is not None or self._has_orphan:
            return True
        with suppress(Exception):  # whatever Airflow's API says
            return await in_thread(recorded_run_id, self.task_instance) is not None
        return False

    # -- canceling the run ---------------------------------------------------------------------

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
            self.launched_at = latest_launch_of_recorded_run(time.time())

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
        """Whether the user has given an idempotency token; here not."""
        return False

    def _retry_finds_run(self) -> bool:
        """Whether a retry follows the active run of the attempt before; here it does."""
        return True

    # -- the end of the task -------------------------------------------------------------------

    async def _stop_starting(self) -> dict[str, Any]:
        """Cancel the run after ``execution_timeout``, unless it has succeeded; return the payload.

        The run's id may not be known yet. Once begun, all goes on if Airflow ends the trigger.
        """
        # A retry may follow the run.
        await self._stop_if_outdated()
        succeeded: list[dict[str, Any]] = []

        async def stop() -> None:
            if (payload := await self._success_until_deadline()) is not None:
                succeeded.append(payload)
            elif self.cancel_on_kill and self._may_have_run():
                await self._find_and_cancel("execution_timeout is over")

        await asyncio.wait({start_in_background(stop())}, timeout=_CANCEL_SECONDS)
        if succeeded:
            return succeeded[0]
        if self._run_id is not None:
            return run_payload({"run_id": self._run_id}, timed_out="execution_timeout")
        return {"run_id": None, "error": "execution_timeout is over"}

    async def _success_until_deadline(self) -> dict[str, Any] | None:
        """Return the event's payload if the run has succeeded; None if not, or if it is not known.

        The trigger has not followed it yet: its XComs waited for those of other tasks.
        """
        if self._run_id is None:
            return None
        run = await self._read_once_more(self._run_id)
        payload = run_payload(run)
        if not RunState.from_run(run).is_terminal or not self._succeeded(payload):
            return None
        xcoms = {JOB_ID_KEY: run.get("job_id"), RUN_PAGE_URL_KEY: run.get("run_page_url")}
        if not self._is_recorded:
            xcoms[RUN_ID_KEY] = self._run_id
        missing = {key: value for key, value in xcoms.items() if value is not None}
        self._unstored = {**missing, **self._unstored}
        return payload

    def _run_xcoms(self, run: Run) -> dict[str, Any]:
        """Return those that could not be stored before."""
        return dict(self._unstored)

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

"""Triggers that must not go on where a later attempt of their task has begun.

A triggerer may be paused, such as with its machine. Another one then takes over its triggers, and
ends their tasks. When the paused one goes on, it does not know that.
"""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_jobs_provider.airflow_compat.triggerer_health import (
    PAUSE_SECONDS,
    triggerer_health,
)
from airflow_jobs_provider.triggers.base import OutdatedError
from airflow_jobs_provider.triggers.wait import WaitForRunTrigger

if TYPE_CHECKING:
    from airflow.triggers.base import TriggerEvent

    from airflow_jobs_provider.api.schema.types import Run
    from airflow_jobs_provider.run_result import RunResult

__all__ = ["StopsIfOutdated", "wait_for_cancel"]


class StopsIfOutdated(WaitForRunTrigger):
    """Base class of the triggers that stop where a later attempt of their task has begun."""

    # Airflow was asked then, on the monotonic clock; None for never.
    _checked_at: float | None = None
    # Whether Airflow said then that a later attempt has begun.
    _is_over = False

    def _begin_checking(self) -> None:
        """Take this attempt for the latest one, unless the triggerer was paused before."""
        self._checked_at = time.monotonic() - PAUSE_SECONDS

    def _may_be_outdated(self) -> bool:
        """Whether a later attempt may have begun, so that Airflow has to be asked."""
        assert self._checked_at is not None
        return triggerer_health().may_run_outdated(self._checked_at)

    async def _stop_if_outdated(self) -> None:
        """Go no further if a later attempt has begun while this triggerer was paused.

        If Airflow does not tell, go on.
        """
        is_outdated = False
        with suppress(Exception):  # whatever Airflow's API says
            is_outdated = await self._is_outdated()
        if is_outdated:
            await wait_for_cancel()

    async def _raise_if_outdated(self) -> None:
        """Raise an error in place of :meth:`_stop_if_outdated`, such as in a rate limit.

        :raises OutdatedError: a later attempt has begun.
        :raises Exception: Airflow does not tell.
        """
        if await self._is_outdated():
            raise OutdatedError

    async def _is_outdated(self) -> bool:
        if not self._is_over and self._may_be_outdated():
            checked_at = time.monotonic()
            self._is_over = await self._has_later_attempt()
            self._checked_at = checked_at
        return self._is_over

    async def _stop_waiting(self, run: Mapping[str, Any], timed_out: str) -> dict[str, Any]:
        """Cancel the run, unless a later attempt has begun: that may follow it."""
        await self._stop_if_outdated()
        return await super()._stop_waiting(run, timed_out)

    async def _read_result(self, run: Run) -> RunResult:
        """Read the output; stop if a later attempt has begun while this triggerer was paused."""
        result = await super()._read_result(run)
        await self._stop_if_outdated()
        return result

    async def _task_success_event(self, run: Run) -> TriggerEvent | None:
        """Return the event that ends the task; stop if a later attempt has begun meanwhile."""
        try:
            return await super()._task_success_event(run)
        except OutdatedError:
            # Not in the turn, for which the XComs of other tasks wait.
            await wait_for_cancel()
            raise

    async def _before_push(self) -> None:
        """Look again: the turn may come minutes later."""
        await self._raise_if_outdated()

    @abstractmethod
    async def _has_later_attempt(self) -> bool:
        """Ask Airflow whether a later attempt of the task has begun."""


async def wait_for_cancel() -> None:
    """Wait until Airflow cancels the trigger: it finds that another one has ended the task."""
    await asyncio.Event().wait()

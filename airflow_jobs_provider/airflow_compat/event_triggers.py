"""Triggers of asset events: how their events are handed to Airflow, and what they store there.

==================  =============================================================================
Airflow             What it gives
==================  =============================================================================
2.11                no triggers of asset events
3.0, 3.1, 3.2       a trigger yields events; nothing is stored for it
3.3                 a store for each asset; a confirmation of each event that is stored
==================  =============================================================================

In Airflow an event is first in the memory of the triggerer: it is stored about a second later. So
on 3.3 a position is stored only after Airflow has confirmed that all events before it are stored.
For that each trigger is a "shared stream" of its own: Airflow confirms events of such streams only.
"""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Hashable, Mapping, Sequence
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_jobs_provider.airflow_compat.lines import airflow_line
from airflow_jobs_provider.api.retry import async_sleep

if TYPE_CHECKING:
    from airflow.triggers.base import BaseEventTrigger
    from airflow.triggers.shared_stream import SharedStreamProducer
else:
    try:
        from airflow.triggers.base import BaseEventTrigger
    except ImportError:  # Airflow 2
        BaseEventTrigger = BaseTrigger

__all__ = ["AssetEventTrigger", "EventBatch"]

log = logging.getLogger(__name__)

# Events that Airflow is given before it has stored them. After five minutes it fails the trigger.
PORTION = 100
# Waits between two attempts to read a position.
FIRST_WAIT_SECONDS = 2.0
MAX_WAIT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class EventBatch:
    """Events, and the position after them.

    :ivar payloads: the payload of each event.
    :ivar position: what to store once Airflow has stored the events; None for nothing.
    """

    payloads: Sequence[Mapping[str, Any]]
    position: Mapping[str, Any] | None


class AssetEventTrigger(BaseEventTrigger):
    """Base class of a trigger that fires asset events, and continues where it has stopped."""

    def __init__(self) -> None:
        if not airflow_line().has_event_triggers:
            raise RuntimeError(
                f"{type(self).__name__} needs Airflow 3: Airflow 2 has no asset watchers"
            )
        super().__init__()  # type: ignore[no-untyped-call]

    @property
    @abstractmethod
    def position_key(self) -> str:
        """The key of the position in the store: another one for each watcher of an asset."""

    @abstractmethod
    def batches(self, stored: Sequence[Any]) -> AsyncGenerator[EventBatch, None]:
        """Yield events without an end.

        :param stored: the stored position, one for each asset of the watcher that has one.
        """

    # -- Airflow 3.0 to 3.2 --------------------------------------------------------------------

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield the events."""
        async with aclosing(self.batches(())) as batches:
            async for batch in batches:
                for payload in batch.payloads:
                    yield TriggerEvent(payload)

    # -- Airflow 3.3 ---------------------------------------------------------------------------

    def shared_stream_key(self) -> Hashable | None:
        """Return a key for this trigger alone."""
        if not self._stores():
            return None
        # Airflow makes the producer in a task that has a copy of this context.
        _starting.set(self)
        return type(self).__qualname__, self.trigger_id

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> SharedStreamProducer:  # noqa: ARG003
        """Return what gives Airflow the events of the trigger that is being started."""
        trigger = _starting.get()
        return airflow_line().event_producer(_Handover(trigger))

    async def filter_shared_stream(
        self, shared_stream: AsyncIterator[Any]
    ) -> AsyncIterator[TriggerEvent]:
        """Yield the events of each portion."""
        async for payloads in shared_stream:
            for payload in payloads:
                yield TriggerEvent(payload)

    def _stores(self) -> list[Any]:
        """Return the store of each asset that the trigger watches."""
        return airflow_line().asset_stores(self)

    async def read_positions(self) -> list[Any]:
        """Return what is stored for each asset; wait until Airflow answers.

        Without an answer nothing is assumed: the trigger would lose events, or repeat them.
        """
        seconds = FIRST_WAIT_SECONDS
        while True:
            try:
                values = [await store.aget(self.position_key) for store in self._stores()]
            except Exception as error:  # noqa: BLE001 - whatever Airflow's API says
                log.warning("The position of a watcher cannot be read yet: %s", error)
                await async_sleep(seconds)
                seconds = min(2 * seconds, MAX_WAIT_SECONDS)
            else:
                return [value for value in values if value is not None]

    async def write_position(self, position: Mapping[str, Any]) -> None:
        """Store a position for each asset. Where that fails, a later one will do.

        :param position: the position.
        """
        for store in self._stores():
            try:
                await store.aset(self.position_key, dict(position))
            except Exception as error:  # noqa: BLE001 - whatever Airflow's API says
                log.warning(
                    "The position of a watcher cannot be stored. After a restart of the triggerer "
                    "some of its events may come again: %s",
                    error,
                )


_starting: ContextVar[AssetEventTrigger] = ContextVar("starting_event_trigger")


class _Handover:
    """Gives Airflow the events of one trigger, and stores the position once Airflow has them.

    :param trigger: the trigger.
    """

    def __init__(self, trigger: AssetEventTrigger) -> None:
        self._trigger = trigger
        self._was_stored = asyncio.Event()

    async def open_stream(self) -> AsyncIterator[tuple[Any, Any]]:
        """Yield portions of events, each with the position to store after it or None.

        The next portion waits until Airflow has stored the one before.
        """
        stored = await self._trigger.read_positions()
        async with aclosing(self._trigger.batches(stored)) as batches:
            async for batch in batches:
                for start in range(0, max(1, len(batch.payloads)), PORTION):
                    portion = batch.payloads[start : start + PORTION]
                    is_last = start + PORTION >= len(batch.payloads)
                    self._was_stored.clear()
                    yield portion, batch.position if is_last else None
                    await self._was_stored.wait()

    async def advance(self, batch: Sequence[Any]) -> None:
        """Store the latest position, since Airflow has stored the events before it.

        :param batch: portions, each with its ``broker_payload`` and ``outcome``.
        :raises RuntimeError: Airflow could not store an event. The trigger begins again.
        """
        if any(item.outcome.failed for item in batch):
            raise RuntimeError("Airflow has not stored the events of a watcher")
        if (position := batch[-1].broker_payload) is not None:
            await self._trigger.write_position(position)
        self._was_stored.set()

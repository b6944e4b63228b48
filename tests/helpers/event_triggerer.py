"""A triggerer that runs triggers of asset events in this process, and that can be killed.

As in Airflow, an event is in the triggerer's memory first, and in the database at the next round.
On Airflow 3.3 the streams, the confirmations of events and the accessors of the stores are
Airflow's own. What its database has is a dict here.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import pytest

from airflow_jobs_provider.airflow_compat.lines import airflow_version

__all__ = ["HAS_STORE", "Database", "EventTriggerer", "restored"]

HAS_STORE = airflow_version() >= (3, 3)
ROUND_SECONDS = 1.0


@dataclass
class Database:
    """What Airflow stores.

    :ivar events: the payloads of the events, by the trigger's id.
    :ivar values: the values in the assets' stores, by asset and key.
    :ivar writes: how often a value was stored.
    :ivar is_down: whether the API answers no question about stores.
    """

    events: dict[int, list[Any]] = field(default_factory=dict)
    values: dict[tuple[str, str], Any] = field(default_factory=dict)
    writes: int = 0
    is_down: bool = False

    def run_ids(self, trigger_id: int = 1) -> list[int]:
        """Return the runs of a trigger's events."""
        return [payload["run_id"] for payload in self.events.get(trigger_id, [])]

    async def asend(self, message: Any) -> Any:
        """Answer a message as the supervisor does."""
        from airflow.sdk.exceptions import ErrorType
        from airflow.sdk.execution_time.comms import AssetStateStoreResult, ErrorResponse

        if self.is_down:
            return ErrorResponse(error=ErrorType.GENERIC_ERROR, detail={"status_code": 500})
        place = (message.name, message.key)
        if type(message).__name__ == "SetAssetStateStoreByName":
            self.values[place] = message.value
            self.writes += 1
            return None
        if place not in self.values:
            return ErrorResponse(error=ErrorType.ASSET_STORE_NOT_FOUND)
        return AssetStateStoreResult(value=self.values[place])


def restored(trigger: Any) -> Any:
    """Return a trigger as a triggerer makes it from what Airflow has stored of it."""
    from airflow.models.trigger import Trigger

    module: Any = import_module("airflow.serialization.serialized_objects")
    decoders = encoders = module
    if airflow_version() >= (3, 2):
        decoders = import_module("airflow.serialization.decoders")
        encoders = import_module("airflow.serialization.encoders")
    encode = getattr(encoders, "encode_trigger", None) or encoders._encode_trigger
    # The serialized DAG is JSON.
    encoded = json.loads(json.dumps(encode(trigger)))
    row = Trigger(classpath=encoded["classpath"], kwargs=encoded["kwargs"])
    path, _, name = row.classpath.rpartition(".")
    kwargs = {
        key: decoders.smart_decode_trigger_kwargs(value)
        for key, value in Trigger._decrypt_kwargs(row.encrypted_kwargs).items()
    }
    return getattr(import_module(path), name)(**kwargs)


class EventTriggerer:
    """One life of a triggerer.

    :param database: what Airflow has stored. It outlives the triggerer.

    :ivar stores_events: whether events get into the database.
    :ivar most_at_once: the most events that were in memory at the end of a round.
    """

    def __init__(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        self._database = database
        self._queue: list[tuple[int, int | None, Any]] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self._streams: Any = None
        self.stores_events = True
        self.most_at_once = 0
        if HAS_STORE:
            from airflow.sdk.execution_time import task_runner
            from airflow.triggers.shared_stream import SharedStreamManager

            self._streams = SharedStreamManager(_now=asyncio.get_running_loop().time)
            monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", database, raising=False)
        self._tasks.append(asyncio.create_task(self._rounds()))

    def start(
        self, trigger: Any, trigger_id: int = 1, assets: tuple[str, ...] = ("asset",)
    ) -> None:
        """Start a trigger that watches assets. Where it fails, it is started again."""
        self._tasks.append(asyncio.create_task(self._run(trigger, trigger_id, assets)))

    async def kill(self) -> None:
        """End everything at once. What is in memory is lost."""
        self._queue.clear()
        self.stores_events = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._streams is not None:
            await self._streams.stop_all()

    async def _run(self, trigger: Any, trigger_id: int, assets: tuple[str, ...]) -> None:
        while True:
            made = restored(trigger)
            made.trigger_id = trigger_id
            if HAS_STORE:
                from airflow.sdk import Asset
                from airflow.sdk.execution_time.context import AssetStateStoreAccessors

                made.asset_state_store = AssetStateStoreAccessors(
                    inlets=[Asset(name=name, uri=f"x://{name}") for name in assets]
                )
            try:
                await self._run_once(made)
            except Exception:  # noqa: BLE001 - whatever it is, Airflow starts the trigger again
                await asyncio.sleep(ROUND_SECONDS)

    async def _run_once(self, trigger: Any) -> None:
        key = trigger.shared_stream_key() if HAS_STORE else None
        events: AsyncIterator[Any] = trigger.run()
        if key is not None:
            stream = self._streams.subscribe(
                trigger_id=trigger.trigger_id, trigger=trigger, key=key
            )
            events = trigger.filter_shared_stream(stream)
        try:
            async for event in events:
                number = None
                if key is not None:
                    number = self._streams.bind_pending_event(
                        trigger_id=trigger.trigger_id, key=key
                    )
                self._queue.append((trigger.trigger_id, number, event.payload))
        finally:
            if key is not None:
                await self._streams.unsubscribe(trigger.trigger_id, key)
            await trigger.cleanup()

    async def _rounds(self) -> None:
        confirmed: list[int] = []
        while True:
            await asyncio.sleep(ROUND_SECONDS)
            if self._streams is not None and confirmed:
                self._streams.confirm_persisted(confirmed)
            confirmed = []
            self.most_at_once = max(self.most_at_once, len(self._queue))
            if not self.stores_events:
                continue
            for trigger_id, number, payload in self._queue:
                self._database.events.setdefault(trigger_id, []).append(payload)
                if number is not None:
                    confirmed.append(number)
            self._queue.clear()

"""Airflow 3.3: a trigger is told when a user acts, and the triggerer renders templates.

A trigger of asset events has a store for each asset, and is told which events are stored.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from airflow_jobs_provider.airflow_compat.lines.airflow_3_2 import Airflow32

if TYPE_CHECKING:
    from airflow.triggers.shared_stream import AdvanceItem, SharedStreamProducer

__all__ = ["LINE", "Airflow33"]


class Airflow33(Airflow32):
    """Airflow 3.3."""

    calls_on_kill = True
    renders_in_triggerer = True

    def asset_stores(self, trigger: Any) -> list[Any]:
        """Return one for each asset. Airflow's own object for all of them writes only to one."""
        stores: Any = trigger.asset_state_store
        if stores is None:
            return []
        return [*stores._by_name.values(), *stores._by_uri.values()]  # noqa: SLF001

    def event_producer(self, handover: Any) -> SharedStreamProducer:
        """Return a producer that calls the object."""
        from airflow.triggers.shared_stream import SharedStreamProducer

        class Producer(SharedStreamProducer):
            """Calls the object."""

            def open_stream(self) -> AsyncIterator[tuple[Any, Any]]:
                stream: AsyncIterator[tuple[Any, Any]] = handover.open_stream()
                return stream

            async def advance(self, batch: Sequence[AdvanceItem]) -> None:
                await handover.advance(batch)

        return Producer()

    def pending_messages(self) -> dict[int, Any] | None:
        """Return those for which the triggerer has a future, in the order of sending."""
        from airflow.sdk.execution_time import task_runner

        supervisor: Any = getattr(task_runner, "SUPERVISOR_COMMS", None)
        pending: Any = getattr(supervisor, "_pending", None)
        return pending if isinstance(pending, dict) else None

    def initialize_stats(self) -> None:
        """Initialize it as a task's process does. The triggerer initializes a copy of its own."""
        from airflow.providers.common.compat.sdk import conf
        from airflow.sdk._shared.observability.metrics import stats
        from airflow.sdk.observability.metrics.stats_utils import get_stats_factory

        if stats._factory is None:  # noqa: SLF001 - Airflow does not tell otherwise
            stats.initialize(
                factory=get_stats_factory(),
                export_legacy_names=conf.getboolean("metrics", "legacy_names_on", fallback=True),
            )


LINE = Airflow33()

"""An observer of a watch of ended runs: what it is told, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
from airflow_jobs_provider.triggers.event_arguments import RunEventTriggerArguments
from airflow_jobs_provider.triggers.polling.ended_runs import Watch
from airflow_jobs_provider.triggers.polling.registry import get_poller
from airflow_jobs_provider.triggers.polling.watch_position import WatchPosition
from airflow_jobs_provider.triggers.run_selection import RunSelection
from tests.helpers.timeless_workspace import Workspace

__all__ = ["PERIOD", "Observer"]

# The polling period of watches, in seconds.
PERIOD = 30.0


class Observer:
    """Follows a watch, and notes what it is told.

    :ivar told: the runs, in this order.
    :ivar ends: when each was told, in seconds of the clock.
    :ivar position: the latest position.
    :ivar positions_at: when each position was told, in seconds of the clock.
    """

    def __init__(
        self,
        workspace: Workspace,
        *,
        look_back: float = 0,
        position: Mapping[str, Any] | None = None,
        period: float = PERIOD,
        **chosen: Any,
    ) -> None:
        self.workspace = workspace
        arguments = RunEventTriggerArguments(**(chosen or {"all_runs": True}))
        begin = WatchPosition.from_stored([position])
        if begin is None:
            begin = WatchPosition.at_first_start(workspace.now(), look_back)
        self.watch = Watch(RunSelection.from_arguments(arguments), period, begin)
        self.told: list[int] = []
        self.runs: list[Any] = []
        self.ends: dict[int, float] = {}
        self.position: Mapping[str, Any] = {}
        self.positions_at: list[float] = []
        self.task = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        async for batch in get_poller(DatabricksJobsHook()).ended_runs.follow(self.watch):
            self.position = batch.position
            self.positions_at.append(self.workspace.now())
            self.runs += batch.runs
            for one in batch.runs:
                self.told.append(one.run["run_id"])
                self.ends[one.run["run_id"]] = self.workspace.now()

    async def stop(self) -> Mapping[str, Any]:
        """End the watch, and return its latest position."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        return self.position

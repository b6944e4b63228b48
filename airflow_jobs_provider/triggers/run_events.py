"""DatabricksJobRunEventTrigger: an asset event each time a run ends (Airflow 3)."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from airflow_jobs_provider.airflow_compat.event_triggers import AssetEventTrigger, EventBatch
from airflow_jobs_provider.airflow_compat.storable_text import replace_unstorable
from airflow_jobs_provider.api.retry import async_sleep
from airflow_jobs_provider.api.states import RunState
from airflow_jobs_provider.api.text import error_text
from airflow_jobs_provider.triggers.event_arguments import RunEventTriggerArguments
from airflow_jobs_provider.triggers.run_selection import RunSelection

if TYPE_CHECKING:
    from airflow_jobs_provider.triggers.polling.ended_runs import EndedRun

__all__ = ["DatabricksJobRunEventTrigger"]

log = logging.getLogger(__name__)

# Waits after an error that ends the poller, such as a connection that does not exist.
FIRST_WAIT_SECONDS = 30.0
MAX_WAIT_SECONDS = 600.0
# Of the arguments: ten years. Infinity would be an error only when the trigger runs.
MAX_SECONDS = 10 * 365 * 86_400.0
# Of a listed run, as the service gives them. Its state is divided.
_FIELDS = (
    "run_name",
    "run_page_url",
    "run_type",
    "start_time",
    "end_time",
    "setup_duration",
    "execution_duration",
    "cleanup_duration",
    "run_duration",
    "number_in_job",
    "original_attempt_run_id",
    "attempt_number",
    "creator_user_name",
)


class DatabricksJobRunEventTrigger(RunEventTriggerArguments, AssetEventTrigger):
    """Fire an asset event each time a run of a job ends, whoever has started the run.

    For an ``AssetWatcher`` of Airflow 3::

        trigger = DatabricksJobRunEventTrigger(job_id=42, states=["SUCCESS"])
        asset = Asset("sales", watchers=[AssetWatcher(name="sales_runs", trigger=trigger)])

    A DAG with ``schedule=[asset]`` then starts after each such run. The event's
    ``extra["payload"]`` has the run: ``run_id``, ``job_id``, ``run_name``, ``life_cycle_state``,
    ``result_state``, ``state_message``, ``start_time`` and ``end_time`` in milliseconds,
    ``run_page_url`` and what else the service lists, without settings and parameters.

    All triggers of one connection in a triggerer share one reading of the workspace's lists in each
    polling period: the active runs, and the runs that have ended since the last time. The waits of
    deferred tasks take their runs from the same pages. A run has ended when it has left the list of
    active runs, or is on the list of ended runs. So it does not matter when it had started, and a
    run that is repaired is reported each time it ends. A run that is deleted while it is active is
    not reported.

    Each run that ends is reported, across restarts and outages. On Airflow 3.3 the trigger stores
    how far it has come in the asset's state store, after Airflow has stored the events. Before 3.3
    nothing is stored: at each start, runs are reported that have ended within
    ``look_back_seconds``. An event may come twice after a crash, or when another triggerer takes
    the trigger over. Its ``run_id`` and ``end_time`` are then the same.

    An outage, a refusal or a missing connection is logged and waited out. It does not end the
    trigger.

    The arguments and their defaults are those of
    :class:`~airflow_jobs_provider.triggers.event_arguments.RunEventTriggerArguments`.

    :raises TypeError: an argument is wrong.
    :raises RuntimeError: Airflow is older than 3.0.
    """

    # The public name, which Airflow stores.
    __module__ = "airflow_jobs_provider.triggers.jobs"

    def __post_init__(self) -> None:
        AssetEventTrigger.__init__(self)
        self._selection = RunSelection.from_arguments(self)
        for name, least in (("polling_period_seconds", 1), ("look_back_seconds", 0)):
            value = getattr(self, name)
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not is_number or not least <= value <= MAX_SECONDS:
                raise TypeError(
                    f"{name} must be a number from {least} to {MAX_SECONDS:.0f}, not {value!r}"
                )

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments that make this trigger again."""
        cls = type(self)
        return f"{cls.__module__}.{cls.__qualname__}", self.as_kwargs()

    @property
    def position_key(self) -> str:
        """The key of the position: one for each connection and selection.

        It stays the same when the polling period or the look-back change.
        """
        watched = [self.databricks_conn_id, self._selection.as_json()]
        digest = hashlib.sha256(json.dumps(watched, sort_keys=True).encode()).hexdigest()
        return f"databricks_job_runs_{digest[:32]}"

    async def batches(self, stored: Sequence[Any]) -> AsyncGenerator[EventBatch, None]:
        """Yield the events of the runs that end.

        :param stored: the position, where one is stored.
        """
        # Not when a DAG is parsed.
        from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
        from airflow_jobs_provider.triggers.polling.ended_runs import Watch
        from airflow_jobs_provider.triggers.polling.registry import get_poller
        from airflow_jobs_provider.triggers.polling.watch_position import WatchPosition

        position = WatchPosition.from_stored(stored)
        if position is None:
            position = WatchPosition.at_first_start(time.time(), self.look_back_seconds)
        watch = Watch(self._selection, self.polling_period_seconds, position)
        wait_seconds = FIRST_WAIT_SECONDS
        while True:
            hook = DatabricksJobsHook(self.databricks_conn_id, caller=type(self).__qualname__)
            try:
                async with aclosing(get_poller(hook).ended_runs.follow(watch)) as followed:
                    async for batch in followed:
                        wait_seconds = FIRST_WAIT_SECONDS
                        yield EventBatch([self._payload(one) for one in batch.runs], batch.position)
            except Exception as error:  # noqa: BLE001 - nobody would start the trigger again in time
                log.warning(
                    "The runs of connection %s cannot be watched; the next try is in %.0f s: %s",
                    self.databricks_conn_id,
                    wait_seconds,
                    error_text(error),
                )
            await async_sleep(wait_seconds)
            wait_seconds = min(2 * wait_seconds, MAX_WAIT_SECONDS)

    def _payload(self, ended: EndedRun) -> Mapping[str, Any]:
        run, state = ended.run, RunState.from_run(ended.run)
        payload: dict[str, Any] = {
            "run_id": run["run_id"],
            "job_id": run.get("job_id"),
            "life_cycle_state": state.life_cycle_state,
            "result_state": state.result_state or None,
            "state_message": state.state_message,
        }
        payload |= {name: run[name] for name in _FIELDS if run.get(name) is not None}
        if ended.job.name is not None:
            payload["job_name"] = ended.job.name
            payload["job_tags"] = dict(ended.job.tags)
        payload["databricks_conn_id"] = self.databricks_conn_id
        return replace_unstorable(payload)

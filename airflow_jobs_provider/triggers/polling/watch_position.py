"""How far a watch of ended runs has come: what Airflow stores, so that a restart loses nothing.

Lists of runs are in order of start, not of end. So one time is not enough to continue from. A
position has:

* ``ended_after``: a run that ended later may not have been reported yet. It is some minutes before
  the latest time in the lists, since the service may show a run some time after it has ended.
* ``reported``: the runs that were reported and ended later than that, with the time of their end.
* ``active``: runs that were active. Whenever they have ended, they are reported.
* ``started_from``: all other runs that may still be reported have started at this time or later.

Times are the service's own, in milliseconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from airflow_jobs_provider.api.ids import parse_id
from airflow_jobs_provider.triggers.polling.window_sweep import start_of

__all__ = [
    "FIRST_DEPTH_SECONDS",
    "MARGIN_MS",
    "MAX_BYTES",
    "ListsRead",
    "WatchPosition",
    "end_of",
    "max_reported",
]

# The service may show the end of a run so much later than its end_time.
MARGIN_MS = 600_000
# At a first start, runs are looked for that started so long before the look-back.
FIRST_DEPTH_SECONDS = 86_400
# Airflow warns of each longer value, by default ([state_store] max_value_storage_bytes).
MAX_BYTES = 65_535
# The largest parts of a position as JSON: an active run, a reported run, and all else. Ids have up
# to 19 digits, times have 13.
_ACTIVE_BYTES, _REPORTED_BYTES, _OTHER_BYTES = 21, 38, 100


@dataclass(frozen=True, slots=True)
class ListsRead:
    """What one read of all lists has shown: the part of a position that watches share."""

    ended_after: int
    started_from: int
    active: frozenset[int]


@dataclass(slots=True)
class WatchPosition:
    """The position of one watch.

    :ivar ended_after: runs that ended later than this may not have been reported yet.
    :ivar started_from: earliest start of the runs that may still be reported, but ``active`` ones.
    :ivar active: runs that are reported when they have ended, whenever that was.
    :ivar reported: the end of each run that was reported and ended after ``ended_after``.
    :ivar is_first: whether nothing was stored before: the position is the look-back.
    """

    ended_after: int
    started_from: int
    active: frozenset[int] = frozenset()
    reported: dict[int, int] = field(default_factory=dict)
    is_first: bool = False

    @classmethod
    def at_first_start(cls, now: float, look_back_seconds: float) -> Self:
        """Return the position of a watch without a stored one.

        :param now: the time, in seconds since the epoch.
        :param look_back_seconds: runs that ended within so many seconds before are reported.
        """
        ended_after = now - look_back_seconds
        return cls(
            ended_after=int(ended_after * 1000),
            started_from=int((ended_after - FIRST_DEPTH_SECONDS) * 1000),
            is_first=True,
        )

    @classmethod
    def from_stored(cls, values: Iterable[Any]) -> Self | None:
        """Return the position that was stored last; None if there is none.

        :param values: what is stored for each asset of the watcher. What is no position counts as
            nothing.
        """
        positions = [position for value in values if (position := cls._parse(value)) is not None]
        return max(positions, key=lambda position: position.ended_after, default=None)

    @classmethod
    def _parse(cls, value: Any) -> Self | None:
        if not isinstance(value, Mapping):
            return None
        try:
            return cls(
                ended_after=int(value["ended_after"]),
                started_from=int(value["started_from"]),
                active=frozenset(int(run_id) for run_id in value["active"]),
                reported={int(run_id): int(end) for run_id, end in value["reported"].items()},
            )
        except (AttributeError, KeyError, TypeError, ValueError):
            return None

    def as_json(self) -> dict[str, Any]:
        """Return what is stored: plain JSON, without anything but ids and times."""
        return {
            "ended_after": self.ended_after,
            "started_from": self.started_from,
            "active": sorted(self.active),
            "reported": {str(run_id): end for run_id, end in self.reported.items()},
        }

    def is_unreported(self, run: Mapping[str, Any], active: Collection[int] = ()) -> bool:
        """Whether a run that has ended was not reported up to here.

        :param run: the run.
        :param active: further runs that were active; default none.
        """
        run_id, end = run["run_id"], end_of(run)
        if self.reported.get(run_id) == end:
            return False
        return end > self.ended_after or run_id in self.active or run_id in active

    def add_unreported(self, run_ids: Collection[int]) -> None:
        """Keep runs that have ended and are still to be reported, until the position advances.

        :param run_ids: the runs.
        """
        self.active |= set(run_ids)

    def advance(self, lists: ListsRead) -> None:
        """Continue from lists that were read, once all that they show has been reported.

        :param lists: what they have shown.
        """
        self.ended_after = max(self.ended_after, lists.ended_after)
        self.started_from, self.active = lists.started_from, lists.active
        self.is_first = False
        latest = sorted(self.reported.items(), key=lambda item: item[1], reverse=True)
        limit = max_reported(len(self.active))
        if len(latest) > limit:
            self.ended_after = max(self.ended_after, latest[limit][1])
        self.reported = {run_id: end for run_id, end in latest if end > self.ended_after}


def max_reported(active: int) -> int:
    """Return how many reported runs a position may have. If there are more, the margin is shorter.

    A workspace may have 10,000 new runs an hour. Those are 1,667 within the margin.

    :param active: the number of its active runs.
    """
    return max(0, MAX_BYTES - _OTHER_BYTES - _ACTIVE_BYTES * active) // _REPORTED_BYTES


def end_of(run: Mapping[str, Any]) -> int:
    """Return when a run has ended. Without an ``end_time`` it is computed from its durations.

    :param run: the run.
    """
    if end := parse_id(run.get("end_time")):
        return end
    durations = ("setup_duration", "execution_duration", "cleanup_duration")
    parts = sum(parse_id(run.get(name)) or 0 for name in durations)
    return start_of(run) + max(parts, parse_id(run.get("run_duration")) or 0)

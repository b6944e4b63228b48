"""Timeline of a run: a row for each task, a bar for each attempt.

The time between a run's end and its repair, in which nothing ran, may be much longer than the run.
It is cut down to a small gap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from airflow_jobs_provider.local.engine.model import Run, now_millis, task_key_of
from airflow_jobs_provider.local.pages.states import StateKind, attempt_of, kind_of, kind_of_states

__all__ = ["Bar", "Repair", "Row", "Timeline", "repairs_of", "timeline_of"]

# Positions are thousandths of the width.
_WIDTH = 1000.0
_MIN_BAR = 4.0
_GAP = 30.0
# Shorter pauses are shown as they are.
_CUT_MILLIS = 10_000


@dataclass(frozen=True, slots=True)
class Bar:
    """An attempt: which run, its state, and where its bar is."""

    run_id: int
    name: str
    kind: StateKind
    millis: int
    x: float
    width: float


@dataclass(frozen=True, slots=True)
class Row:
    """A task and the bars of its attempts."""

    label: str
    run_id: int
    kind: StateKind
    bars: Sequence[Bar]


@dataclass(frozen=True, slots=True)
class Timeline:
    """The rows, when the first bar begins and the last one ends, and the pauses that are cut."""

    rows: Sequence[Row]
    start: int
    end: int
    gaps: Sequence[tuple[float, int]]


@dataclass(frozen=True, slots=True)
class Repair:
    """The original run, or a repair of it, with the number of its task runs."""

    name: str
    kind: StateKind
    start: int
    millis: int | None
    tasks: int


@dataclass(frozen=True, slots=True)
class _Attempt:
    run_id: int
    name: str
    kind: StateKind
    start: int
    end: int


def timeline_of(run: Run, children: Sequence[Run], attempts: Sequence[Run]) -> Timeline | None:
    """Return the timeline of a run; None if nothing has started.

    :param children: the runs of its tasks, or of its iterations, with all attempts.
    :param attempts: the attempts at the run itself, used where it has no children.
    """
    by_row: dict[str, list[_Attempt]] = {}
    latest: dict[str, Run] = {}
    for one in children or attempts or [run]:
        label = _label(one)
        latest[label] = one
        by_row.setdefault(label, []).extend(_attempts_of(one))
    shown = [one for attempts_of_row in by_row.values() for one in attempts_of_row]
    if not shown:
        return None
    axis = _Axis(shown)
    rows = [
        Row(
            label,
            latest[label].run_id,
            kind_of(latest[label]),
            [axis.bar(one) for one in attempts_of_row],
        )
        for label, attempts_of_row in by_row.items()
    ]
    return Timeline(rows, axis.start, axis.end, axis.gaps)


def repairs_of(run: Run) -> list[Repair]:
    """Return the original run and its repairs; nothing if it was not repaired."""
    found = []
    for number, item in enumerate(run.history):
        end = item.get("end_time") or run.end_time
        millis = end - item["start_time"] if end else None
        kind = _kind_of_item(item, run)
        name = _name_of_item(number)
        found.append(Repair(name, kind, item["start_time"], millis, len(item["task_run_ids"])))
    return found


def _name_of_item(number: int) -> str:
    return f"repair {number}" if number else "original run"


def _label(run: Run) -> str:
    return f"{task_key_of(run)}[{run.input}]" if run.input is not None else task_key_of(run)


def _attempts_of(run: Run) -> list[_Attempt]:
    now = now_millis()
    if run.parent_run_id is None and run.history:
        # A run that is its own task's run: each repair is an attempt.
        return [
            _Attempt(
                run.run_id,
                _name_of_item(number),
                _kind_of_item(item, run),
                item["start_time"],
                item.get("end_time") or run.end_time or now,
            )
            for number, item in enumerate(run.history)
        ]
    kind = kind_of(run)
    if kind in {StateKind.QUEUED, StateKind.SKIPPED} or (
        kind is StateKind.WAITING and run.parent_run_id is not None
    ):
        return []
    name = f"attempt {attempt_of(run)}"
    return [_Attempt(run.run_id, name, kind, run.start_time, run.end_time or now)]


def _kind_of_item(item: Mapping[str, object], run: Run) -> StateKind:
    state = item.get("state")
    if not isinstance(state, Mapping):
        return kind_of(run)
    return kind_of_states(state["life_cycle_state"], state.get("result_state"))


class _Axis:
    """Maps times to positions, with long pauses cut."""

    def __init__(self, attempts: Iterable[_Attempt]) -> None:
        busy: list[list[int]] = []
        for one in sorted(attempts, key=lambda one: one.start):
            if busy and one.start - busy[-1][1] <= _CUT_MILLIS:
                busy[-1][1] = max(busy[-1][1], one.end)
            else:
                busy.append([one.start, max(one.start, one.end)])
        self.start, self.end = busy[0][0], busy[-1][1]
        total = sum(end - start for start, end in busy) or 1
        self._scale = (_WIDTH - _GAP * (len(busy) - 1)) / total
        self._parts: list[tuple[int, int, float]] = []
        self.gaps: list[tuple[float, int]] = []
        position = 0.0
        for index, (start, end) in enumerate(busy):
            if index:
                self.gaps.append((position + _GAP / 2, start - busy[index - 1][1]))
                position += _GAP
            self._parts.append((start, end, position))
            position += (end - start) * self._scale

    def bar(self, one: _Attempt) -> Bar:
        """Return the bar of an attempt."""
        left, right = self._position(one.start), self._position(max(one.start, one.end))
        width = max(_MIN_BAR, right - left)
        left = min(left, _WIDTH - width)
        return Bar(
            one.run_id,
            one.name,
            one.kind,
            max(0, one.end - one.start),
            round(left, 1),
            round(width, 1),
        )

    def _position(self, moment: int) -> float:
        for start, end, position in self._parts:
            if start <= moment <= end:
                return position + (moment - start) * self._scale
        return _WIDTH

"""Layout of a run's tasks as a graph from left to right, for an SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

__all__ = ["Edge", "Graph", "Node", "lay_out"]

# Wide enough for the 22 characters of a label that are shown, also where all are digits.
NODE_WIDTH, NODE_HEIGHT = 230, 46
_GAP_X, _GAP_Y, _MARGIN = 56, 18, 6


@dataclass(frozen=True, slots=True)
class Node:
    """A task: its key, and the upper left corner of its box."""

    key: str
    x: int
    y: int
    width: int = NODE_WIDTH
    height: int = NODE_HEIGHT


@dataclass(frozen=True, slots=True)
class Edge:
    """A dependency: the path of its line, and the outcome of a condition that it needs."""

    path: str
    x: int
    y: int
    outcome: str


@dataclass(frozen=True, slots=True)
class Graph:
    """The boxes, the lines, and the size of all."""

    nodes: Sequence[Node]
    edges: Sequence[Edge]
    width: int
    height: int


def lay_out(tasks: Sequence[Mapping[str, Any]]) -> Graph:
    """Return the graph of tasks (``task_key`` and ``depends_on`` of each).

    A task stands in the column after the last of those it depends on, and in its column near them.
    """
    above = _dependencies(tasks)
    column: dict[str, int] = {}
    row: dict[str, float] = {}
    for key in _in_order(above):
        column[key] = 1 + max((column.get(one, 0) for one in above[key]), default=-1)
    columns: list[list[str]] = [[] for _ in range(max(column.values(), default=-1) + 1)]
    for key in above:
        columns[column[key]].append(key)
    for keys in columns:
        given = {key: index for index, key in enumerate(keys)}
        keys.sort(key=lambda key: (_mean(above[key], row, given[key]), given[key]))
        row |= {key: index for index, key in enumerate(keys)}
    most = max((len(keys) for keys in columns), default=0)
    nodes = {
        key: Node(
            key,
            _MARGIN + index * (NODE_WIDTH + _GAP_X),
            # Each column in the middle of the tallest one.
            _MARGIN
            + int(row[key] * (NODE_HEIGHT + _GAP_Y))
            + (most - len(keys)) * (NODE_HEIGHT + _GAP_Y) // 2,
        )
        for index, keys in enumerate(columns)
        for key in keys
    }
    edges = [
        _edge(nodes[needed["task_key"]], nodes[task["task_key"]], needed.get("outcome") or "")
        for task in tasks
        for needed in task.get("depends_on") or []
        if needed["task_key"] in nodes
    ]
    width = 2 * _MARGIN + len(columns) * (NODE_WIDTH + _GAP_X) - _GAP_X
    height = 2 * _MARGIN + most * (NODE_HEIGHT + _GAP_Y) - _GAP_Y
    return Graph(list(nodes.values()), edges, max(width, 0), max(height, 0))


def _dependencies(tasks: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    keys = {task["task_key"] for task in tasks}
    return {
        task["task_key"]: [
            one["task_key"] for one in task.get("depends_on") or [] if one["task_key"] in keys
        ]
        for task in tasks
    }


def _in_order(above: Mapping[str, Sequence[str]]) -> list[str]:
    try:
        return list(TopologicalSorter(above).static_order())
    except CycleError:  # The API refuses it; a page must not fail where it did not.
        return list(above)


def _mean(keys: Sequence[str], row: Mapping[str, float], otherwise: float) -> float:
    known = [row[key] for key in keys if key in row]
    return sum(known) / len(known) if known else otherwise


def _edge(source: Node, target: Node, outcome: str) -> Edge:
    x1, y1 = source.x + source.width, source.y + source.height // 2
    x2, y2 = target.x, target.y + target.height // 2
    middle = (x1 + x2) // 2
    path = f"M{x1} {y1}C{middle} {y1} {middle} {y2} {x2} {y2}"
    return Edge(path, middle, (y1 + y2) // 2 - 4, outcome)

"""Changes each new cluster of a request: of the run or job, of tasks, loops and job clusters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

__all__ = ["has_new_cluster", "mapped", "with_each_cluster"]


def has_new_cluster(request: Mapping[str, Any]) -> bool:
    """Return whether a request has a ``new_cluster`` anywhere.

    :param request: the request of ``runs/submit`` or ``create``.
    """
    found: list[Mapping[str, Any]] = []

    def note(cluster: Mapping[str, Any]) -> dict[str, Any]:
        found.append(cluster)
        return dict(cluster)

    with_each_cluster(request, note)
    return bool(found)


def with_each_cluster(
    request: Mapping[str, Any],
    change: Callable[[Mapping[str, Any]], dict[str, Any]],
    *,
    but_of: str | None = None,
) -> dict[str, Any]:
    """Return a request with each ``new_cluster`` changed.

    :param request: the request of ``runs/submit`` or ``create``; it is not changed.
    :param change: returns the cluster to send in place of one that is given.
    :param but_of: a kind of task whose own cluster is not changed; default None.
    """

    def holder_with(holder: Mapping[str, Any]) -> dict[str, Any]:
        result = dict(holder)
        is_changed = but_of is None or holder.get(but_of) is None
        if is_changed and isinstance(holder.get("new_cluster"), Mapping):
            result["new_cluster"] = change(holder["new_cluster"])
        loop = holder.get("for_each_task")
        if isinstance(loop, Mapping) and isinstance(loop.get("task"), Mapping):
            result["for_each_task"] = {**loop, "task": holder_with(loop["task"])}
        return result

    result = holder_with(request)
    for name in ("tasks", "job_clusters"):
        if isinstance(request.get(name), (list, tuple)):
            result[name] = list(mapped(request[name], holder_with))
    return result


def mapped(
    items: list[Any] | tuple[Any, ...], change: Callable[[Mapping[str, Any]], dict[str, Any]]
) -> Iterator[Any]:
    """Yield the items, each map among them changed.

    :param items: the items, such as ``tasks``.
    :param change: returns the item to yield in place of a map.
    """
    return (change(item) if isinstance(item, Mapping) else item for item in items)

"""What both providers send for a workflow group: the job's definition, and its launch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tests.end_to_end.recording_proxy import Recorded

__all__ = ["differences", "group_requests", "request_table"]

_HEAD = "| Request | Field | Official | Here |\n| --- | --- | --- | --- |\n"
_MISSING = "not sent"
# What differs between two DAG runs in any case, and how it is shown.
_OF_ONE_RUN = {
    r"[0-9a-f]{64}": "64 hexadecimal digits",
    r"definition [0-9a-f]{16}": "definition 16 hexadecimal digits",
    r"\d{4}-\d\d-\d\dT[\d:.+]+": "the time",
}


def group_requests(sent: Iterable[Sequence[Recorded]]) -> dict[str, dict[str, Any]]:
    """Return ``create`` and ``run-now`` of each job that was created, by the job's name.

    :param sent: the requests to each workspace.
    """
    found: dict[str, dict[str, Any]] = {}
    for requests in sent:
        names: dict[Any, str] = {}
        for request in requests:
            endpoint = request.path.rpartition("/")[2]
            if endpoint == "create" and "job_id" in request.response:
                names[request.response["job_id"]] = request.body["name"]
                found[request.body["name"]] = {"create": request.body}
            elif endpoint == "run-now" and request.body.get("job_id") in names:
                body = {key: one for key, one in request.body.items() if key != "job_id"}
                found[names[request.body["job_id"]]]["run-now"] = body
    return found


def differences(official: Any, here: Any, path: str = "") -> Iterator[tuple[str, str, str]]:
    """Return field, official value and value here, where two requests differ.

    Whether an empty value is sent or not makes no difference to the service.
    """
    if _is_empty(official) and _is_empty(here):
        return
    if isinstance(official, Mapping) and isinstance(here, Mapping):
        for key in sorted(official.keys() | here.keys()):
            below = f"{path}.{key}" if path else key
            yield from differences(official.get(key), here.get(key), below)
    elif isinstance(official, list) and isinstance(here, list) and len(official) == len(here):
        for one, other in zip(_ordered(official), _ordered(here), strict=True):
            yield from differences(one, other, f"{path}[]")
    elif _shown(official) != _shown(here):
        yield path, _shown(official), _shown(here)


def request_table(
    official: Mapping[str, Any], here: Mapping[str, Any], names: Iterable[str]
) -> str:
    """Return the table of docs/migrating.md: what differs in the requests of any group.

    :param official: the result of :func:`group_requests` for the official provider.
    :param here: that for this package.
    :param names: the names of the groups' jobs.
    """
    rows: dict[tuple[str, ...], None] = {}
    for name in names:
        for endpoint in ("create", "run-now"):
            one, other = official[name].get(endpoint), here[name].get(endpoint)
            for field, *values in differences(one, other):
                rows[(f"`{endpoint}`", f"`{field}`", *values)] = None
    return _HEAD + "".join(f"| {' | '.join(row)} |\n" for row in sorted(rows))


def _is_empty(value: Any) -> bool:
    return value in (None, "", 0, [], {})


def _ordered(items: list[Any]) -> list[Any]:
    return sorted(items, key=_sort_key)


def _shown(value: Any) -> str:
    if _is_empty(value):
        return _MISSING
    text = json.dumps(value)
    for pattern, words in _OF_ONE_RUN.items():
        text = re.sub(pattern, words, text)
    return f"`{text}`"


def _sort_key(item: Any) -> str:
    is_task = isinstance(item, Mapping) and "task_key" in item
    return json.dumps(item["task_key"] if is_task else item, sort_keys=True)

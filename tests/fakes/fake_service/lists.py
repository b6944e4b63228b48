"""Requests as the fake service sees them, and the pages of its lists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.fake_service.answers import bad_request

__all__ = ["Lists", "Seen"]


@dataclass(frozen=True)
class Seen:
    """A request as it came in.

    :ivar client_port: the port of the client's end of the connection.
    """

    endpoint: str
    parameters: dict[str, Any]
    authorization: str
    version: str = "2.0"
    headers: dict[str, str] = field(default_factory=dict)
    client_port: int = 0


@dataclass
class Lists:
    """How the service cuts its lists into pages.

    :ivar largest_limit: items on a page at the most; None for 1000 in version 2.0 and 25 later.
    :ivar last_offset: the highest offset that is allowed.
    :ivar cut_first: whether a page is cut before it is filtered, as the real service does it.
    :ivar hidden: ids that are left out of each page, once it is cut.
    """

    largest_limit: int | None = None
    last_offset: int = 10_000
    cut_first: bool = False
    hidden: set[int] = field(default_factory=set)

    def page(
        self, name: str, items: list[dict[str, Any]], wanted: Callable[[Any], bool], seen: Seen
    ) -> tuple[int, dict[str, Any]]:
        """Answer a page; from 2.1 on the next one has a token."""
        is_old, parameters = seen.version == "2.0", seen.parameters
        largest = self.largest_limit or (1000 if is_old else 25)
        limit = int(parameters.get("limit", 20)) or largest
        offset = int(parameters.get("page_token") or parameters.get("offset") or 0)
        if limit > largest:
            return bad_request(f"Invalid limit {limit} - it has to be no more than {largest}.")
        if "page_token" not in parameters and offset > self.last_offset:
            return bad_request(
                f"The supplied offset {offset} has exceeded the value of {self.last_offset} "
                "allowed for this parameter. Please use the page_token parameter"
            )
        if not self.cut_first:
            items = [item for item in items if wanted(item)]
        page = [item for item in items[offset : offset + limit] if wanted(item)]
        answer: dict[str, Any] = {name: page} if page else {}
        has_more = offset + limit < len(items)
        if is_old:
            answer["has_more"] = has_more
        elif has_more:
            answer["next_page_token"] = str(offset + limit)
        return 200, answer

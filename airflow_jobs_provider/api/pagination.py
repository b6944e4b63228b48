"""Reads lists page by page.

* The service filters items after it has cut a page. So a page may hold fewer items than its limit,
  or none, although more follow. Only ``next_page_token`` and ``has_more`` show the end.
* The next page begins at the token. Without a token it begins after as many items as were received,
  or after the limit if none were. Pages may overlap, but leave no gap. Repeated items are dropped
  by their id.
* The largest limit depends on service and version. A refused limit is replaced by the largest one
  that the error names.
* A refused offset is replaced by the page tokens of a later version, unless the connection has an
  ``api_version``.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from airflow_jobs_provider.api.calls import JOBS_SERVICE
from airflow_jobs_provider.api.errors import (
    BadRequestError,
    ConflictError,
    NotFoundError,
    UnexpectedResponseError,
)
from airflow_jobs_provider.api.versions import LATEST_API_VERSION

if TYPE_CHECKING:
    from airflow_jobs_provider.api.calls import Call, Page

__all__ = [
    "DEFAULT_LIMIT",
    "MAX_PAGES_WITHOUT_ITEMS",
    "Paginator",
    "read_all_items",
    "read_first_items",
]

T = TypeVar("T")

# Items on a page if the call has no limit, or 0 (reference: "Runs list", limit).
DEFAULT_LIMIT = 20
# Consecutive pages without new items, as in a list of 10,000 items that the caller may not see.
MAX_PAGES_WITHOUT_ITEMS = 1000


class Paginator(Generic[T]):
    """Produces the calls for the pages of a list, and drops repeated items.

    :param call: the call for the first page.

    :ivar offset: number of items before the next page.
    :ivar limit: items on a page at most; None for the service's default.
    :ivar token: token of the next page; None if pages go by offset.
    :ivar is_exhausted: whether the last page was read.
    """

    def __init__(self, call: Call[Page[T]]) -> None:
        parameters = dict(call.parameters)
        self.offset = int(parameters.pop("offset", None) or 0)
        self.limit: int | None = parameters.pop("limit", None)
        self.token: str | None = parameters.pop("page_token", None)
        self.is_exhausted = False
        # All pages come from one version, also those with a page_token.
        version = call.api_version()
        self._call = call._replace(parameters=parameters, default_api_version=version)
        self._seen: set[int | str] = set()
        self._tokens: set[str] = set()
        # The first offset of each page, by the ids on it.
        self._places: dict[tuple[int | str, ...], int] = {}
        self._pages_without_items = 0
        self._refused_offset: BadRequestError | None = None

    def call(self) -> Call[Page[T]]:
        """Return the call for the next page."""
        place: dict[str, Any] = {}
        if self.token is not None:
            place["page_token"] = self.token
        elif self.offset:
            place["offset"] = self.offset
        if self.limit is not None:
            place["limit"] = self.limit
        return self._call.with_parameters(**place)

    def next_page(self) -> Generator[Any, Any, list[T]]:
        """Read the next page and return its new items; a workflow.

        :raises UnexpectedResponseError: the list does not advance.
        """
        while True:
            try:
                page: Page[T] = yield self.call()
            except BadRequestError as error:
                if not self.reduce_limit(error):
                    self._restart_with_tokens(error)
            else:
                return self.add_page(page)

    def add_page(self, page: Page[T]) -> list[T]:
        """Take the result of :meth:`call` and return its new items.

        :param page: the page.
        :raises UnexpectedResponseError: the list does not advance.
        """
        ids = tuple(page.ids)
        new: list[T] = []
        for item_id, item in zip(ids, page.items, strict=True):
            if item_id not in self._seen:
                self._seen.add(item_id)
                new.append(item)
        self.is_exhausted = page.token is None and not page.has_more
        if not self.is_exhausted:
            self._check_progress(ids, page, has_new=bool(new))
            self._advance(len(ids), page)
        return new

    def seek(self, offset: int) -> None:
        """Continue from an offset, for a caller that knows better how far the last page reached.

        :param offset: number of items before the next page.
        """
        self.offset, self.is_exhausted = max(0, offset), False

    def reduce_limit(self, error: BadRequestError) -> bool:
        """Reduce the limit if an error is about it; return whether it was reduced.

        :param error: the error of :meth:`call`.
        """
        if isinstance(error, (NotFoundError, ConflictError)) or self._call.service != JOBS_SERVICE:
            return False
        smaller = _smaller_limit(error.api_message, self.limit)
        if smaller is not None:
            self.limit = smaller
        return smaller is not None

    def _restart_with_tokens(self, error: BadRequestError) -> None:
        """Start again with page tokens if an offset was refused; else raise the error."""
        is_about_offset = re.search(r"\boffset\b", error.api_message, re.IGNORECASE)
        if not self.offset or self.token is not None or not is_about_offset:
            raise error
        if self._refused_offset is not None:
            raise error
        self._refused_offset = error
        self._call = self._call._replace(default_api_version=LATEST_API_VERSION)
        self.offset = 0
        self._places.clear()

    def _check_progress(self, ids: tuple[int | str, ...], page: Page[T], *, has_new: bool) -> None:
        self._pages_without_items = 0 if has_new else self._pages_without_items + 1
        if self._pages_without_items >= MAX_PAGES_WITHOUT_ITEMS:
            raise self._does_not_advance(f"{MAX_PAGES_WITHOUT_ITEMS} pages brought nothing new")
        if page.token is not None and page.token in self._tokens:
            raise self._does_not_advance("a page names a next page that was read before")
        place = self._places.setdefault(ids, self.offset)
        if has_new or not ids:
            return
        # Pages by offset may overlap, and a list may grow, but hardly by two whole pages.
        least = 1 if self.token is not None else 2 * self._page_size
        if self.offset - place >= least:
            raise self._does_not_advance("the same page came once more")

    def _advance(self, received: int, page: Page[T]) -> None:
        if page.token is None and self._refused_offset is not None:
            raise self._refused_offset
        self.token = page.token
        if page.token is not None:
            self._tokens.add(page.token)
        self.offset += received or self._page_size

    @property
    def _page_size(self) -> int:
        return self.limit or DEFAULT_LIMIT

    def _does_not_advance(self, why: str) -> UnexpectedResponseError:
        error = UnexpectedResponseError(
            status=200, excerpt=f"but the list does not advance: {why}, although more should follow"
        )
        error.call = self._call.name
        return error


def read_all_items(call: Call[Page[T]]) -> Generator[Any, Any, list[T]]:
    """Read a list to its end and return its items; a workflow.

    :param call: the call for the first page.
    :raises UnexpectedResponseError: the list does not advance.
    """
    pages = Paginator(call)
    items: list[T] = []
    while not pages.is_exhausted:
        items += yield from pages.next_page()
    return items


def read_first_items(call: Call[Page[T]]) -> Generator[Any, Any, list[T]]:
    """Read a list up to the first page with items, and return these; a workflow.

    It mostly takes one request to know whether a list is empty.

    :param call: the call for the first page.
    :raises UnexpectedResponseError: the list does not advance.
    """
    pages = Paginator(call)
    items: list[T] = []
    while not items and not pages.is_exhausted:
        items = yield from pages.next_page()
    return items


def _smaller_limit(message: str, limit: int | None) -> int | None:
    """Return the largest limit that an error allows; None if it is not about the limit."""
    if not re.search(r"\blimit\b", message, re.IGNORECASE):
        return None
    named = [int(number) for number in re.findall(r"\b[0-9]{1,6}\b", message)]
    smaller = [number for number in named if number > 0 and (not limit or number < limit)]
    if smaller:
        return max(smaller)
    return limit // 2 if limit and limit > 1 else None

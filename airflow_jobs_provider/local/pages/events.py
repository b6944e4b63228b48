"""Server-sent events: a page learns what has changed while it is open.

==========  =======================================================================================
Event       Data
==========  =======================================================================================
``state``   the version of what the page shows; the page is read again if it has another one
``log``     a part of the run's log: ``text``, ``offset`` behind it, and whether the log ``is_new``
``cells``   the cells of the run's notebook that have changed: ``index``, ``source``, ``output``,
            ``is_running``
==========  =======================================================================================
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from aiohttp import web

from airflow_jobs_provider.local.errors import ApiError
from airflow_jobs_provider.local.pages.live_notebook import NotebookFollower
from airflow_jobs_provider.local.pages.log_files import LogFollower

__all__ = ["EventStreams"]

_INTERVAL_SECONDS = 0.5
_HEARTBEATS = 30
_WRITE_SECONDS = 30
# A browser has one for each tab that is in front. Each holds a connection.
_MAX_STREAMS = 64
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Type": "text/event-stream",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


class EventStreams:
    """The open streams of a workspace."""

    def __init__(self) -> None:
        self._count = 0
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        """End all streams."""
        self._stopped.set()

    async def serve(
        self,
        request: web.Request,
        changes: Callable[[], int],
        version: Callable[[], Awaitable[str]],
        log: LogFollower | None = None,
        notebook: NotebookFollower | None = None,
    ) -> web.StreamResponse:
        """Send events until the client goes away.

        :param changes: grows with each change of the store.
        :param version: what the page would show; asked after a change only.
        :raises ApiError: there are too many streams.
        """
        if self._count >= _MAX_STREAMS:
            raise ApiError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "TEMPORARILY_UNAVAILABLE",
                f"{_MAX_STREAMS} pages are open already",
            )
        self._count += 1
        try:
            response = web.StreamResponse(headers=_HEADERS)
            await response.prepare(request)
            with suppress(ConnectionError, TimeoutError):
                await self._send_all(response, changes, version, log, notebook)
            return response
        finally:
            self._count -= 1

    async def _send_all(
        self,
        response: web.StreamResponse,
        changes: Callable[[], int],
        version: Callable[[], Awaitable[str]],
        log: LogFollower | None,
        notebook: NotebookFollower | None,
    ) -> None:
        seen, silent = -1, 0
        while not self._stopped.is_set():
            events: list[tuple[str, Any]] = []
            if log is not None and (text := log.read()):
                events.append(("log", {"text": text, "offset": log.offset, "is_new": log.is_new}))
            if notebook is not None and (cells := notebook.changed_cells()):
                events.append(("cells", cells))
            now = changes()
            if now != seen:
                seen = now
                # Last: what a run wrote at its end is shown before the page is read again.
                events.append(("state", await version()))
            silent = 0 if events else silent + 1
            if events or silent % _HEARTBEATS == 0:
                content = "".join(
                    f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in events
                )
                # A comment finds out whether the client is still there.
                async with asyncio.timeout(_WRITE_SECONDS):
                    await response.write((content or ": \n\n").encode())
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), _INTERVAL_SECONDS)

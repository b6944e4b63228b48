"""Routes of the pages.

Pages may be read without the token by everybody on this machine, as the service's run pages are by
everybody in a workspace. What changes something needs a key (``key.py``). So does what shows whole
requests and settings: they have the environment of clusters, for example.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import cache
from http import HTTPStatus
from importlib import resources
from pathlib import Path

from aiohttp import web

from airflow_jobs_provider.local.http.request_log import RequestLog
from airflow_jobs_provider.local.pages.actions import add_action_routes
from airflow_jobs_provider.local.pages.events import EventStreams
from airflow_jobs_provider.local.pages.headers import (
    FRAME_HEADERS,
    NOTEBOOK_HEADERS,
    PAGE_HEADERS,
    STATIC_HEADERS,
)
from airflow_jobs_provider.local.pages.key import PagesKey
from airflow_jobs_provider.local.pages.lists import (
    render_job,
    render_jobs,
    render_runs,
    render_settings,
)
from airflow_jobs_provider.local.pages.live_notebook import NotebookFollower
from airflow_jobs_provider.local.pages.log_files import LogFollower
from airflow_jobs_provider.local.pages.page_store import PageStore
from airflow_jobs_provider.local.pages.render import render
from airflow_jobs_provider.local.pages.request_list import render_requests
from airflow_jobs_provider.local.pages.run_page import render_request, render_run
from airflow_jobs_provider.local.runners.notebook_export import ExportError
from airflow_jobs_provider.local.service import Service

__all__ = ["Pages"]

_ID = "[0-9]{1,18}"
# Browsers tell with it whose page sends a request. "none": the user has typed the address.
_FETCH_SITE = "Sec-Fetch-Site"
_THIS_SITE = ("none", "same-origin")
_CONTENT_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class Pages:
    """The pages of a workspace.

    :param service: the workspace.
    :param log: the requests of clients.
    :param key: what the buttons need, and what shows whole requests and settings.
    """

    def __init__(self, service: Service, log: RequestLog, key: PagesKey) -> None:
        self._service = service
        self._log = log
        self._key = key
        self._streams = EventStreams()
        self._store: PageStore | None = None
        # Pages are rendered one after another, in a thread: the API comes first.
        self._rendering = asyncio.Lock()

    def add_routes(self, app: web.Application) -> None:
        """Add the routes of all pages."""
        router = app.router
        router.add_get("/", self._runs)
        router.add_get("/jobs", self._jobs)
        router.add_get(f"/jobs/{{job_id:{_ID}}}", self._job)
        router.add_get(f"/runs/{{run_id:{_ID}}}", self._run)
        router.add_get(f"/runs/{{run_id:{_ID}}}/notebook", self._notebook)
        router.add_get("/events", self._events)
        router.add_get(f"/runs/{{run_id:{_ID}}}/events", self._run_events)
        router.add_get(f"/runs/{{run_id:{_ID}}}/request", self._request_of_run)
        router.add_get(f"/jobs/{{job_id:{_ID}}}/settings", self._settings)
        router.add_get("/requests", self._requests)
        router.add_get("/requests/list", self._request_list)
        add_action_routes(app, self._service, self._key)
        router.add_get("/static/{name:[a-z]+[.](?:css|js|svg)}", _static)

    def stop(self) -> None:
        """End what pages follow."""
        self._streams.stop()

    def close(self) -> None:
        """Close the connection to the store."""
        if self._store is not None:
            self._store.close()
            self._store = None

    async def _rendered(self, make: Callable[[PageStore], str | None]) -> str | None:
        async with self._rendering:
            if self._store is None:
                self._store = PageStore(self._service.store.file)
            return await asyncio.to_thread(make, self._store)

    async def _runs(self, request: web.Request) -> web.StreamResponse:
        version = str(self._service.store.changes)
        query = dict(request.query)
        return _page(await self._rendered(lambda store: render_runs(store, query, version)))

    async def _jobs(self, request: web.Request) -> web.StreamResponse:
        version = str(self._service.store.changes)
        query = dict(request.query)
        return _page(await self._rendered(lambda store: render_jobs(store, query, version)))

    async def _job(self, request: web.Request) -> web.StreamResponse:
        job_id = int(request.match_info["job_id"])
        version = str(self._service.store.changes)
        html = await self._rendered(lambda store: render_job(store, job_id, version))
        return _page(html) if html is not None else _missing("Job", job_id)

    async def _run(self, request: web.Request) -> web.StreamResponse:
        run_id = int(request.match_info["run_id"])
        service = self._service
        files = service.kept_file(run_id, ".ipynb"), service.kept_file(run_id, ".log")
        html = await self._rendered(lambda store: render_run(run_id, store, files))
        return _page(html) if html is not None else _missing("Run", run_id)

    async def _notebook(self, request: web.Request) -> web.StreamResponse:
        run_id = int(request.match_info["run_id"])
        if request.headers.get(_FETCH_SITE, _THIS_SITE[0]) not in _THIS_SITE:
            return _page(render("foreign.html", run_id=run_id), HTTPStatus.FORBIDDEN)
        is_known = self._service.store.run(run_id) is not None
        try:
            file = await self._service.notebook_page(run_id) if is_known else None
        except ExportError as error:
            kept = self._service.kept_file(run_id, ".ipynb")
            html = render("not_exported.html", run_id=run_id, file=str(kept), reason=str(error))
            return _page(html, HTTPStatus.INTERNAL_SERVER_ERROR, FRAME_HEADERS)
        if file is None:
            return _missing("The executed notebook of run", run_id)
        # The file has up to 40 MB, which never are in memory.
        headers = {**NOTEBOOK_HEADERS, "Content-Type": "text/html; charset=utf-8"}
        return web.FileResponse(file, headers=headers)

    # What a page follows

    async def _events(self, request: web.Request) -> web.StreamResponse:
        store = self._service.store

        async def version() -> str:
            return str(store.changes)

        return await self._streams.serve(request, lambda: store.changes, version)

    async def _run_events(self, request: web.Request) -> web.StreamResponse:
        run_id = int(request.match_info["run_id"])
        service = self._service
        if service.store.run(run_id) is None:
            return _missing("Run", run_id)

        async def version() -> str:
            return await self._rendered(lambda store: store.version(run_id)) or ""

        offset = request.query.get("log", "")
        log = service.kept_file(run_id, ".log")
        return await self._streams.serve(
            request,
            lambda: service.store.changes,
            version,
            LogFollower(log, int(offset)) if _is_offset(offset) else None,
            NotebookFollower(lambda: service.live_notebooks.get(run_id)),
        )

    # What needs the key

    async def _request_of_run(self, request: web.Request) -> web.StreamResponse:
        self._key.check(request, self._service.base_url)
        run_id = int(request.match_info["run_id"])
        run = self._service.store.run(run_id)
        if run is None:
            return _missing("Run", run_id)
        return _page(render_request(run, self._service.base_url))

    async def _settings(self, request: web.Request) -> web.StreamResponse:
        self._key.check(request, self._service.base_url)
        job_id = int(request.match_info["job_id"])
        job = self._service.store.job(job_id)
        if job is None:
            return _missing("Job", job_id)
        return _page(render_settings(job, self._service.base_url))

    async def _requests(self, _request: web.Request) -> web.StreamResponse:
        return _page(render("requests.html"))

    async def _request_list(self, request: web.Request) -> web.StreamResponse:
        self._key.check(request, self._service.base_url)
        query, url = dict(request.query), self._service.base_url
        # Reading the log takes a moment, too.
        html = await asyncio.to_thread(lambda: render_requests(self._log.requests, query, url))
        return _page(html)


async def _static(request: web.Request) -> web.StreamResponse:
    name = request.match_info["name"]
    content = _static_file(name)
    if content is None:
        raise web.HTTPNotFound
    content_type = _CONTENT_TYPES[Path(name).suffix]
    return web.Response(
        body=content, content_type=content_type, charset="utf-8", headers=STATIC_HEADERS
    )


def _is_offset(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 16


@cache
def _static_file(name: str) -> bytes | None:
    file = resources.files(__package__) / "static" / name
    return file.read_bytes() if file.is_file() else None


def _page(
    html: str | None,
    status: HTTPStatus = HTTPStatus.OK,
    headers: Mapping[str, str] = PAGE_HEADERS,
) -> web.Response:
    # A notebook may print half a surrogate pair, which UTF-8 cannot hold.
    body = (html or "").encode("utf-8", "replace")
    return web.Response(
        body=body, status=status, content_type="text/html", charset="utf-8", headers=headers
    )


def _missing(what: str, number: int) -> web.Response:
    return _page(render("missing.html", what=f"{what} {number}"), HTTPStatus.NOT_FOUND)

"""The HTTP server of the local workspace: access, routes, requests and responses."""

from __future__ import annotations

import asyncio
import base64
import hmac
import ipaddress
import logging
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from airflow_jobs_provider.local import checks
from airflow_jobs_provider.local.engine.model import Run, RunType
from airflow_jobs_provider.local.errors import ApiError, invalid, malformed
from airflow_jobs_provider.local.http.call import Call, Endpoint, FileContent
from airflow_jobs_provider.local.http.clusters import CLUSTER_ENDPOINTS
from airflow_jobs_provider.local.http.connections import Connection, Connections, Timeouts
from airflow_jobs_provider.local.http.control import CONTROL_PATH, add_control_routes
from airflow_jobs_provider.local.http.endpoints import endpoints_of
from airflow_jobs_provider.local.http.files import (
    DBFS_ENDPOINTS,
    DIRECTORY_ENDPOINTS,
    FILE_ENDPOINTS,
)
from airflow_jobs_provider.local.http.oauth import CLIENT_ID, ExpiredTokenError, OAuth
from airflow_jobs_provider.local.http.permissions import PERMISSION_ENDPOINTS
from airflow_jobs_provider.local.http.secret_scopes import SECRET_ENDPOINTS
from airflow_jobs_provider.local.http.users import current_user
from airflow_jobs_provider.local.http.workspace_objects import WORKSPACE_ENDPOINTS
from airflow_jobs_provider.local.pages.key import PagesKey
from airflow_jobs_provider.local.pages.routes import Pages
from airflow_jobs_provider.local.service import Service
from airflow_jobs_provider.local.simulation import Simulation
from airflow_jobs_provider.local.versions import LATEST, VERSIONS, Version

__all__ = ["Server"]

_log = logging.getLogger(__name__)
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_LOOPBACK = "127.0.0.1"
_HTTP_PORT = 80
_HOSTS = {"127.0.0.1", "localhost", "::1"}
# A notebook that runs itself would fill the machine with kernels.
_MAX_NESTING = 10
_SERVED = (
    "This is a local workspace, not Databricks: it serves the Jobs API 2.0, 2.1 and 2.2 "
    "(jobs/...), permissions/jobs/..., workspace/..., dbfs/..., fs/files/..., fs/directories/..., "
    "secrets/..., clusters/ get and list, and preview/scim/v2/Me."
)
_OTHER_APIS = {
    "2.0/workspace": WORKSPACE_ENDPOINTS,
    "2.0/dbfs": DBFS_ENDPOINTS,
    "2.0/secrets": SECRET_ENDPOINTS,
    "2.0/clusters": CLUSTER_ENDPOINTS,
    "2.1/clusters": CLUSTER_ENDPOINTS,
}
_CLIENT_PATHS = ("/api/", "/oidc/", "/.well-known/")
_DAY_SECONDS = 24 * 3600
_LARGE_BODY_BYTES = 64 * 1024


class Server:
    """Serves a workspace on loopback.

    :param port: the port to listen on; 0 for any that is free.
    :param token: the access token, which is the service principal's client secret, too.
    :param oauth: whether the access token itself is refused, and only OAuth tokens are accepted.
    :param token_lifetime_seconds: how long an OAuth token is valid.
    :param timeouts: how long a client may take.
    :param simulation: faults that are asked for, and the log of requests.
    """

    def __init__(
        self,
        service: Service,
        *,
        port: int,
        token: str,
        oauth: bool,
        token_lifetime_seconds: int,
        timeouts: Timeouts | None = None,
        simulation: Simulation | None = None,
    ) -> None:
        self._service = service
        self._simulation = simulation or Simulation()
        self._port = port
        self._token = token.encode()
        self._timeouts = timeouts or Timeouts()
        self._oauth_only = oauth
        self._oauth = OAuth(self._token, token_lifetime_seconds, self._timeouts.request_seconds)
        self._pages = Pages(service, self._simulation.log, PagesKey(self._token))
        self._runner: web.AppRunner | None = None
        self._connections: Connections | None = None
        self._daily_cleanup: asyncio.Task[None] | None = None

    async def start(self) -> str:
        """Start listening; return the workspace's URL.

        :raises OSError: if the port is taken.
        """
        app = web.Application(
            middlewares=[self._within_time, self._guard, self._simulate, _answer_problems],
            client_max_size=checks.MAX_BODY_BYTES,
        )
        for version in VERSIONS.values():
            for (verb, path), endpoint in endpoints_of(version).items():
                handler = self._api_handler(version, endpoint)
                app.router.add_route(verb, f"/api/{version.name}/jobs/{path}", handler)
        for verb, endpoint in PERMISSION_ENDPOINTS.items():
            handler = self._api_handler(VERSIONS["2.0"], endpoint)
            app.router.add_route(verb, "/api/2.0/permissions/jobs/{job_id}", handler)
        for api, endpoints in _OTHER_APIS.items():
            for (verb, path), endpoint in endpoints.items():
                handler = self._api_handler(VERSIONS["2.0"], endpoint)
                app.router.add_route(verb, f"/api/{api}/{path}", handler)
        for kind, by_verb in {"files": FILE_ENDPOINTS, "directories": DIRECTORY_ENDPOINTS}.items():
            for verb, endpoint in by_verb.items():
                handler = self._api_handler(VERSIONS["2.0"], endpoint, raw_body=True)
                app.router.add_route(verb, f"/api/2.0/fs/{kind}{{path:/.*}}", handler)
                if verb == "GET":
                    # aiohttp sends the headers of the response only.
                    app.router.add_route("HEAD", f"/api/2.0/fs/{kind}{{path:/.*}}", handler)
        add_control_routes(app, self._simulation, self._service.store)
        self._oauth.add_routes(app, lambda: self._service.base_url)
        app.router.add_get("/api/2.0/preview/scim/v2/Me", self._me)
        app.router.add_post("/local/notebook-run", self._notebook_run)
        app.router.add_post("/local/task-values", self._task_values)
        app.router.add_post("/local/secrets", self._secrets)
        self._pages.add_routes(app)
        self._simulation.faults.set_paths(
            path
            for path in (resource.canonical for resource in app.router.resources())
            if path.startswith(_CLIENT_PATHS)
        )
        # Runs are ended first, so no request needs a longer shutdown.
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        assert self._runner.server is not None
        self._connections = Connections(self._runner.server, self._timeouts)
        self._port = self._connections.start(_LOOPBACK, self._port)
        self._service.base_url = f"http://{_LOOPBACK}:{self._port}"
        self._daily_cleanup = asyncio.create_task(self._remove_old_runs_daily())
        return self._service.base_url

    async def stop(self) -> None:
        """Stop listening and end all runs."""
        if self._daily_cleanup is not None:
            self._daily_cleanup.cancel()
        self._pages.stop()
        await self._service.stop_runs()
        if self._connections is not None:
            await self._connections.stop()
        if self._runner is not None:
            await self._runner.cleanup()
        self._pages.close()
        self._service.close()

    async def _remove_old_runs_daily(self) -> None:
        while True:
            await asyncio.sleep(_DAY_SECONDS)
            self._service.forget_old_runs()

    @web.middleware
    async def _within_time(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Limit the time of a request's headers and body, not of its processing."""
        transport = request.transport
        connection = transport.get_protocol() if transport is not None else None
        assert connection is None or isinstance(connection, Connection)
        if connection is not None:
            connection.request_began()
        try:
            return await handler(request)
        finally:
            if connection is not None:
                connection.request_ended()

    # Access

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        refusal = self._refusal(request)
        if refusal is None:
            return await handler(request)
        if request.path.startswith(_CLIENT_PATHS):
            self._simulation.log.add_refused(request, refusal)
        return refusal

    def _refusal(self, request: web.Request) -> web.Response | None:
        # DNS rebinding: a web page may resolve its own host name to this machine. Its requests
        # arrive here with that name in the Host header.
        if not self._is_this_machine(request):
            return _error(
                HTTPStatus.FORBIDDEN,
                "PERMISSION_DENIED",
                "The local workspace answers requests from and to this machine only: "
                f"use http://{_LOOPBACK}:{self._port}",
            )
        is_control = request.path.startswith(CONTROL_PATH)
        if is_control or request.path.startswith("/api/"):
            return self._refusal_of_token(request, oauth_only=self._oauth_only and not is_control)
        return None

    @web.middleware
    async def _simulate(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Log the requests of clients, and break those that a test wants broken."""
        if not request.path.startswith(_CLIENT_PATHS):
            return await handler(request)

        async def answer(request: web.Request) -> web.StreamResponse:
            return await self._simulation.faults.answer(request, handler)

        return await self._simulation.log.answer(request, answer)

    def _is_this_machine(self, request: web.Request) -> bool:
        try:
            host = urlsplit(f"//{request.headers.get('Host', '')}")
            port = _HTTP_PORT if host.port is None else host.port
            if host.hostname not in _HOSTS or port != self._port or host.username:
                return False
            return ipaddress.ip_address(request.remote or "").is_loopback
        except ValueError:
            return False

    def _refusal_of_token(self, request: web.Request, *, oauth_only: bool) -> web.Response | None:
        secret = _credential(request)
        if secret is None:
            return _error(
                HTTPStatus.UNAUTHORIZED,
                HTTPStatus.UNAUTHORIZED.value,
                "Credential was not sent or was of an unsupported type for this API.",
                {"WWW-Authenticate": "Bearer"},
            )
        try:
            if self._oauth.issued(secret):
                return None
        except ExpiredTokenError:
            return _error(HTTPStatus.FORBIDDEN, HTTPStatus.FORBIDDEN.value, "JWT has expired")
        if oauth_only or not hmac.compare_digest(secret, self._token):
            return _error(HTTPStatus.FORBIDDEN, HTTPStatus.FORBIDDEN.value, "Invalid access token.")
        return None

    # The API

    def _api_handler(
        self, version: Version, endpoint: Endpoint, *, raw_body: bool = False
    ) -> _Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            data: Mapping[str, Any] = {}
            if raw_body:
                data = {**request.query, "body": await self._body(request)}
            elif request.content_type == "multipart/form-data":
                data = await self._form(request)
            elif request.can_read_body:
                # Also of a GET: the service takes its parameters from there, too.
                data = await self._json_body(request)
            if request.method == "GET" and not raw_body:
                data = {**checks.as_query(data), **request.query}
            data = {**data, **request.match_info}
            answer = await endpoint(Call(self._service, version, data))
            if isinstance(answer, FileContent):
                return _file_response(answer)
            return web.json_response(answer)

        return handle

    async def _me(self, request: web.Request) -> web.Response:
        """Return who the caller is: the user, or with an OAuth token the service principal."""
        is_oauth = self._oauth.issued(_credential(request) or b"")
        return web.json_response(current_user(CLIENT_ID if is_oauth else self._service.user))

    async def _notebook_run(self, request: web.Request) -> web.StreamResponse:
        """Run a notebook for ``dbutils.notebook.run``, and answer when it has ended."""
        parent = self._caller(request)
        if parent is None:
            return _invalid_token()
        data = await self._json_body(request)
        path = str(data.get("notebook_path") or "")
        is_in_git = "git_source" in parent.shown_settings and not path.startswith("/")
        settings = {
            "run_name": data.get("notebook_path"),
            "timeout_seconds": data.get("timeout_seconds") or 0,
            "notebook_task": {
                "notebook_path": data.get("notebook_path"),
                "base_parameters": data.get("arguments") or {},
                "source": "GIT" if is_in_git else None,
            },
            "existing_cluster_id": f"local-{parent.run_id}",
        }
        settings = checks.check_settings(settings, LATEST)
        if self._service.nesting_of(parent) >= _MAX_NESTING:
            raise invalid(f"Notebooks may run each other {_MAX_NESTING} deep at most")
        run = self._service.launcher.submit(
            settings, run_type=RunType.WORKFLOW_RUN, started_by=parent
        )
        ended = await self._service.wait(run.run_id)
        output = self._service.store.output(run.run_id)
        return web.json_response(
            {
                "run_id": ended.run_id,
                "result_state": ended.result_state,
                "state_message": ended.state_message,
                "result": output.result,
                "error": output.error,
                "run_page_url": f"{self._service.base_url}/runs/{ended.run_id}",
            }
        )

    async def _task_values(self, request: web.Request) -> web.StreamResponse:
        """Set a value of the caller's task, or return those of a task of the same job run."""
        run = self._caller(request)
        if run is None:
            return _invalid_token()
        data = await self._json_body(request)
        if "key" in data:
            self._service.set_task_value(run, str(data["key"]), data.get("value"))
            return web.json_response({})
        values = self._service.task_values(run, str(data.get("task_key")))
        return web.json_response({"values": values})

    async def _secrets(self, request: web.Request) -> web.StreamResponse:
        """Return a secret, the keys of a scope, or the scopes, to the kernel of a run."""
        if self._caller(request) is None:
            return _invalid_token()
        data, store = await self._json_body(request), self._service.store
        scope, key = data.get("scope"), data.get("key")
        if scope is None:
            return web.json_response({"names": store.secret_scopes()})
        if key is None:
            return web.json_response({"names": [name for name, _ in store.secrets(str(scope))]})
        value = store.secret(str(scope), str(key))
        if value is None:
            raise invalid(f"Secret does not exist with scope: {scope} and key: {key}")
        return web.json_response({"value": base64.b64encode(value).decode()})

    def _caller(self, request: web.Request) -> Run | None:
        """Return the live run whose kernel sends a request."""
        secret = request.headers.get("Authorization", "").removeprefix("Bearer ")
        return self._service.run_of_callback(_bytes_of(secret))

    async def _form(self, request: web.Request) -> dict[str, Any]:
        """Return the fields of a form, with which clients upload files to the workspace."""
        try:
            async with asyncio.timeout(self._timeouts.request_seconds):
                form = await request.post()
        except web.HTTPRequestEntityTooLarge:
            raise checks.too_large() from None
        except (TimeoutError, ValueError, ConnectionError, web.RequestPayloadError):
            raise malformed("The form in the body of the request cannot be read") from None
        return {
            name: value.file.read() if isinstance(value, web.FileField) else value
            for name, value in form.items()
        }

    async def _json_body(self, request: web.Request) -> dict[str, Any]:
        body = await self._body(request)
        if len(body) <= _LARGE_BODY_BYTES:
            return checks.read_body(body)
        # Parsing megabytes takes as long as answering hundreds of other requests.
        return await asyncio.to_thread(checks.read_body, body)

    async def _body(self, request: web.Request) -> bytes:
        try:
            async with asyncio.timeout(self._timeouts.request_seconds):
                return await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise checks.too_large() from None
        except web.RequestPayloadError as error:
            raise malformed(f"The body of the request cannot be read: {error}") from None
        except TimeoutError:
            raise ApiError(
                HTTPStatus.REQUEST_TIMEOUT,
                "REQUEST_TIMEOUT",
                "The body of the request did not arrive in time",
            ) from None
        except ConnectionError:
            raise malformed("The connection was closed before the request was complete") from None


@web.middleware
async def _answer_problems(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Turn errors into the API's form: JSON with an error code and a message."""
    try:
        return await handler(request)
    except ApiError as problem:
        response = _error(problem.status, problem.error_code, problem.message)
        if request.content.exception() is not None:
            # The server closes the connection, since the next request cannot be found on it.
            response.force_close()
        return response
    except web.HTTPException as problem:
        if problem.status in {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}:
            path = request.path.removeprefix("/api")
            message = f"No API found for '{request.method} {path}'. {_SERVED}"
            return _error(HTTPStatus.NOT_FOUND, "ENDPOINT_NOT_FOUND", message)
        return _error(problem.status, "BAD_REQUEST", problem.reason)
    except Exception:  # noqa: BLE001  (an internal error is answered, too)
        _log.exception("Answering %s %s", request.method, request.path)
        return _error(
            HTTPStatus.INTERNAL_SERVER_ERROR,
            "INTERNAL_ERROR",
            "The local workspace failed to answer; its log says why.",
        )


def _file_response(file: FileContent) -> web.Response:
    response = web.Response(body=file.content, content_type="application/octet-stream")
    if file.modified is not None:
        response.last_modified = file.modified
    return response


def _credential(request: web.Request) -> bytes | None:
    """Return the token of a request, or the password of any user; None if it has neither."""
    header = request.headers.get("Authorization", "")
    scheme, _, credential = header.partition(" ")
    if scheme.lower() == "bearer":
        return _bytes_of(credential.strip())
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(credential, validate=True).partition(b":")[2]
        except ValueError:  # not base64, or not ASCII
            return None
    return None


def _bytes_of(header: str) -> bytes:
    """Return the text of a header as it was sent; aiohttp keeps what is not UTF-8 as surrogates."""
    return header.encode("utf-8", "surrogateescape")


def _invalid_token() -> web.Response:
    return _error(HTTPStatus.FORBIDDEN, HTTPStatus.FORBIDDEN.value, "Invalid access token.")


def _error(
    status: int, code: str | int, message: str, headers: Mapping[str, str] | None = None
) -> web.Response:
    return web.json_response(
        {"error_code": code, "message": message}, status=int(status), headers=headers
    )

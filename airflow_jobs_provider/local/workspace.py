"""A local workspace inside another program: for tests and demos."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import secrets
import threading
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self

from airflow_jobs_provider.local.engine.quotas import Quotas
from airflow_jobs_provider.local.engine.state_folder import SharedFolderError, make_private
from airflow_jobs_provider.local.http.connections import Timeouts
from airflow_jobs_provider.local.paths import STATE_FOLDER

if TYPE_CHECKING:
    from airflow_jobs_provider.local.simulation import Simulation

__all__ = [
    "DEFAULT_TOKEN_LIFETIME_SECONDS",
    "CannotStartError",
    "LocalWorkspace",
    "Quotas",
    "Timeouts",
    "pages_url",
    "serve",
]

DEFAULT_TOKEN_LIFETIME_SECONDS = 3600
_EXTRA_MODULES = ("ipykernel", "nbclient", "nbconvert", "nbformat", "packaging", "psutil")
_TOKEN = re.compile(r"[!-~]+")


class CannotStartError(RuntimeError):
    """The workspace cannot start; the text says what to do about it."""


class LocalWorkspace:
    """A workspace on this machine, served by a thread of this process.

    ::

        with LocalWorkspace("my_notebooks") as workspace:
            requests.get(workspace.url + "/api/2.0/jobs/list",
                         headers={"Authorization": f"Bearer {workspace.token}"})

    :param root: the folder that is the workspace's ``/``.
    :param port: the port to listen on, on loopback; 0 for any that is free.
    :param token: the access token; one is made if none is given. It is the secret of the service
        principal :attr:`client_id`, too.
    :param state_dir: where jobs, runs and executed notebooks are kept; ``ROOT/.workspace`` if not
        given.
    :param max_concurrent_runs: how many runs work at once, the others being queued; the number of
        cores, and at least 2, if not given.
    :param dry_run: whether each run ends well at once, without doing anything.
    :param quotas: other limits than the service's own, to see what happens at them.
    :param timeouts: other times for clients than 30 s for a request and 75 s between two of them.
    :param oauth: whether API requests need an OAuth token, so that the access token itself is
        refused; default False: both are accepted.
    :param token_lifetime_seconds: how long an OAuth token is valid; default 3600.
    :param record: a folder in which all requests and responses are recorded, tokens masked; default
        None: nothing is recorded.
    :param preload_kernels: whether the process that notebooks' kernels are forked from is started
        with the workspace; default False: with the first notebook.
    :param pip_install: whether ``%pip install`` installs packages into a folder of the run; default
        False: it only prints that it does nothing.
    :param repositories: the folder of a clone by the URL of its Git repository, for ``git_source``;
        default None. Clones below the folder ``Repos`` of the root need not be named.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        port: int = 0,
        token: str | None = None,
        state_dir: str | os.PathLike[str] | None = None,
        max_concurrent_runs: int | None = None,
        *,
        dry_run: bool = False,
        quotas: Quotas | None = None,
        timeouts: Timeouts | None = None,
        oauth: bool = False,
        token_lifetime_seconds: int = DEFAULT_TOKEN_LIFETIME_SECONDS,
        record: str | os.PathLike[str] | None = None,
        preload_kernels: bool = False,
        pip_install: bool = False,
        repositories: Mapping[str, str | os.PathLike[str]] | None = None,
    ) -> None:
        self.root = Path(root).resolve()
        self.token = token or secrets.token_urlsafe(24)
        self.state_dir = Path(state_dir).resolve() if state_dir else self.root / STATE_FOLDER
        self._port = port
        self._max_concurrent_runs = max_concurrent_runs
        self._dry_run = dry_run
        self._quotas = quotas
        self._timeouts = timeouts
        self._oauth = oauth
        self._token_lifetime_seconds = token_lifetime_seconds
        self._preload_kernels = preload_kernels
        self._pip_install = pip_install
        self._record = Path(record).resolve() if record else None
        self._repositories = {
            url: Path(folder).resolve() for url, folder in (repositories or {}).items()
        }
        self._simulation: Simulation | None = None
        self._url: str | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped: asyncio.Event | None = None

    @property
    def url(self) -> str:
        """The workspace's URL, such as ``http://127.0.0.1:8421``."""
        if self._url is None:
            raise RuntimeError("The workspace has not been started")
        return self._url

    @property
    def pages_url(self) -> str:
        """The address of the pages, with the key that their buttons need."""
        return pages_url(self.url, self.token)

    @property
    def client_id(self) -> str:
        """The client id of the workspace's service principal; :attr:`token` is its secret."""
        from airflow_jobs_provider.local.http.oauth import CLIENT_ID

        return CLIENT_ID

    @property
    def simulation(self) -> Simulation:
        """Faults, scripted results and the log of requests, for tests."""
        if self._simulation is None:
            from airflow_jobs_provider.local.http.request_log import RequestLog
            from airflow_jobs_provider.local.simulation import Simulation

            self._simulation = Simulation(log=RequestLog(self._record, self.token))
        return self._simulation

    def start(self) -> Self:
        """Start to serve; returns when requests are answered.

        :raises CannotStartError: if it cannot.
        """
        started: Future[str] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._main(started)), name="local-workspace", daemon=True
        )
        self._thread.start()
        try:
            self._url = started.result()
        except BaseException:
            self._thread.join()
            raise
        return self

    def stop(self) -> None:
        """Stop: active runs are ended, and none of their processes survives."""
        if self._thread is None or self._loop is None or self._stopped is None:
            return
        with suppress(RuntimeError):  # the loop has ended already
            self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()
        self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    async def _main(self, started: Future[str]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        try:
            async with serve(
                self.root,
                self._port,
                self.token,
                self.state_dir,
                self._max_concurrent_runs,
                dry_run=self._dry_run,
                quotas=self._quotas,
                timeouts=self._timeouts,
                oauth=self._oauth,
                token_lifetime_seconds=self._token_lifetime_seconds,
                simulation=self.simulation,
                preload_kernels=self._preload_kernels,
                pip_install=self._pip_install,
                repositories=self._repositories,
            ) as url:
                started.set_result(url)
                await self._stopped.wait()
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)


def pages_url(url: str, token: str) -> str:
    """Return the address of a workspace's pages, with the key that their buttons need.

    The key is in the fragment, which browsers do not send.

    :param url: the workspace's URL.
    :param token: its access token.
    """
    from airflow_jobs_provider.local.pages.key import PagesKey

    return f"{url}/#key={PagesKey(token.encode()).text}"


@asynccontextmanager
async def serve(
    root: Path,
    port: int,
    token: str,
    state_dir: Path,
    max_concurrent_runs: int | None,
    *,
    dry_run: bool = False,
    quotas: Quotas | None = None,
    timeouts: Timeouts | None = None,
    oauth: bool = False,
    token_lifetime_seconds: int = DEFAULT_TOKEN_LIFETIME_SECONDS,
    simulation: Simulation | None = None,
    preload_kernels: bool = False,
    pip_install: bool = False,
    repositories: Mapping[str, Path] | None = None,
) -> AsyncIterator[str]:
    """Serve a workspace in the running event loop for as long as the block lasts.

    :raises CannotStartError: if it cannot.
    """
    _prepare(root, state_dir, token)
    from airflow_jobs_provider.local.http.server import Server
    from airflow_jobs_provider.local.service import Service

    with _only_one(state_dir):
        service = Service(
            root,
            state_dir,
            max_concurrent_runs,
            dry_run=dry_run,
            quotas=quotas,
            results=simulation.results if simulation else None,
            preload_kernels=preload_kernels,
            pip_install=pip_install,
            repositories=repositories,
        )
        server = Server(
            service,
            port=port,
            token=token,
            oauth=oauth,
            token_lifetime_seconds=token_lifetime_seconds,
            timeouts=timeouts,
            simulation=simulation,
        )
        try:
            url = await server.start()
        except OSError as error:
            await server.stop()
            raise CannotStartError(
                f"Port {port} of 127.0.0.1 cannot be used ({error.strerror}); "
                "choose another one, or 0 for any that is free"
            ) from error
        try:
            yield url
        finally:
            await server.stop()
            if simulation is not None:
                simulation.log.close()


def _prepare(root: Path, state_dir: Path, token: str) -> None:
    missing = [name for name in _EXTRA_MODULES if importlib.util.find_spec(name) is None]
    if missing:
        raise CannotStartError(
            f"The local workspace needs {', '.join(missing)}: "
            "pip install 'airflow-jobs-provider[local]'"
        )
    if not root.is_dir():
        raise CannotStartError(f"The workspace's root {root} is not a folder")
    try:
        make_private(state_dir, root)
    except (OSError, SharedFolderError) as error:
        raise CannotStartError(
            f"Jobs and runs cannot be kept in {state_dir} ({error}); choose a folder of its own"
        ) from error
    if not _TOKEN.fullmatch(token):
        raise CannotStartError(
            "The access token must consist of printable ASCII characters without spaces, "
            "since it is sent in a header"
        )


class _only_one:  # noqa: N801  (used as a statement)
    """Keeps a second workspace off the same state; the system frees it however we end."""

    def __init__(self, state_dir: Path) -> None:
        self._file: IO[str] = (state_dir / "lock").open("w")

    def __enter__(self) -> None:
        try:
            import fcntl
        except ImportError:  # pragma: no cover  (Windows)
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            folder = Path(self._file.name).parent
            self._file.close()
            raise CannotStartError(
                f"Another workspace is running on {folder}; stop it, or choose another folder"
            ) from None

    def __exit__(self, *_: object) -> None:
        self._file.close()

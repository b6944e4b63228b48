"""PostgreSQL and Redis for a distributed Airflow under test, each in a folder of its own.

Both are the system's packages and listen on loopback. They can be killed, and started again on the
same port.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

from scripts import end_with_parent

__all__ = ["PostgresServer", "RedisServer", "missing_programs"]

START_SECONDS = 60
POSTGRES_PROGRAMS = ("initdb", "postgres", "pg_isready")
# PostgreSQL refuses to run as root.
POSTGRES_USERS = ("postgres", "nobody")


def missing_programs() -> list[str]:
    """Return the programs that are not installed on this machine."""
    return [name for name in (*POSTGRES_PROGRAMS, "redis-server") if not _program(name)]


class _Server:
    """A server process with a folder and a port of its own. Use it as a context manager."""

    def __init__(self, name: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"airflow-jobs-provider-{name}-"))
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        # Not even a test that is killed leaves a server behind.
        self._watchdog = subprocess.Popen(
            [sys.executable, end_with_parent.__file__, str(self._working_folder)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        self._prepare()
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.kill()
        self._watchdog.communicate(timeout=30)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start the server and wait until it accepts connections."""
        with (self.folder / "server.log").open("ab") as log:
            self._process = self._open(log.fileno())
        _until(self._is_ready, f"{self.folder.name} accepts connections")

    @property
    def pid(self) -> int:
        """Process id of the server's main process."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """Send SIGKILL to the server and its children, and wait for the end."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(30)
            self._process = None

    @property
    def _working_folder(self) -> Path:
        """The folder that the server's processes work in."""
        return self.folder

    def _prepare(self) -> None:
        """Make what the server needs before its first start."""

    def _open(self, log: int) -> subprocess.Popen[bytes]:
        raise NotImplementedError

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "server.log").read_text()[-3000:]
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


class RedisServer(_Server):
    """Redis without persistence: a server that was killed comes back empty."""

    def __init__(self) -> None:
        super().__init__("redis")
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def _open(self, log: int) -> subprocess.Popen[bytes]:
        settings = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self.folder),
            "save": "",
            "appendonly": "no",
        }
        arguments = [word for name, value in settings.items() for word in (f"--{name}", value)]
        return subprocess.Popen(
            [_program("redis-server"), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=self.folder,
        )


class PostgresServer(_Server):
    """PostgreSQL whose user ``airflow`` needs no password and may create databases."""

    def __init__(self) -> None:
        super().__init__("postgres")
        self.url = f"postgresql+psycopg2://airflow@127.0.0.1:{self.port}"
        self._user = _unprivileged_user()

    @property
    def _working_folder(self) -> Path:
        return self.folder / "data"

    def _prepare(self) -> None:
        if self._user is not None:
            shutil.chown(self.folder, self._user)
        subprocess.run(
            [
                _program("initdb"),
                *("--pgdata", str(self._working_folder)),
                *("--username", "airflow", "--auth", "trust", "--encoding", "UTF8"),
                "--no-sync",
            ],
            check=True,
            capture_output=True,
            user=self._user,
            cwd=self.folder,
        )

    def _open(self, log: int) -> subprocess.Popen[bytes]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "300",
            "fsync": "off",
        }
        arguments = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return subprocess.Popen(
            [_program("postgres"), "-D", str(self._working_folder), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            user=self._user,
            cwd=self.folder,
        )

    def _is_ready(self) -> bool:
        # It accepts connections before it answers them, while it recovers.
        command = [_program("pg_isready"), "-h", "127.0.0.1", "-p", str(self.port)]
        done = subprocess.run(command, check=False, capture_output=True, timeout=START_SECONDS)
        return super()._is_ready() and done.returncode == 0

    def kill(self) -> None:
        """Stop at once, without a word to the clients, and wait for the end."""
        if self._process is not None:
            # "Immediate shutdown": its children end with it, and the data is recovered at start.
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(30)
            self._process = None


def _program(name: str) -> str:
    """Return the path of a program, "" if there is none; Debian keeps PostgreSQL's elsewhere."""
    if found := shutil.which(name):
        return found
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    return str(places[0]) if places else ""


def _unprivileged_user() -> str | None:
    if os.geteuid() != 0:
        return None
    import pwd

    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in POSTGRES_USERS if name in known)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def _until(look: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not look():
        assert time.monotonic() < deadline, f"{what}: not within {START_SECONDS} s"
        time.sleep(0.1)

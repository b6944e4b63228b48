"""Other people's clients, each in an environment of its own, and a workspace for them."""

from __future__ import annotations

import sys
import threading
import venv
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from airflow_jobs_provider.local.workspace import LocalWorkspace
from scripts.install import install
from tests.real_clients.client import Client

_CACHE = Path(__file__).parents[2] / ".venvs"
_NOTEBOOKS = {
    "greet": "dbutils.notebook.exit('hello ' + dbutils.widgets.get('name'))",
    "fail": "raise ValueError('the text')",
    "sleep": "import time; time.sleep(600)",
}


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalWorkspace]:
    """Return a workspace with a few notebooks."""
    root = tmp_path_factory.mktemp("workspace")
    for name, source in _NOTEBOOKS.items():
        (root / f"{name}.py").write_text(f"# Databricks notebook source\n{source}\n")
    (root / "job.py").write_text("import sys; print(sys.argv[1:])")
    with LocalWorkspace(root) as workspace:
        yield workspace


@pytest.fixture(scope="session")
def port_finder(workspace: LocalWorkspace) -> Iterator[str]:
    """Return the URL of a proxy for clients that know a host's name, but no port of it."""

    class Handler(BaseHTTPRequestHandler):
        def _forward(self) -> None:
            asked = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            kept = ("Authorization", "Content-Type", "User-Agent")
            answer = requests.request(
                self.command,
                f"{workspace.url}{asked.path}?{asked.query}",
                headers={name: self.headers[name] for name in kept if name in self.headers},
                data=body,
                timeout=30,
            )
            self.send_response(answer.status_code)
            self.send_header("Content-Type", answer.headers["Content-Type"])
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = _forward  # noqa: N815  (the names http.server asks for)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def client_of(workspace: LocalWorkspace, tmp_path: Path) -> Callable[[str, str], Client]:
    """Return what installs a requirement in an environment of that name, once and for all."""

    def make(name: str, requirement: str) -> Client:
        folder = _CACHE / f"{name}-{sys.version_info[0]}.{sys.version_info[1]}"
        done = folder / "installed"
        if not done.exists() or done.read_text() != requirement:
            venv.create(folder, clear=True, symlinks=True)
            install(folder / "bin" / "python", requirement)
            done.write_text(requirement)
        return Client(folder, workspace, tmp_path)

    return make

"""What a connection meets: a workspace, identity services, files and environment variables."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.fake_service import FakeService, Plan
from tests.fakes.identity import Certificates, Identity, IdentityServer

__all__ = ["AZURE_HOST", "CLIENT", "SECRET", "World", "served_world"]

AZURE_HOST = "adb-1.2.azuredatabricks.net"
CLIENT = "client-1"
SECRET = "secret-of-client-1"


@dataclass
class World:
    """What a connection meets: a workspace, identity services, files and environment variables.

    :ivar folder: for files.
    :ivar monkeypatch: sets environment variables.
    """

    identity: Identity
    workspace: FakeService
    server: IdentityServer
    folder: Path
    monkeypatch: pytest.MonkeyPatch

    def connection(self, **fields: Any) -> dict[str, Any]:
        """Return the fields of a connection to the workspace over TLS; others are of the extra."""
        standard: dict[str, Any] = {
            name: fields.pop(name) for name in ("login", "password") if name in fields
        }
        extra = {"verify": str(self.server.certificates.ca_file), **fields}
        return {"conn_type": "databricks", "host": self.workspace.url, **standard, "extra": extra}

    def on_azure(self, **fields: Any) -> dict[str, Any]:
        """Return the same for a workspace under a name of Azure, through the proxy of the extra."""
        connection = self.connection(proxies={"https": self.server.url}, **fields)
        return {**connection, "host": AZURE_HOST}

    def file(self, name: str, content: str, *, executable: bool = False) -> str:
        """Write a file and return its path."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        if executable:
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return os.fspath(path)

    def environment(self, **values: str) -> None:
        """Set environment variables."""
        for name, value in values.items():
            self.monkeypatch.setenv(name, value)


@contextmanager
def served_world(
    folder: Path,
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
    plan: Plan | None = None,
) -> Iterator[World]:
    """Serve a workspace over TLS, under a name of Azure too, and all identity services."""
    # Nothing is read from the home of the person who runs the tests.
    monkeypatch.setenv("HOME", str(folder))
    identity = Identity()
    identity.workspace.clients[CLIENT] = identity.entra.clients[CLIENT] = SECRET
    service = FakeService(plan, identity, certificates.context)
    with service as workspace, IdentityServer(identity, certificates) as server:
        server.routes[AZURE_HOST] = workspace.port
        yield World(identity, workspace, server, folder, monkeypatch)

"""An Airflow home of the tests' own, set before anything imports Airflow; and shared fixtures."""

from __future__ import annotations

import atexit
import os
import shutil
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.fakes.scripted_server import ScriptedServer
from tests.helpers.client_face import Face

_HOME = tempfile.mkdtemp(prefix="airflow-jobs-provider-tests-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
for name in list(os.environ):
    if name.startswith(("AIRFLOW_", "DATABRICKS_")) or name == "NETRC":
        del os.environ[name]
os.environ["AIRFLOW_HOME"] = _HOME
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
# No .netrc of the person who runs the tests is read.
os.environ["NETRC"] = f"{_HOME}/netrc"


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """A server that does as it is told."""
    scripted = ScriptedServer()
    yield scripted
    scripted.close()


@pytest.fixture
def tls_server(tmp_path: Path) -> Iterator[ScriptedServer]:
    """The same behind TLS, with a certificate of a CA that nobody knows."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    scripted = ScriptedServer(tls=context, ca_file=ca_file)
    yield scripted
    scripted.close()


@pytest.fixture(params=["blocking", "asyncio"])
def face(request: pytest.FixtureRequest) -> Iterator[Face]:
    """Each test of the clients runs on both."""
    one = Face(request.param)
    yield one
    one.close()


@pytest.fixture
def connected(face: Face, server: ScriptedServer) -> Face:
    """A face connected to the scripted server, with a short read time-out."""
    face.connect(server.url, timeout_seconds=0.3)
    return face

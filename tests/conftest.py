"""An Airflow home of the tests' own, set before anything imports Airflow; and shared fixtures."""

from __future__ import annotations

import atexit
import gc
import json
import os
import shutil
import ssl
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.fakes.identity.server import Certificates
from tests.fakes.scripted_server import TOKEN, ScriptedServer
from tests.helpers.client_face import Face

_HOME = tempfile.mkdtemp(prefix="airflow-jobs-provider-tests-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
for name in list(os.environ):
    if name.startswith(("AIRFLOW_", "ARM_", "AZURE_", "DATABRICKS_")) or name == "NETRC":
        del os.environ[name]
os.environ["AIRFLOW_HOME"] = _HOME
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
# No .netrc of the person who runs the tests is read.
os.environ["NETRC"] = f"{_HOME}/netrc"
# What is imported and collected stays, a million objects: to look for garbage among them takes a
# tenth of the time.
gc.disable()


def pytest_collection_finish() -> None:
    """Let the garbage collector work, but leave out what was imported and collected."""
    gc.freeze()
    gc.enable()


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


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A certificate for the names of all identity services, and the CA to trust."""
    return Certificates(tmp_path_factory.mktemp("ca"))


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


@pytest.fixture
def context(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A task's context, and the connection to the scripted server."""
    from tests.helpers.tasks import TaskInstance

    connection = {"conn_type": "databricks_jobs", "host": server.url, "password": TOKEN}
    monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", json.dumps(connection))
    # A test before may have made this process look like Airflow's DAG processor.
    monkeypatch.delitem(sys.modules, "airflow.dag_processing.processor", raising=False)
    return {"ti": TaskInstance(), "params": {}, "dag_run": None, "task": None}


@pytest.fixture
def logged(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> Callable[[], str]:
    """Give what was logged; each version of Airflow logs in its own way."""
    return lambda: caplog.text + capsys.readouterr().out


@pytest.fixture
def triggerer_keeps_dags(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test depend on what Airflow 3.0 cannot do but the one that is about it."""
    from airflow_jobs_provider.airflow_compat.lines import airflow_line

    monkeypatch.setattr(airflow_line(), "completion_fault", None)


@pytest.fixture
def bench(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> Iterator[Any]:
    """A ``Bench``: a service, a connection to it, and the context of a task's only try."""
    from tests.helpers.fault_bench import running_bench

    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    with running_bench(monkeypatch, caplog, parameters.get("fault", "")) as one:
        yield one

"""databricks-sdk is imported without its clients, which nobody else in the process notices."""

from __future__ import annotations

import functools
import importlib
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from airflow_jobs_provider.api.auth.sdk import deferred_init
from airflow_jobs_provider.api.auth.sdk.deferred_init import import_without_init

# A small package in place of the SDK.


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the folder of a package that can be imported; its name is ``deferred``."""
    monkeypatch.setattr(deferred_init, "_SDK", "deferred")
    others = [finder for finder in sys.meta_path if finder is not deferred_init._finder]
    monkeypatch.setattr(sys, "meta_path", others)
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = tmp_path / "deferred"
    folder.mkdir()
    (folder / "one.py").write_text("from . import two\n")
    (folder / "two.py").write_text("VALUE = 2\n")
    (folder / "runtime.py").write_text("raise SystemError('imported')\n")
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "deferred"]:
        del sys.modules[name]


def executed(folder: Path, code: str = "from .two import VALUE") -> list[int]:
    """Write the package's code; return what will tell how often it was executed."""
    (folder / "__init__.py").write_text(
        f"import sys\nsys.modules['deferred.times'].append(1)\n{code}\nName = VALUE + 1\n"
    )
    times: list[int] = []
    sys.modules["deferred.times"] = times  # type: ignore[assignment]
    return times


def test_the_package_is_executed_for_its_own_names_only(package: Path) -> None:
    """Once, in the same module object, which then has no trace of this left."""
    times = executed(package)
    one = import_without_init("deferred.one")
    module = sys.modules["deferred"]
    assert one.two.VALUE == 2
    assert module.two is one.two
    assert (times, "Name" in vars(module)) == ([], False)
    assert (module.Name, module.Name, sys.modules["deferred"]) == (3, 3, module)
    assert times == [1]
    assert not {"__getattr__", "__dir__"} & vars(module).keys()
    with pytest.raises(AttributeError, match="module 'deferred' has no attribute 'Other'"):
        module.Other  # noqa: B018


def test_dir_shows_what_the_package_has(package: Path) -> None:
    """``dir()`` executes the package, since it may be asked for names."""
    executed(package)
    import_without_init("deferred.one")
    assert "Name" in dir(sys.modules["deferred"])


def test_a_submodule_that_the_package_does_not_import_is_no_attribute(package: Path) -> None:
    """``databricks.sdk.runtime`` connects to Spark when it is imported."""
    executed(package)
    import_without_init("deferred.one")
    assert not hasattr(sys.modules["deferred"], "runtime")


def test_a_package_that_is_imported_already_is_used(package: Path) -> None:
    """It keeps its module object, and is not executed again."""
    times = executed(package)
    module = importlib.import_module("deferred")
    import_without_init("deferred.one")
    assert (sys.modules["deferred"], times) == (module, [1])


def test_a_module_that_needs_the_package_gets_it(package: Path) -> None:
    """A later SDK may define names in its ``__init__.py`` that its modules import."""
    times = executed(package, "VALUE = 2\nfrom .one import ONE")
    (package / "one.py").write_text("from . import VALUE\nONE = VALUE - 1\n")
    assert import_without_init("deferred.one").ONE == 1
    assert (len(times), vars(sys.modules["deferred"])["Name"]) == (2, 3)


def test_a_package_that_fails_is_executed_anew(package: Path) -> None:
    """The user's import gets the package's own error, each time, as ever."""
    times = executed(package, "import missing_dependency")
    import_without_init("deferred.two")
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="missing_dependency"):
            exec("from deferred import Name")
    assert len(times) == 2


def test_what_is_missing_is_an_import_error(package: Path) -> None:
    """A module that does not exist, and a package that is not installed."""
    executed(package)
    with pytest.raises(ModuleNotFoundError, match=r"deferred\.three"):
        import_without_init("deferred.three")
    (package / "four.py").write_text("import no_such_module\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        import_without_init("deferred.four")


def test_reload_executes_the_package(package: Path) -> None:
    """``importlib.reload`` is not deferred."""
    times = executed(package)
    import_without_init("deferred.one")
    module: ModuleType = importlib.reload(sys.modules["deferred"])
    assert (vars(module)["Name"], times) == (3, [1])


# The SDK itself, in a process for each test, since a process imports it once.

OURS = """
import sys
from airflow_jobs_provider.api.auth.sdk.deferred_init import import_without_init

def import_ours():
    import_without_init("airflow_jobs_provider.api.auth.sdk.config")
    import_without_init("airflow_jobs_provider.api.auth.sdk.strategies")

def is_full():
    return "databricks.sdk.service.jobs" in sys.modules
"""
#: What the SDK's users do with it.
USE = """
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from databricks.sdk import AccountClient, WorkspaceClient

class Workspace(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        is_jobs = self.path.startswith("/api/") and self.headers["Authorization"] == "Bearer t"
        self.wfile.write(b'{"jobs": [{"job_id": 7}]}' if is_jobs else b"{}")

    def log_message(self, *_): pass

with HTTPServer(("127.0.0.1", 0), Workspace) as server:
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    client = WorkspaceClient(host=f"http://127.0.0.1:{server.server_port}", token="t")
    assert [job.job_id for job in client.jobs.list()] == [7]
    server.shutdown()
del BaseHTTPRequestHandler, HTTPServer, Thread, server, Workspace
"""
SHOW = """
import databricks.sdk
assert is_full()
names = sorted(vars(databricks.sdk).keys() - {"__builtins__"})
assert names == [name for name in dir(databricks.sdk) if name != "__builtins__"]
print([(name, type(vars(databricks.sdk)[name]).__name__) for name in names])
"""


def run(*code: str) -> str:
    """Run code in a new process; return what it prints."""
    script = "\n".join(map(textwrap.dedent, (OURS, *code)))
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@functools.cache
def names_without_us() -> str:
    """Return the names and kinds of what the SDK has where this package is not imported."""
    return run(USE, SHOW)


@pytest.mark.slow
def test_a_token_needs_no_clients() -> None:
    """What is asked about the SDK as a package imports none either, nor do other users of it."""
    run("""
        import_ours()
        assert not is_full()
        from databricks.sdk.core import Config
        import databricks.sdk, importlib.metadata, importlib.resources, importlib.util, inspect
        assert " databricks-sdk-py/" in databricks.sdk.useragent.to_string()
        assert databricks.sdk.oauth is sys.modules["databricks.sdk.oauth"]
        assert importlib.metadata.version("databricks-sdk") == databricks.sdk.version.__version__
        assert (importlib.resources.files("databricks.sdk") / "py.typed").is_file()
        assert inspect.getmodule(Config) is sys.modules["databricks.sdk.config"]
        assert importlib.util.find_spec("databricks.sdk") is databricks.sdk.__spec__
        assert not is_full()
        assert "class WorkspaceClient" in inspect.getsource(databricks.sdk)
    """)


@pytest.mark.slow
def test_a_service_principal_needs_one_module() -> None:
    """Neither Google's libraries nor a service, which take four times as long to import."""
    run("""
        import_without_init("airflow_jobs_provider.api.auth.sdk.client_credentials")
        heavy = ("google", "cryptography", "databricks.sdk.service", "databricks.sdk.config")
        assert not [name for name in sys.modules if name.startswith(heavy)]
    """)


@pytest.mark.slow
@pytest.mark.parametrize(
    "order",
    [
        ["import_ours()"],
        [
            USE,
            "from databricks import sdk",
            "import_ours()",
            "assert sys.modules['databricks.sdk'] is sdk",
        ],
        ["import_ours()", "from databricks.sdk import *", "WorkspaceClient"],
        [
            "import_ours()",
            "from unittest.mock import patch",
            "patched = patch('databricks.sdk.WorkspaceClient')",
            "fake = patched.start()",
            "from databricks.sdk import WorkspaceClient",
            "assert WorkspaceClient is fake",
            "patched.stop()",
        ],
        [
            "import_ours()",
            "import pickle",
            "found = pickle.loads(b'cdatabricks.sdk\\nWorkspaceClient\\n.')",
            USE,
            "assert found is WorkspaceClient and pickle.loads(pickle.dumps(found)) is found",
        ],
    ],
    ids=["we first", "the user first", "star", "patch", "pickle"],
)
def test_the_order_of_imports_makes_no_difference(order: list[str]) -> None:
    """The same names of the same kinds, and clients that work."""
    assert run(*order, USE, SHOW) == names_without_us()


@pytest.mark.slow
@pytest.mark.parametrize("first", ["", "import_ours()"], ids=["at once", "we first"])
def test_threads_that_import_at_once(first: str) -> None:
    """All get the same classes, whoever comes first, and none waits for ever."""
    threads = """
    import importlib, random, threading
    sys.setswitchinterval(1e-5)
    found, errors, start = [], [], threading.Barrier(8)

    def user():
        from databricks.sdk import WorkspaceClient
        found.append(WorkspaceClient)

    def user_of_a_service():
        from databricks.sdk.service.jobs import JobsAPI
        from databricks.sdk import oauth
        import databricks.sdk
        found.append(databricks.sdk.WorkspaceClient)

    def attempt(act):
        start.wait()
        try:
            act()
        except BaseException as error:
            errors.append(repr(error))

    acts = [import_ours, user, user_of_a_service, import_ours] * 2
    running = [threading.Thread(target=attempt, args=(act,), daemon=True) for act in acts]
    for thread in running: thread.start()
    for thread in running: thread.join(60)
    assert errors == [], errors
    assert len(found) == 4 and len(set(found)) == 1, found
    sys.setswitchinterval(0.005)
    """
    assert run(first, threads, USE, SHOW) == names_without_us()

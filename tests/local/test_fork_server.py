"""The process that kernels are forked from: what it hands on, and that nothing of it is left."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_jobs_provider.local.runners import kernel_processes
from airflow_jobs_provider.local.runners.process_markers import MARKER_VARIABLE
from airflow_jobs_provider.local.workspace import LocalWorkspace
from tests.local.api import Api, Process, lives, until
from tests.local.program import Program

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="kernels are forked on Linux"
)

TELL = """
import json, os
dbutils.notebook.exit(json.dumps([os.getpid(), os.getppid(), os.environ.get("FOUND")]))
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Api]:
    """Return a workspace that has the test's folder to itself."""
    with LocalWorkspace(tmp_path) as workspace:
        yield Api(workspace)


def wait_in(api: Api) -> tuple[int, Any]:
    """Start a notebook that waits; return its run and the process of its kernel."""
    file = api.root / "pid"
    file.unlink(missing_ok=True)
    path = api.notebook(
        f"""
        import os, pathlib, time
        pathlib.Path({str(file)!r} + "_").write_text(str(os.getpid()))
        os.rename({str(file)!r} + "_", {str(file)!r})
        time.sleep(600)
        """
    )
    run_id = api.submit(notebook_task={"notebook_path": path})
    until(file.exists, "the notebook to start", seconds=60)
    return run_id, Process(int(file.read_text()))


def tell(api: Api) -> list[Any]:
    """Run a notebook that tells its process, its parent and a variable."""
    _, output = api.run_notebook(TELL)
    told: list[Any] = json.loads(output["notebook_output"]["result"])
    return told


def test_kernels_are_forked(workspace: Api) -> None:
    """Each kernel has a process of its own below the one fork server, and its run's marker."""
    first_id, first = wait_in(workspace)
    second_id, second = wait_in(workspace)
    server = first.parents()[1]
    assert second.parents()[1] == server
    assert first.parent() != second.parent()
    for run_id, kernel in ((first_id, first), (second_id, second)):
        for process in (kernel, kernel.parent()):
            assert f":{run_id}:" in process.environ()[MARKER_VARIABLE]
        workspace.post("runs/cancel", {"run_id": run_id})
        workspace.wait(run_id)
        assert not kernel.is_running()
    assert server.children() == []


@pytest.mark.slow
def test_each_kernel_has_random_numbers_of_its_own(workspace: Api) -> None:
    """Forked from one process, two notebooks do not get the same numbers."""
    code = """
        import json, random, tempfile, uuid
        numbers = [random.random(), str(uuid.uuid4()), tempfile.mktemp()]
        try:
            import numpy
            numbers.append(numpy.random.random())
        except ImportError:
            pass
        dbutils.notebook.exit(json.dumps(numbers))
        """
    first, second = (
        json.loads(workspace.run_notebook(code)[1]["notebook_output"]["result"]) for _ in range(2)
    )
    assert not {*first} & {*second}


def test_changed_environment_is_seen(workspace: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that was set meanwhile is seen by the next kernel; a live kernel goes on."""
    run_id, kernel = wait_in(workspace)
    server = kernel.parents()[1]
    monkeypatch.setenv("FOUND", "it")
    assert tell(workspace)[2] == "it"
    assert lives(kernel)
    assert lives(server)
    workspace.post("runs/cancel", {"run_id": run_id})
    workspace.wait(run_id)
    until(lambda: not lives(server), "the old fork server to end")


@pytest.mark.slow
def test_fork_server_that_was_killed(workspace: Api) -> None:
    """Kernels die with the fork server, their runs fail, and the next notebook runs."""
    run_id, kernel = wait_in(workspace)
    kernel.parents()[1].kill()
    assert workspace.wait(run_id)["state"]["result_state"] == "FAILED"
    assert "process died" in workspace.output(run_id)["error"]
    assert not kernel.is_running()
    assert tell(workspace)[0] != kernel.pid


@pytest.mark.slow
def test_fork_that_fails(workspace: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no room for a process, the other kernels go on, and later ones fork."""
    program, mark = tmp_path / "program.py", tmp_path / "fails"
    program.write_text(
        f"""
        import os, runpy
        fork = os.fork
        def fork_unless_marked():
            if os.path.exists({str(mark)!r}):
                raise BlockingIOError
            return fork()
        os.fork = fork_unless_marked
        runpy.run_path({str(kernel_processes._PROGRAM)!r}, run_name="__main__")
        """.replace("\n        ", "\n")
    )
    monkeypatch.setattr(kernel_processes, "_PROGRAM", program)
    _, kernel = wait_in(workspace)
    server = kernel.parents()[1]
    mark.touch()
    run_id, other = wait_in(workspace)
    # The kernel is a program of the one that executes the notebook, and that of the workspace.
    assert os.getpid() in [parent.pid for parent in other.parents()[2:5]]
    assert server not in other.parents()
    workspace.post("runs/cancel", {"run_id": run_id})
    workspace.wait(run_id)
    mark.unlink()
    assert wait_in(workspace)[1].parents()[1] == server
    assert lives(kernel)


@pytest.mark.slow
@pytest.mark.parametrize("is_forked", [True, False])
def test_safe_path(
    workspace: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_forked: bool
) -> None:
    """With PYTHONSAFEPATH a notebook still imports from each folder of PYTHONPATH."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "of_the_path.py").write_text("FOUND = 'it'")
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "elsewhere"), prepend=os.pathsep)
    monkeypatch.setattr(kernel_processes, "_IS_SUPPORTED", is_forked)
    _, output = workspace.run_notebook(
        "import of_the_path", "dbutils.notebook.exit(of_the_path.FOUND)"
    )
    assert output["notebook_output"]["result"] == "it"


@pytest.mark.slow
def test_canceled_before_its_kernel_is_there(workspace: Api) -> None:
    """A run that is canceled while it waits for its process leaves none."""
    run_id, kernel = wait_in(workspace)
    server = kernel.parents()[1]
    workspace.post("runs/cancel", {"run_id": run_id})
    workspace.wait(run_id)
    [note] = (workspace.root / ".workspace").glob("temporary-folder")
    folder = Path(note.read_text())
    server.suspend()
    run_id = workspace.submit(notebook_task={"notebook_path": workspace.notebook("1")})
    until(lambda: [*folder.glob("*/task.json")], "the process to be asked for")
    workspace.post("runs/cancel", {"run_id": run_id})
    assert workspace.wait(run_id)["state"]["result_state"] == "CANCELED"
    server.resume()
    assert tell(workspace)[0]  # its request came later
    until(lambda: not server.children(recursive=True), "the unwanted process to end")


@pytest.mark.slow
def test_process_of_a_notebook_that_was_killed(workspace: Api) -> None:
    """The run fails, and its kernel is killed."""
    run_id, kernel = wait_in(workspace)
    server, supervisor = kernel.parents()[1], kernel.parent()
    (client,) = [child for child in server.children() if child != supervisor]
    client.kill()
    assert workspace.wait(run_id)["state"]["result_state"] == "FAILED"
    assert "process died" in workspace.output(run_id)["error"]
    assert not lives(kernel)
    assert tell(workspace)[0]


@pytest.mark.slow
def test_killed_workspace_leaves_none(tmp_path: Path, programs: list[Program]) -> None:
    """A workspace that is killed leaves neither the fork server nor a kernel."""
    program = Program(tmp_path, "--port", "0")
    programs.append(program)
    _, kernel = wait_in(program.api())
    processes = [kernel, *kernel.parents()[:2]]
    server = processes[-1]
    assert server.ppid() == program.process.pid
    processes += [child for child in server.children() if child not in processes]
    assert len(processes) == 4
    program.process.kill()
    for process in processes:
        process.wait(timeout=30)


@pytest.mark.slow
def test_forked_process_is_found_by_its_marker(workspace: Api) -> None:
    """What a kernel has forked without a new program is found when the supervisor is gone."""
    file = workspace.root / "forked"
    path = workspace.notebook(
        f"""
        import os, pathlib, signal, time
        if os.fork() == 0:
            os.setsid()
            pathlib.Path({str(file)!r} + "_").write_text(str(os.getpid()))
            os.rename({str(file)!r} + "_", {str(file)!r})
            time.sleep(600)
        while not os.path.exists({str(file)!r}):
            time.sleep(0.02)
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(600)
        """
    )
    run_id = workspace.submit(notebook_task={"notebook_path": path})
    until(file.exists, "the fork", seconds=60)
    forked = Process(int(file.read_text()))
    workspace.wait(run_id)
    assert not lives(forked)

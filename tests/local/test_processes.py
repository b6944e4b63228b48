"""No process of a run outlives it, whatever the process does to get away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from airflow_jobs_provider.local.runners.process_markers import MARKER_VARIABLE, kill_marked
from airflow_jobs_provider.local.workspace import LocalWorkspace
from tests.local.api import Api, Process, lives, until
from tests.local.program import Program

psutil: Any = import_module("psutil")
pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the supervisor of a run needs Linux"
)

# Each way to leave the parent behind, as a user's code would go it. What is started writes its
# process id into a file of a name of its own, and would sleep for ten minutes.
ESCAPES = """
import os, subprocess, sys

WRITE = (
    "import os, sys, time; open(sys.argv[1] + '_', 'w').write(str(os.getpid()));"
    "os.rename(sys.argv[1] + '_', sys.argv[1]); time.sleep(600)"
)


def start(folder):
    def command(name):
        return [sys.executable, "-c", WRITE, os.path.join(folder, name)]

    nothing = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL,
               "stderr": subprocess.DEVNULL}
    subprocess.Popen(command("plain"), **nothing)
    subprocess.Popen(command("session"), start_new_session=True, **nothing)
    subprocess.Popen(command("no_environment"), start_new_session=True, env={}, **nothing)
    shell = "nohup setsid \\"$@\\" >/dev/null 2>&1 &"
    subprocess.run(["sh", "-c", shell, "sh", *command("nohup")], check=True)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for descriptor in range(3):
                os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
            os.execv(sys.executable, command("double_fork"))
        os._exit(0)
    os.wait()
"""
NAMES = ("plain", "session", "no_environment", "nohup", "double_fork")
WAIT = "import time\ntime.sleep(600)\n"
# Ends by itself once all processes have written their ids.
WAIT_FOR_ALL = f"""import os, time
while not all(os.path.exists(os.path.join(folder, name)) for name in {NAMES!r}):
    time.sleep(0.02)
"""
KINDS = ("python", "notebook", "sh")


def task_of(root: Path, kind: str, *, ends: bool) -> dict[str, Any]:
    """Write the code of a run that starts the processes, and return its task."""
    (root / "escapes.py").write_text(ESCAPES)
    folder = root / "pids"
    folder.mkdir(exist_ok=True)
    code = f"import escapes\nfolder = {str(folder)!r}\nescapes.start(folder)\n"
    code += WAIT_FOR_ALL if ends else WAIT
    if kind == "python":
        (root / "work.py").write_text(code)
        return {"spark_python_task": {"python_file": "/work.py"}}
    if kind == "sh":
        (root / "code.py").write_text(code)
        magic = f"cd {root} && {sys.executable} code.py"
        code = f"# MAGIC %sh\n# MAGIC {magic}\n"
    (root / "work.py").write_text(f"# Databricks notebook source\n{code}")
    return {"notebook_task": {"notebook_path": "/work"}}


def started(root: Path) -> dict[str, Any]:
    """Wait until all processes have been started, and return them by name."""
    processes = {}
    for name in NAMES:
        file = root / "pids" / name
        until(file.exists, f"{name} to start", seconds=30)
        processes[name] = Process(int(file.read_text()))
    return processes


def assert_gone(processes: dict[str, Any], seconds: float = 5) -> None:
    """Assert that the processes end within so many seconds."""
    gone, _ = psutil.wait_procs(list(processes.values()), timeout=seconds)
    assert len(gone) == len(processes), [name for name, one in processes.items() if lives(one)]


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Api]:
    """Return a workspace that has the test's folder to itself."""
    with LocalWorkspace(tmp_path) as workspace:
        yield Api(workspace)


@pytest.mark.parametrize("kind", KINDS)
def test_run_that_ends(workspace: Api, kind: str) -> None:
    """When a run has ended by itself, none of its processes is left."""
    run_id = workspace.submit(**task_of(workspace.root, kind, ends=True))
    state = workspace.wait(run_id)["state"]
    assert state["result_state"] == "SUCCESS", workspace.output(run_id)
    for name in NAMES:
        assert not psutil.pid_exists(int((workspace.root / "pids" / name).read_text())), name


@pytest.mark.parametrize("kind", KINDS)
def test_run_that_is_canceled(workspace: Api, kind: str) -> None:
    """When a canceled run has ended, none of its processes is left."""
    run_id = workspace.submit(**task_of(workspace.root, kind, ends=False))
    processes = started(workspace.root)
    workspace.post("runs/cancel", {"run_id": run_id})
    assert workspace.wait(run_id)["state"]["result_state"] == "CANCELED"
    assert_gone(processes, seconds=0)


# What ends the processes is the same as in a run that is canceled.
@pytest.mark.parametrize(
    "kind", [KINDS[0], *(pytest.param(kind, marks=pytest.mark.exhaustive) for kind in KINDS[1:])]
)
def test_run_that_times_out(workspace: Api, kind: str) -> None:
    """When a run has timed out, none of its processes is left."""
    job_id = workspace.create(**task_of(workspace.root, kind, ends=False))
    run_id = workspace.run_now(job_id)
    processes = started(workspace.root)
    # The one change of a job that its active runs follow.
    changed = {"job_id": job_id, "new_settings": {"timeout_seconds": 1}}
    assert workspace.post("update", changed).status_code == 200
    assert workspace.wait(run_id)["state"]["result_state"] == "TIMEDOUT"
    assert_gone(processes, seconds=0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_workspace_that_is_killed(tmp_path: Path, programs: list[Program], kind: str) -> None:
    """When the workspace is killed with SIGKILL, its runs' processes end without a new start."""
    program = _start(tmp_path, programs, task_of(tmp_path, kind, ends=False))
    processes = started(tmp_path)
    program.process.kill()
    assert_gone(processes)


@pytest.mark.slow
def test_sweep_at_the_next_start(tmp_path: Path, programs: list[Program]) -> None:
    """What outlived both workspace and supervisor is killed at the next start, and nothing else."""
    other_root, root = tmp_path / "other", tmp_path / "root"
    for folder in (other_root, root):
        folder.mkdir()
    _start(other_root, programs, task_of(other_root, "python", ends=False))
    program = _start(root, programs, task_of(root, "python", ends=False))
    others, processes = started(other_root), started(root)
    # Out of any workspace's reach without the marker, and with no supervisor to find it.
    del processes["no_environment"]
    foreign = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"],
        env={**os.environ, MARKER_VARIABLE: "foreign:1:"},
    )
    supervisors = Process(program.process.pid).children()
    for process in (program.process, *supervisors):
        process.send_signal(signal.SIGSTOP)  # so that none sees the others end
    for process in (*supervisors, program.process):
        process.kill()
    program.process.wait()
    psutil.wait_procs(supervisors, timeout=5)
    assert lives(processes["double_fork"])
    stray = Process(int((root / "pids" / "no_environment").read_text()))
    try:
        with LocalWorkspace(root):
            assert_gone(processes)
        assert all(lives(process) for process in others.values())
        assert foreign.poll() is None
    finally:
        stray.kill()
        foreign.kill()
        foreign.wait()


@pytest.mark.slow
def test_run_that_kills_its_supervisor(workspace: Api) -> None:
    """A run whose supervisor was killed fails, and its processes are found by their marker."""
    task = task_of(workspace.root, "python", ends=True)
    with (workspace.root / "work.py").open("a") as file:
        file.write("import signal\nos.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(600)\n")
    run_id = workspace.submit(**task)
    processes = started(workspace.root)
    stray = processes.pop("no_environment")
    assert workspace.wait(run_id)["state"]["result_state"] == "FAILED"
    assert_gone(processes, seconds=0)
    stray.kill()


def test_run_that_signals_its_supervisor(workspace: Api) -> None:
    """Signals that a run sends to its parent or its group neither end that nor hide a process."""
    task = task_of(workspace.root, "python", ends=True)
    with (workspace.root / "work.py").open("a") as file:
        file.write(
            "import signal\n"
            "for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGALRM):\n"
            "    os.kill(os.getppid(), number)\n"
            "assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])\n"
            "os.killpg(0, signal.SIGKILL)\n"
        )
    run_id = workspace.submit(**task)
    assert workspace.wait(run_id)["state"]["result_state"] == "FAILED"
    assert workspace.output(run_id)["error"] == "The process was ended by SIGKILL"
    for name in NAMES:
        assert not psutil.pid_exists(int((workspace.root / "pids" / name).read_text())), name


@pytest.mark.slow
def test_own_ancestors_are_spared(tmp_path: Path) -> None:
    """A workspace that was started by what a run left does not kill itself at its start."""
    code = (
        "import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c',"
        "'from airflow_jobs_provider.local.runners.process_markers import kill_marked;"
        ' print(kill_marked("x:"))\''
        "]).returncode)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, MARKER_VARIABLE: "x:1:"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stdout.strip()) == (0, "0"), ran.stderr
    assert kill_marked("x:") == 0


def test_exit_code_and_signal_of_a_file(workspace: Api) -> None:
    """The supervisor ends as the file does: its exit code, or the signal that ended it."""
    code = workspace.submit_python("import sys; sys.exit(7)")
    workspace.wait(code)
    assert workspace.output(code)["error"] == "The process ended with exit code 7"
    killed = workspace.submit_python("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    workspace.wait(killed)
    assert workspace.output(killed)["error"] == "The process was ended by SIGSEGV"


def _start(root: Path, programs: list[Program], task: dict[str, Any]) -> Program:
    """Start a workspace as a program, and a run of the task in it."""
    program = Program(root, "--port", "0")
    programs.append(program)
    program.api().submit(**task)
    return program

"""The workspace as a program: what it prints, how it refuses, how it stops."""

from __future__ import annotations

import signal
import socket
import threading
from pathlib import Path

import pytest
import requests

from airflow_jobs_provider.local import workspace as workspace_module
from airflow_jobs_provider.local.__main__ import main
from airflow_jobs_provider.local.workspace import CannotStartError, LocalWorkspace
from tests.local.api import Process, lives, until
from tests.local.program import Program

DRY = {"notebook_task": {"notebook_path": "/nowhere"}, "existing_cluster_id": "c"}
NOTEBOOK = """# Databricks notebook source
import os, time
with open("pid_", "w") as file:
    file.write(str(os.getpid()))
os.rename("pid_", "pid")
time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_survives(tmp_path: Path, programs: list[Program], number: int) -> None:
    """However the program is stopped, no kernel survives, and the run ends INTERNAL_ERROR."""
    (tmp_path / "long.py").write_text(NOTEBOOK)
    program = Program(tmp_path, "--port", "0")
    programs.append(program)
    connection = program.connection()
    assert connection["conn_type"] == "databricks_jobs"
    body = {"notebook_task": {"notebook_path": "/long"}, "existing_cluster_id": "c"}
    headers = {"Authorization": f"Bearer {connection['password']}"}
    jobs = f"{connection['host']}/api/2.0/jobs"
    answer = requests.post(f"{jobs}/runs/submit", json=body, headers=headers, timeout=10)
    until((tmp_path / "pid").exists, "the notebook to run")
    kernel = Process(int((tmp_path / "pid").read_text()))
    program.process.send_signal(number)
    _, errors = program.end()
    assert errors == ""
    assert program.process.returncode == (-number if number == signal.SIGKILL else 0)
    until(lambda: not lives(kernel), "the kernel to end", seconds=5)
    temporary = Path((tmp_path / ".workspace" / "temporary-folder").read_text())
    with LocalWorkspace(tmp_path) as workspace:
        headers = {"Authorization": f"Bearer {workspace.token}"}
        url = f"{workspace.url}/api/2.0/jobs/runs/get"
        run = requests.get(url, params=answer.json(), headers=headers, timeout=10).json()
        assert run["state"]["life_cycle_state"] == "INTERNAL_ERROR"
        assert "stopped while the run was active" in run["state"]["state_message"]
        assert not temporary.exists()


@pytest.mark.slow
def test_output_of_a_notebook_that_nobody_reads(tmp_path: Path, programs: list[Program]) -> None:
    """What a notebook's child prints goes into the notebook, not to the workspace's own output."""
    (tmp_path / "loud.py").write_text(
        "# Databricks notebook source\n"
        "import subprocess, sys\n"
        'child = \'import sys; print("x" * 500_000); print("y" * 500_000, file=sys.stderr)\'\n'
        "subprocess.run([sys.executable, '-c', child], check=True)\n"
        "dbutils.notebook.exit('done')\n"
    )
    program = Program(tmp_path, "--port", "0")
    programs.append(program)
    api = program.api()
    run_id = api.submit(notebook_task={"notebook_path": "/loud"})
    assert api.wait(run_id)["state"]["result_state"] == "SUCCESS"
    assert api.output(run_id)["notebook_output"]["result"] == "done"
    [view] = api.get("runs/export", run_id=run_id).json()["views"]
    assert "xxxxx" in view["content"]
    assert "yyyyy" in view["content"]
    program.process.send_signal(signal.SIGTERM)
    printed, errors = program.end()
    assert "xxxxx" not in printed
    assert errors == ""


def test_token_and_port_can_be_chosen(tmp_path: Path, programs: list[Program]) -> None:
    """The token and the port given are used; a port that is taken is said so."""
    with LocalWorkspace(tmp_path) as taken:
        port = taken.url.rpartition(":")[2]
        other = tmp_path / "other"
        other.mkdir()
        program = Program(other, "--port", port)
        programs.append(program)
        _, errors = program.end()
        assert program.process.returncode == 1
        assert errors.startswith(f"error: Port {port} of 127.0.0.1 cannot be used")
        assert "Traceback" not in errors
    program = Program(tmp_path, "--port", port, "--token", "chosen", "--max-concurrent-runs", "3")
    programs.append(program)
    assert program.connection() == {
        "conn_type": "databricks_jobs",
        "host": f"http://127.0.0.1:{port}",
        "password": "chosen",
    }


def test_refusals(tmp_path: Path, programs: list[Program]) -> None:
    """A root that is not there, and a limit of no runs, are refused in one line."""
    missing = Program(tmp_path / "nowhere", "--port", "0")
    programs.append(missing)
    assert missing.end()[1] == f"error: The workspace's root {tmp_path}/nowhere is not a folder\n"
    assert missing.process.returncode == 1
    none = Program(tmp_path, "--max-concurrent-runs", "0")
    programs.append(none)
    assert "must be at least 1" in none.end()[1]
    assert none.process.returncode == 2


def test_missing_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the extra is not installed, the workspace says how to install it."""
    monkeypatch.setattr(workspace_module, "_EXTRA_MODULES", ("no_such_module",))
    with pytest.raises(CannotStartError, match=r"pip install 'airflow-jobs-provider\[local\]'"):
        LocalWorkspace(tmp_path).start()


def test_workspace_that_was_not_started(tmp_path: Path) -> None:
    """A workspace has a URL only once it has been started; stopping it early does nothing."""
    workspace = LocalWorkspace(tmp_path)
    with pytest.raises(RuntimeError, match="not been started"):
        _ = workspace.url
    workspace.stop()


def modes_of(folder: Path) -> dict[str, int]:
    """Return what others may do with a folder and with all that is in it."""
    return {
        str(path.relative_to(folder.parent)): path.stat().st_mode & 0o077
        for path in (folder, *folder.rglob("*"))
        if not path.is_symlink()
    }


def test_state_is_private(tmp_path: Path) -> None:
    """What the workspace keeps is not readable for other users, whoever made the folder and how."""
    state = tmp_path / ".workspace"
    state.mkdir()
    state.chmod(0o755)
    outside = tmp_path / "outside"
    outside.write_text("x")
    outside.chmod(0o644)
    (state / "link").symlink_to(outside)
    with LocalWorkspace(tmp_path, dry_run=True):
        assert state.stat().st_mode & 0o077 == 0
        (state / "runs" / "7.ipynb").write_text("{}")
    for path in (state, *state.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o777 if path.is_dir() else 0o666)
    assert all(modes_of(state).values())
    with LocalWorkspace(tmp_path, dry_run=True):
        left = {name: mode for name, mode in modes_of(state).items() if mode}
        # What was made anew since is in a folder that nobody else can enter.
        assert ".workspace" not in left
        assert ".workspace/runs" not in left
        assert ".workspace/runs/7.ipynb" not in left
        assert ".workspace/workspace.sqlite" not in left
    assert outside.stat().st_mode & 0o777 == 0o644


def test_state_folder_that_is_shared(tmp_path: Path) -> None:
    """A folder that other things are in is neither used for the state nor closed to others."""
    root = tmp_path / "root"
    root.mkdir()
    public = tmp_path / "public"
    public.mkdir()
    public.chmod(0o1777)
    inside = root / "state"
    inside.mkdir()
    for folder in (root, tmp_path, public, inside):
        before = folder.stat().st_mode
        with pytest.raises(CannotStartError, match="choose a folder of its own"):
            LocalWorkspace(root, state_dir=folder).start()
        assert folder.stat().st_mode == before


def arguments_of(program: Program) -> str:
    """Return what the list of processes shows of a program."""
    return " ".join(Process(program.process.pid).cmdline())


def test_token_from_a_file(tmp_path: Path, programs: list[Program]) -> None:
    """The token can be given in a file, so that the list of processes does not show it."""
    file = tmp_path / "token"
    file.write_text("from-a-file\n")
    file.chmod(0o600)
    program = Program(tmp_path, "--port", "0", "--token-file", str(file))
    programs.append(program)
    assert program.connection()["password"] == "from-a-file"
    assert "from-a-file" not in arguments_of(program)
    program.process.terminate()
    assert program.end()[1] == ""


def test_token_from_the_environment(
    tmp_path: Path, programs: list[Program], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token can be given in an environment variable, which no run inherits."""
    monkeypatch.setenv("AIRFLOW_JOBS_PROVIDER_LOCAL_TOKEN", "from-the-environment")
    (tmp_path / "show.py").write_text("import os\nprint(dict(os.environ))\n")
    program = Program(tmp_path, "--port", "0")
    programs.append(program)
    connection = program.connection()
    assert connection["password"] == "from-the-environment"
    assert "from-the-environment" not in arguments_of(program)
    jobs = f"{connection['host']}/api/2.1/jobs"
    headers = {"Authorization": f"Bearer {connection['password']}"}
    body = {"spark_python_task": {"python_file": "/show.py"}, "existing_cluster_id": "c"}
    launched = requests.post(f"{jobs}/runs/submit", json=body, headers=headers, timeout=10).json()

    def logs() -> str | None:
        answer = requests.get(
            f"{jobs}/runs/get-output", params=launched, headers=headers, timeout=10
        )
        found: str | None = answer.json().get("logs")
        return found

    printed = str(until(logs, "the run's output"))
    assert "'PATH'" in printed
    assert "from-the-environment" not in printed
    # Given otherwise, too, the option counts; and it is said that others see it.
    program.process.terminate()
    assert program.end()[1] == ""
    other = Program(tmp_path, "--port", "0", "--token", "chosen")
    programs.append(other)
    assert other.connection()["password"] == "chosen"
    other.process.terminate()
    assert "--token is shown in the list of processes" in other.end()[1]


@pytest.mark.parametrize(
    ("content", "refusal"),
    [
        (None, "cannot be read"),
        (b" \n", "is empty"),
        (b"\xff\xfe", "cannot be read"),
        ("tästä".encode(), "must consist of printable ASCII characters"),
        (b"two words", "must consist of printable ASCII characters"),
    ],
)
def test_token_files_that_hold_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, refusal: str
) -> None:
    """A file that holds no token that a header can carry is refused in one line."""
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    assert main(["--root", str(tmp_path), "--port", "0", "--token-file", str(file)]) == 1
    error = capsys.readouterr().err
    assert refusal in error
    assert "Traceback" not in error


def test_main_in_this_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command serves until it is told to stop, and returns its exit code."""
    assert main(["--root", str(tmp_path / "nowhere"), "--port", "0"]) == 1
    assert "is not a folder" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    def stop_it() -> None:
        until(lambda: _answers(f"http://127.0.0.1:{port}"), "the workspace to answer")
        signal.raise_signal(signal.SIGTERM)

    stopping = threading.Thread(target=stop_it)
    stopping.start()
    assert main(["--root", str(tmp_path), "--port", str(port), "--token", "chosen"]) == 0
    stopping.join()
    printed = capsys.readouterr().out
    assert '"password": "chosen"' in printed
    assert "Stopping" in printed


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).status_code == 200
    except requests.ConnectionError:
        return False


def test_dry_run(tmp_path: Path, programs: list[Program]) -> None:
    """With --dry-run a run ends well at once, though its notebook is not there."""
    program = Program(tmp_path, "--port", "0", "--dry-run")
    programs.append(program)
    connection = program.connection()
    jobs = f"{connection['host']}/api/2.0/jobs"
    headers = {"Authorization": f"Bearer {connection['password']}"}
    launched = requests.post(f"{jobs}/runs/submit", json=DRY, headers=headers, timeout=10).json()

    def result() -> str | None:
        answer = requests.get(f"{jobs}/runs/get", params=launched, headers=headers, timeout=10)
        found: str | None = answer.json()["state"].get("result_state")
        return found

    assert until(result, "the run to end") == "SUCCESS"

"""The command: which files it examines, what it prints and writes, its exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_jobs_provider.migrate import __main__ as command
from scripts.airflow_env import ROOT

OFFICIAL = "airflow.providers.databricks.operators.databricks"
OURS = "airflow_jobs_provider.operators.jobs"
BEFORE = f"from {OFFICIAL} import DatabricksRunNowOperator\nraise SystemExit('executed')\n"
AFTER = BEFORE.replace(OFFICIAL, OURS)


@pytest.fixture
def dags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with DAG files, which is the current one."""
    for name, content in {
        "one.py": BEFORE,
        "sub/two.py": BEFORE,
        "sub/plain.py": "import os\n",
        "factory.yaml": f"operator: {OFFICIAL}.DatabricksRunNowOperator\n",
        "notes.md": OFFICIAL,
        ".hidden/three.py": BEFORE,
        "venv/pyvenv.cfg": "",
        "venv/four.py": BEFORE,
        "__pycache__/five.py": BEFORE,
    }.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_diff_is_the_default(dags: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """The files stay as they are; the diff goes to stdout, the report to stderr; exit code 1."""
    assert command.main([str(dags)]) == 1
    assert (dags / "one.py").read_text() == BEFORE
    shown = capsysbinary.readouterr()
    assert shown.out.count(b"+++ ") == 2
    assert b"+++ b/sub/two.py\n" in shown.out
    report = shown.err.decode()
    assert "one.py\n  moves   line 1: DatabricksRunNowOperator to" in report
    assert "factory.yaml\n  check   line 1: the line names airflow.providers.databricks" in report
    assert report.endswith(
        "Files to be changed: 2. Files that failed: 0.\nTo change them, add --write.\n"
    )


@pytest.fixture
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which the Makefile finds this environment, and installs nothing."""
    folder = tmp_path_factory.mktemp("checkout")
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    (folder / "scripts").mkdir()
    (folder / "scripts" / "venv.sh").write_text("exit 0\n")
    return folder


def make_migrate(checkout: Path, *variables: str) -> subprocess.CompletedProcess[str]:
    """Run ``make migrate``."""
    # What an outer make passes on to its jobs.
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", "--file", str(ROOT / "Makefile"), "migrate", *variables],
        cwd=checkout,
        env={**env, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_make_migrate_succeeds_with_changes_to_show(dags: Path, checkout: Path) -> None:
    """It shows them; the exit code tells only what could not be done."""
    shown = make_migrate(checkout, f"DAGS={dags}")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.count("+++ ") == 2
    assert "Files to be changed: 2. Files that failed: 0." in shown.stderr
    assert (dags / "one.py").read_text() == BEFORE
    written = make_migrate(checkout, f"DAGS={dags}", "WRITE=1")
    assert written.returncode == 0, written.stderr
    assert "Files changed: 2. Files that failed: 0." in written.stderr
    assert (dags / "one.py").read_text() == AFTER


def test_make_migrate_fails_where_a_file_cannot_be_examined(dags: Path, checkout: Path) -> None:
    """Also where others are to be changed. So it does where no folder is named."""
    (dags / "broken.py").write_text(f"from {OFFICIAL} import (\n")
    failed = make_migrate(checkout, f"DAGS={dags}")
    assert failed.returncode == 2
    assert "Files to be changed: 2. Files that failed: 1." in failed.stderr
    missing = make_migrate(checkout, f"DAGS={dags / 'none'}")
    assert missing.returncode == 2
    assert "Files that failed: 1." in missing.stderr
    unnamed = make_migrate(checkout)
    assert unnamed.returncode == 2
    assert "Error: name a folder: make migrate DAGS=dir" in unnamed.stderr


def test_the_diff_can_be_applied(dags: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """By git, also where the last line has no line feed, and lines end with CR and LF."""
    crlf = BEFORE.replace("\n", "\r\n").rstrip().encode()
    (dags / "sub" / "two.py").write_bytes(crlf)
    command.main(["one.py", "sub"])
    patch = capsysbinary.readouterr().out
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run(["git", "apply"], input=patch, check=True)
    assert (dags / "one.py").read_text() == AFTER
    assert (dags / "sub" / "two.py").read_bytes() == crlf.replace(OFFICIAL.encode(), OURS.encode())


def test_write_changes_the_files(dags: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """Once: the second time there is nothing to do. Links and permissions are kept."""
    (dags / "one.py").chmod(0o640)
    (dags / "link.py").symlink_to("one.py")
    assert command.main(["--write", "."]) == 0
    shown = capsysbinary.readouterr()
    assert not shown.out
    assert b"--write" not in shown.err
    assert (dags / "one.py").read_text() == (dags / "sub" / "two.py").read_text() == AFTER
    assert (dags / "one.py").stat().st_mode & 0o777 == 0o640
    assert (dags / "link.py").is_symlink()
    assert (dags / "venv" / "four.py").read_text() == BEFORE
    assert {path.name for path in dags.iterdir() if path.is_file()} == {
        "factory.yaml",
        "link.py",
        "notes.md",
        "one.py",
    }
    assert command.main(["."]) == 0


def test_a_link_is_examined_as_its_file(
    dags: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """The diff has each file once, and git applies it."""
    (dags / "a_link.py").symlink_to("one.py")
    assert command.main([str(dags), "one.py"]) == 1
    patch = capsysbinary.readouterr().out
    assert patch.count(b"+++ ") == 2
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run(["git", "apply"], input=patch, check=True)
    assert (dags / "one.py").read_text() == AFTER


def test_a_file_that_cannot_be_written(
    dags: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is named, the others are written, and the exit code is 2."""

    def fail_once(path: Path, content: bytes) -> None:
        monkeypatch.undo()
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(command, "replace", fail_once)
    assert command.main(["--write", str(dags)]) == 2
    assert (dags / "one.py").read_text() == BEFORE
    assert (dags / "sub" / "two.py").read_text() == AFTER
    shown = capsys.readouterr().err
    assert "No space left on device" in shown
    assert shown.endswith("Files changed: 1. Files that failed: 1.\n")


def test_a_file_that_cannot_be_parsed(
    dags: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """It is left, the others are written, and the exit code is 2."""
    broken = f"from {OFFICIAL} import (\n"
    (dags / "one.py").write_text(broken)
    assert command.main(["--write", "."]) == 2
    assert (dags / "one.py").read_text() == broken
    assert (dags / "sub" / "two.py").read_text() == AFTER
    assert b"one.py\n  error   " in capsysbinary.readouterr().err


def test_code_that_is_nested_too_deeply(dags: Path) -> None:
    """Also that is an error of its file only."""
    (dags / "one.py").write_text(BEFORE + "x = " + "-" * 1200 + "1\n")
    # Whatever another test of this process has set.
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    try:
        assert command.main(["--write", "."]) == 2
    finally:
        sys.setrecursionlimit(limit)
    assert (dags / "sub" / "two.py").read_text() == AFTER


def test_a_path_that_is_not_there(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """The message names it."""
    assert command.main(["/no/such/folder"]) == 2
    assert (
        b"/no/such/folder\n  error   No such file or directory\n" in capsysbinary.readouterr().err
    )


@pytest.mark.parametrize(
    ("hidden", "code", "words"),
    [
        ("libcst", 2, "pip install 'airflow-jobs-provider[migrate]'"),
        ("airflow", 1, "Files to be changed: 2."),
    ],
)
def test_what_must_be_installed(dags: Path, hidden: str, code: int, words: str) -> None:
    """Libcst, and a message names it; Airflow need not be there."""
    program = (
        f"import sys; sys.modules[{hidden!r}] = None; sys.argv = ['migrate', {str(dags)!r}]\n"
        "import runpy; runpy.run_module('airflow_jobs_provider.migrate', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert words in done.stderr

"""The package as an earlier version had it, for tests of an upgrade."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from scripts.airflow_env import ROOT

__all__ = ["EARLIER_VERSION", "earlier_commit", "unpack_wheel"]

# So that each request tells which version has sent it.
EARLIER_VERSION = "0.0.1"

# Before the first release: a commit of the day on which stored triggers were first kept.
_FIRST_COMMIT = "330e111"
_PARTS = ("airflow_jobs_provider", "pyproject.toml", "README.md", "LICENSE")


def earlier_commit() -> str:
    """Return the commit to upgrade from: UPGRADE_FROM, the latest release, or the first commit.

    Skips the test where the history is not there, as in a source distribution.
    """
    if given := os.environ.get("UPGRADE_FROM"):
        return given
    # Not the release that this commit itself may be.
    found = _git("describe", "--tags", "--abbrev=0", "--match", "v*", "HEAD^")
    commit = found.stdout.decode().strip() or _FIRST_COMMIT
    if _git("cat-file", "-e", f"{commit}^{{commit}}").returncode:
        pytest.skip(f"the commit {commit} is not in this clone's history")
    return commit


def unpack_wheel(commit: str, folder: Path) -> Path:
    """Build the wheel of a commit and unpack it; return the folder, a place for PYTHONPATH.

    :param commit: the commit, or a tag.
    :param folder: an empty folder.
    """
    archive = _git("archive", commit, *_PARTS)
    archive.check_returncode()
    source, wheel = folder / "source", folder / "wheel"
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(source, filter="data")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*command, str(source)], check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    with zipfile.ZipFile(built) as content:
        content.extractall(wheel)
    version = wheel / "airflow_jobs_provider" / "_version.py"
    version.write_text(f'__version__ = "{EARLIER_VERSION}"\n')
    return wheel


def _git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=False, capture_output=True)

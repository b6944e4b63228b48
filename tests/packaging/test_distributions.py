"""The distributions: the same bytes wherever they are built, and metadata that an index takes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from scripts.airflow_env import ROOT

pytestmark = pytest.mark.slow

PROJECT_URL = "https://forge.example/team/project"
COMMIT_TIME = "1790000000"


def build(source: Path, dist: Path, *, umask: int, wheel_only: bool = False, **env: str) -> None:
    """Build the distributions as ``make dist`` does."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(dist), str(source)]
    without = ("PROJECT_URL", "PROJECT_DOCUMENTATION_URL")
    kept = {name: value for name, value in os.environ.items() if name not in without}
    subprocess.run(
        [*command, *(["--wheel"] if wheel_only else [])],
        env=kept | {"SOURCE_DATE_EPOCH": COMMIT_TIME, **env},
        umask=umask,
        check=True,
        capture_output=True,
    )


def copy_of_checkout(folder: Path, *, mode: int) -> Path:
    """Copy the tracked files, with another time and other permissions."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=False, capture_output=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target)
            target.chmod(mode)
    return folder


@pytest.fixture(scope="module")
def dists(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Folders with the distributions of two copies of the checkout."""
    folders = []
    for number, (mode, umask) in enumerate(((0o644, 0o022), (0o600, 0o077))):
        source = copy_of_checkout(tmp_path_factory.mktemp(f"copy{'y' * number}"), mode=mode)
        folders.append(tmp_path_factory.mktemp("dist"))
        build(source, folders[-1], umask=umask, PROJECT_URL=PROJECT_URL)
    return folders


def test_the_same_bytes_are_built_everywhere(dists: list[Path]) -> None:
    """Path, time, permissions and umask of the checkout make no difference."""
    first, second = dists
    names = sorted(file.name for file in first.iterdir())
    assert [Path(name).suffix for name in names] == [".whl", ".gz"]
    assert names == sorted(file.name for file in second.iterdir())
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_the_files_have_the_time_of_the_commit(dists: list[Path]) -> None:
    """SOURCE_DATE_EPOCH is honoured."""
    (sdist,) = dists[0].glob("*.tar.gz")
    with tarfile.open(sdist) as files:
        assert {file.mtime for file in files} == {int(COMMIT_TIME)}


def test_the_metadata_name_documentation_and_source(dists: list[Path], tmp_path: Path) -> None:
    """Also in a wheel that a user builds from the sdist, without PROJECT_URL."""
    (wheel,) = dists[0].glob("*.whl")
    (sdist,) = dists[0].glob("*.tar.gz")
    expected = {
        "Documentation": f"{PROJECT_URL}#readme",
        "Source": PROJECT_URL,
        "Issues": f"{PROJECT_URL}/issues",
    }
    assert urls_of(wheel) == expected
    with tarfile.open(sdist) as files:
        files.extractall(tmp_path, filter="data")
    (source,) = (path for path in tmp_path.iterdir())
    build(source, tmp_path / "again", umask=0o022, wheel_only=True)
    (again,) = (tmp_path / "again").glob("*.whl")
    assert urls_of(again) == expected
    assert again.read_bytes() == wheel.read_bytes()


def urls_of(wheel: Path) -> dict[str, str]:
    """Return the project's addresses in the metadata of a wheel."""
    with zipfile.ZipFile(wheel) as files:
        (name,) = (name for name in files.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = message_from_bytes(files.read(name))
    entries = (entry.split(", ", 1) for entry in metadata.get_all("Project-URL") or [])
    return dict(entries)

"""The built wheel, installed where nothing else of this repository is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from scripts.install import install

ROOT = Path(__file__).parents[2]

PROJECT_URL = "https://forge.example/team/project"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel, or take the one that TEST_WHEEL names."""
    if given := os.environ.get("TEST_WHEEL"):
        return (ROOT / given).resolve()
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    env = os.environ | {"PROJECT_URL": PROJECT_URL}
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True, env=env)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    """Every file of the package, the licence and the entry point; no tests, examples or state."""
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(
        ["git", "ls-files", "airflow_jobs_provider"],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    ).stdout.split()
    in_package = {name for name in names if name.startswith("airflow_jobs_provider/")}
    assert in_package == set(tracked)
    (info,) = {name.split("/")[0] for name in names - in_package}
    assert info.startswith("airflow_jobs_provider-")
    assert info.endswith(".dist-info")
    assert {f"{info}/entry_points.txt", f"{info}/licenses/LICENSE"} <= names


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel and its extra in a clean virtual environment; return its bin folder."""
    folder = tmp_path_factory.mktemp("clean") / "venv"
    venv.create(folder, symlinks=True)
    constraints = ROOT / "constraints" / "airflow-3.3.txt"
    install(folder / "bin" / "python", f"{wheel}[testing]", constraints=constraints)
    return folder / "bin"


def airflow(installed: Path, home: Path, *arguments: str) -> str:
    """Run an airflow command of the clean environment and return what it prints."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "PYTHON"))}
    result = subprocess.run(
        [installed / "airflow", *arguments],
        check=True,
        capture_output=True,
        text=True,
        cwd=home,
        env={**kept, "AIRFLOW_HOME": str(home)},
    )
    return result.stdout


def test_airflow_shows_the_provider(installed: Path, tmp_path: Path) -> None:
    """Airflow lists the provider, its hook and its extra link."""
    from airflow_jobs_provider import __version__

    providers = airflow(installed, tmp_path, "providers", "list", "-o", "plain")
    (line,) = [line for line in providers.splitlines() if "airflow-jobs-provider" in line]
    assert __version__ in line
    hooks = airflow(installed, tmp_path, "providers", "hooks", "-o", "plain")
    (line,) = [line for line in hooks.splitlines() if "databricks_jobs" in line]
    assert "airflow_jobs_provider.hooks.jobs.DatabricksJobsHook" in line
    links = airflow(installed, tmp_path, "providers", "links", "-o", "plain")
    assert "airflow_jobs_provider.links.DatabricksJobRunLink" in links


def test_airflow_shows_what_the_provider_brings(installed: Path, tmp_path: Path) -> None:
    """With the documentation's address, which Airflow takes from the wheel's metadata."""
    arguments = ("providers", "get", "airflow-jobs-provider", "--full", "-o", "json")
    (shown,) = json.loads(airflow(installed, tmp_path, *arguments))
    (integration,) = shown["integrations"]
    assert "/docs/quickstart.md" in integration["how-to-guide"]
    assert integration["external-doc-url"].startswith("https://docs.databricks.com/")
    project_url = os.environ.get("PROJECT_URL") if "TEST_WHEEL" in os.environ else PROJECT_URL
    assert shown["documentation-url"] == (f"{project_url}#readme" if project_url else None)


def test_the_local_workspace_starts_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    """Its data files are in the wheel, too."""
    code = (
        "import sys, requests\n"
        "from airflow_jobs_provider.local.workspace import LocalWorkspace\n"
        "with LocalWorkspace(sys.argv[1], port=0) as w:\n"
        "    url = w.url + '/api/2.0/jobs/runs/list'\n"
        "    print(requests.get(url, headers={'Authorization': 'Bearer ' + w.token}).json())\n"
    )
    result = subprocess.run(
        [installed / "python", "-c", code, str(tmp_path)],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert "has_more" in result.stdout


def test_pytest_finds_the_fixture(installed: Path, tmp_path: Path) -> None:
    """The entry point of the wheel brings the plugin."""
    result = subprocess.run(
        [installed / "python", "-m", "pytest", "--fixtures", "-q"],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert "databricks_workspace -- " in result.stdout, result.stdout + result.stderr

"""Tasks of packages: wheels below the root and packages of the workspace's Python."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest

from airflow_jobs_provider.local.runners.libraries import LibraryError, load_libraries
from tests.local.api import CLUSTER, Api

MAIN = """
import json, sys
from importlib import metadata

def main():
    print(json.dumps(sys.argv[1:]))
    print(metadata.version("my-etl"))

def other():
    print("called without metadata")
"""


def wheel(folder: Path, *requires: str, source: str = MAIN, tag: str = "py3-none-any") -> str:
    """Write a wheel of the package my-etl, and return its name."""
    file = folder / f"my_etl-1.2-{tag}.whl"
    file.parent.mkdir(parents=True, exist_ok=True)
    info = "my_etl-1.2.dist-info"
    lines = ["Metadata-Version: 2.1", "Name: my-etl", "Version: 1.2"]
    lines += [f"Requires-Dist: {one}" for one in requires]
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("my_etl/__init__.py", source)
        archive.writestr(f"{info}/METADATA", "\n".join(lines) + "\n")
        archive.writestr(f"{info}/entry_points.txt", "[console_scripts]\nrun = my_etl:main\n")
    return file.name


def task(entry_point: str = "run", package: str = "my-etl", **fields: Any) -> dict[str, Any]:
    """Return a python_wheel_task."""
    return {"python_wheel_task": {"package_name": package, "entry_point": entry_point, **fields}}


@pytest.mark.slow
@pytest.mark.parametrize("place", ["dbfs:/wheels", "/Workspace/Shared", "/Volumes/a/b/c"])
def test_wheel_below_the_root(api: Api, place: str) -> None:
    """A wheel among the libraries is on the import path of its run, and of no other."""
    name = wheel(api.root / place.removeprefix("dbfs:/").removeprefix("/Workspace").lstrip("/"))
    libraries = [{"whl": f"{place}/{name}"}]
    ended, output = api.run_to_end(**CLUSTER, **task(parameters=["a", "b c"]), libraries=libraries)
    assert ended["state"]["result_state"] == "SUCCESS", output
    assert output["logs"].splitlines() == ['["a", "b c"]', "1.2"]


@pytest.mark.slow
def test_package_that_is_missing(api: Api) -> None:
    """A package is missing without its wheel, though another run had it."""
    wheel(api.root / "wheels")
    ended, output = api.run_to_end(**CLUSTER, **task())
    assert ended["state"]["result_state"] == "FAILED"
    assert output["error"].startswith("Python wheel with name my-etl could not be found.")
    assert "pip install my-etl" in output["error"]
    code = ended["status"]["termination_details"]["code"]
    assert code == "LIBRARY_INSTALLATION_ERROR"


@pytest.mark.slow
def test_parameters_of_run_now(api: Api) -> None:
    """Named parameters are options; a run's own and the job's win over the task's."""
    libraries = [{"whl": f"dbfs:/{wheel(api.root)}"}]
    each = {"task_key": "t", "libraries": libraries, **CLUSTER}
    named = {"day": "{{job.parameters.day}}", "mode": "a", "n": "1"}
    job_id = api.create(
        tasks=[{**each, **task(named_parameters=named)}],
        parameters=[{"name": "day", "default": "monday"}],
        version="2.2",
    )
    body = {"job_id": job_id, "python_named_params": {"mode": "b"}}
    run_id = api.post("run-now", body, version="2.2").json()["run_id"]
    api.wait(run_id)
    task_run_id = api.run(run_id, version="2.2")["tasks"][0]["run_id"]
    logs = api.get("runs/get-output", version="2.2", run_id=task_run_id).json()["logs"]
    assert logs.splitlines()[0] == '["--day=monday", "--mode=b", "--n=1"]'


@pytest.mark.slow
def test_entry_points(api: Api) -> None:
    """A function of the package stands in for an entry point that its metadata does not have."""
    libraries = [{"whl": f"dbfs:/{wheel(api.root)}"}]
    ended, output = api.run_to_end(**CLUSTER, **task("other"), libraries=libraries)
    assert ended["state"]["result_state"] == "SUCCESS", output
    assert output["logs"] == "called without metadata\n"
    ended, output = api.run_to_end(**CLUSTER, **task("begin"), libraries=libraries)
    assert ended["state"]["result_state"] == "FAILED"
    assert ended["status"]["termination_details"]["code"] == "RUN_EXECUTION_ERROR"
    assert output["error"] == (
        "ImportError: Entry point begin is not in the metadata of the package my-etl, and "
        "my_etl.begin() does not exist. Entry points of the package: run"
    )


@pytest.mark.slow
def test_wheel_that_cannot_be_used(api: Api) -> None:
    """A wheel that is missing, broken or of another platform fails the run as the service does."""
    (api.root / "broken-1-py3-none-any.whl").write_text("no archive")
    foreign = wheel(api.root, tag="cp27-cp27m-win32")
    for name, reason in (
        ("none-1-py3-none-any.whl", "there is no file"),
        ("broken-1-py3-none-any.whl", "cannot be unpacked"),
        (foreign, "is not a supported wheel on this platform"),
        ("wheel.whl", "wheel.whl"),
    ):
        (api.root / "wheel.whl").touch()
        libraries = [{"whl": f"dbfs:/{name}"}]
        ended, output = api.run_to_end(**CLUSTER, **task(), libraries=libraries)
        assert ended["state"]["state_message"] == output["error"]
        assert output["error"].startswith(
            f'Library installation failed for library due to user error for whl: "dbfs:/{name}".'
        )
        assert reason in output["error"]
        code = ended["status"]["termination_details"]["code"]
        assert code == "LIBRARY_INSTALLATION_ERROR"


@pytest.mark.slow
def test_environment_of_a_serverless_task(api: Api) -> None:
    """The wheels of an environment are used; what is missing is told and is no failure."""
    source = f"{MAIN}\ndef broken():\n    import no_such_module_of_ours\n"
    name = wheel(api.root / "Shared", "no-such-package>=2; python_version > '3'", source=source)
    (api.root / "requirements.txt").write_text("--index-url x\npytest>=1  # kept\npytest<1\n")
    dependencies = [f"/Workspace/Shared/{name}", "-r /Workspace/requirements.txt"]
    environments = [{"environment_key": "e", "spec": {"client": "1", "dependencies": dependencies}}]
    for entry_point, result in (("run", "SUCCESS"), ("broken", "FAILED")):
        tasks = [{"task_key": "t", "environment_key": "e", **task(entry_point)}]
        ended, output = api.run_to_end(tasks=tasks, environments=environments)
        assert ended["state"]["result_state"] == result, output
        told = output["info"]
        assert "no-such-package>=2: not installed" in told
        assert f"pytest<1: {pytest.__version__} is installed" in told
        assert "pip install 'pytest<1' 'no-such-package>=2'" in told
        assert "pytest>=1:" not in told
    error = "ModuleNotFoundError: No module named 'no_such_module_of_ours'"
    assert output["error"] == f"{error} ({told})"


@pytest.mark.slow
def test_package_of_the_workspaces_python(api: Api) -> None:
    """A package that is installed needs no wheel."""
    ended, output = api.run_to_end(**CLUSTER, **task("cpu_count", package="psutil"))
    assert ended["state"]["result_state"] == "SUCCESS", output
    assert output["logs"] == ""


def test_odd_wheels(tmp_path: Path) -> None:
    """A wheel writes nothing beside its folder; metadata that tell nothing are passed over."""
    root, folder = tmp_path / "root", tmp_path / "folder"
    name = wheel(root, "a; os_name ~= '2'", "b; no_such == '1'", "pytest==0")
    with zipfile.ZipFile(root / name, "a") as archive:
        archive.writestr("../../outside.txt", "")
        archive.writestr("other-1.dist-info/METADATA", "")
    loaded = load_libraries([{"whl": f"/{name}"}], {}, root, folder)
    assert loaded.missing == [("pytest==0", f"{pytest.__version__} is installed")]
    assert not [*tmp_path.glob("*.txt")]


def test_wheel_with_broken_content(tmp_path: Path) -> None:
    """A wheel whose list of files can be read, but not a file of it, is told like any other."""
    name = "broken-1-py3-none-any.whl"
    with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.py", "x = 1\n" * 100)
    data = bytearray((tmp_path / name).read_bytes())
    data[34:44] = b"\xff" * 10  # behind the header of the file, and its name
    (tmp_path / name).write_bytes(data)
    with pytest.raises(LibraryError, match="cannot be unpacked"):
        load_libraries([{"whl": f"/{name}"}], {}, tmp_path, tmp_path / "folder")


def test_requirements_that_lead_to_themselves(tmp_path: Path) -> None:
    """Files of requirements that name each other are refused."""
    (tmp_path / "a.txt").write_text("-r /b.txt")
    (tmp_path / "b.txt").write_text("-r /a.txt")
    with pytest.raises(LibraryError, match="leads to itself"):
        load_libraries([{"requirements": "/a.txt"}], {}, tmp_path, tmp_path / "folder")

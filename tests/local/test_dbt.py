"""dbt tasks run the dbt of this machine in the folder of their project."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.local.api import CLUSTER, Api

# Says how and where it was called; the command "test" fails.
DBT = """#!/bin/sh
echo "$PWD $DBT_PROFILES_DIR"
for word in "$@"; do echo "<$word>"; done
[ "$1" != test ]
"""


@pytest.fixture
def fake_dbt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a dbt on the PATH that says how it was called."""
    program = tmp_path / "dbt"
    program.write_text(DBT)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")


def run(api: Api, *commands: str, **fields: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Submit a dbt_task and wait for its end; return the run and its output."""
    return api.run_to_end(dbt_task={"commands": commands, **fields}, **CLUSTER)


@pytest.mark.usefixtures("fake_dbt")
def test_commands(api: Api) -> None:
    """Commands run one after the other in the project, until one fails."""
    project = api.root / "Shared" / "project"
    project.mkdir(parents=True, exist_ok=True)
    (project / "dbt_project.yml").touch()
    commands = ("dbt deps", "dbt run --vars '{day: {{job.run_id}}}'", "dbt test", "dbt docs")
    fields = {"project_directory": "/Workspace/Shared/project", "profiles_directory": "/Shared"}
    ended, output = run(api, *commands, **fields)
    run_id = ended["run_id"]
    where = f"{project.resolve()} {api.root.resolve()}/Shared"
    vars_ = f"{{day: {run_id}}}"
    assert output["logs"].splitlines() == [
        "+ dbt deps",
        where,
        "<deps>",
        f"+ dbt run --vars '{vars_}'",
        where,
        "<run>",
        "<--vars>",
        f"<{vars_}>",
        "+ dbt test",
        where,
        "<test>",
    ]
    assert ended["state"]["result_state"] == "FAILED"
    assert output["error"] == "The process ended with exit code 1: <test>"


@pytest.mark.usefixtures("fake_dbt")
def test_commands_of_run_now(api: Api) -> None:
    """The commands of a run replace those of its job."""
    (api.root / "dbt_project.yml").touch()
    task = {"commands": ["dbt run"], "project_directory": "/"}
    job_id = api.create(dbt_task=task, version="2.2")
    body = {"job_id": job_id, "dbt_commands": ["dbt seed"]}
    run_id = api.post("run-now", body, version="2.2").json()["run_id"]
    assert api.wait(run_id)["state"]["result_state"] == "SUCCESS"
    logs = api.get("runs/get-output", version="2.2", run_id=run_id).json()["logs"]
    assert logs.splitlines()[0] == "+ dbt seed"


def test_without_dbt(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without dbt the run says what to install; without a project, what is missing."""
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    ended, _ = run(api, "dbt run")
    assert ended["state"]["life_cycle_state"] == "INTERNAL_ERROR"
    assert "pip install dbt-core" in ended["state"]["state_message"]
    monkeypatch.setattr(shutil, "which", lambda *_, **__: "dbt")
    ended, output = run(api, "dbt run", project_directory="/Workspace/none")
    assert ended["state"]["result_state"] == "FAILED"
    assert "there is no dbt_project.yml in" in output["error"]
    (api.root / "dbt_project.yml").touch()
    ended, output = run(api, "dbt run --vars '")
    assert output["error"] == 'The command "dbt run --vars \'" cannot be read: No closing quotation'

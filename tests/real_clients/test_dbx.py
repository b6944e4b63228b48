"""dbx deploys and launches on the local workspace as on Databricks.

dbx keeps its deployments in MLflow, which the local workspace does not have. A few requests of
MLflow's tracking are answered here, before the workspace.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

import pytest

from airflow_jobs_provider.local.workspace import LocalWorkspace
from tests.local.api import Api
from tests.real_clients.client import Client
from tests.real_clients.forwarding import Answer, Asked, forwarding

pytestmark = pytest.mark.real_clients

PROJECT = {
    "environments": {
        "default": {
            "profile": "DEFAULT",
            "storage_type": "mlflow",
            "properties": {
                "workspace_directory": "/Shared/dbx/project",
                "artifact_location": "dbfs:/dbx/project",
            },
        }
    }
}
DEPLOYMENT = """
environments:
  default:
    workflows:
      - name: deployed
        tasks:
          - task_key: main
            existing_cluster_id: 1201-my-cluster
            spark_python_task:
              python_file: file://job.py
              parameters: [as-deployed]
"""


@dataclass
class Tracking:
    """The part of MLflow's tracking that dbx uses.

    :param root: the workspace's root folder, where artifacts are stored.
    """

    root: Path
    experiments: list[dict[str, Any]] = field(default_factory=list)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)

    def answer(self, asked: Asked) -> Answer:
        """Answer a request of ``/api/2.0/mlflow/``."""
        data = dict(parse_qsl(asked.query)) if asked.method == "GET" else json.loads(asked.body)
        act = asked.path.removeprefix("/api/2.0/mlflow/").replace("/", "_").replace("-", "_")
        found: dict[str, Any] | None = getattr(self, act)(data)
        if found is None:
            missing = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "It does not exist."}
            return Answer(404, json.dumps(missing).encode())
        return Answer(200, json.dumps(found).encode())

    def store(self, asked: Asked) -> Answer:
        """Store an artifact, or return one."""
        file = self.root / unquote(asked.path).removeprefix("/dbfs/")
        if asked.method == "GET":
            return Answer(200, file.read_bytes(), "application/octet-stream")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(asked.body)
        return Answer(200, b"")

    def experiments_get_by_name(self, data: dict[str, Any]) -> dict[str, Any] | None:
        """Return an experiment."""
        found = [one for one in self.experiments if one["name"] == data["experiment_name"]]
        return {"experiment": found[0]} if found else None

    def experiments_create(self, data: dict[str, Any]) -> dict[str, Any]:
        """Create an experiment."""
        made = {
            **data,
            "experiment_id": f"{len(self.experiments) + 1}",
            "lifecycle_stage": "active",
        }
        self.experiments.append(made)
        return {"experiment_id": made["experiment_id"]}

    def runs_create(self, data: dict[str, Any]) -> dict[str, Any]:
        """Start a run."""
        run_id = f"{len(self.runs) + 1:032x}"
        [of] = [one for one in self.experiments if one["experiment_id"] == data["experiment_id"]]
        info = {
            "run_id": run_id,
            "run_uuid": run_id,
            "experiment_id": data["experiment_id"],
            "status": "RUNNING",
            "start_time": data["start_time"],
            "artifact_uri": f"{of['artifact_location']}/{run_id}/artifacts",
            "lifecycle_stage": "active",
        }
        self.runs[run_id] = {"info": info, "data": {"tags": data.get("tags", [])}}
        return {"run": self.runs[run_id]}

    def runs_get(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return a run."""
        return {"run": self.runs[data["run_id"]]}

    def runs_update(self, data: dict[str, Any]) -> dict[str, Any]:
        """End a run."""
        info = self.runs[data["run_id"]]["info"]
        info |= {name: data[name] for name in ("status", "end_time") if name in data}
        return {"run_info": info}

    def runs_log_batch(self, data: dict[str, Any]) -> dict[str, Any]:
        """Add tags to a run."""
        self.runs[data["run_id"]]["data"]["tags"] += data.get("tags", [])
        return {}

    def runs_search(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return the runs with the tags that the filter names."""
        return {"runs": [run for run in self.runs.values() if _has_tags(run, data["filter"])]}


def _has_tags(run: dict[str, Any], text: str) -> bool:
    tags = {one["key"]: one["value"] for one in run["data"]["tags"]}
    wanted = (part.removeprefix("tags.").split(" = ") for part in text.split(" and "))
    return all(tags.get(name) == value.strip("'") for name, value in wanted)


@pytest.fixture
def dbx(client_of: Callable[..., Client], workspace: LocalWorkspace) -> Iterator[Client]:
    """Return dbx, and where it can store its deployments."""
    # It imports pkg_resources, which newer versions of setuptools do not have; its typer fails with
    # newer versions of click.
    client = client_of("dbx", "dbx==0.8.19", "setuptools<81", "click<8.2")
    tracking = Tracking(workspace.root)
    others = {"/api/2.0/mlflow/": tracking.answer, "/dbfs/": tracking.store}
    variables = {
        "DATABRICKS_JOBS_API_VERSION": "2.1",
        "GIT_PYTHON_REFRESH": "quiet",
        "NO_COLOR": "1",
    }
    with forwarding(workspace, others=others) as port:
        # It takes no more than scheme and host name from the URL that it is given.
        yield replace(client, proxy_url=f"http://127.0.0.1:{port}", variables=variables)


@pytest.fixture
def deployment(tmp_path: Path) -> Path:
    """Return the deployment file of a project."""
    project = tmp_path / "project"
    (project / ".dbx").mkdir(parents=True)
    (project / "conf").mkdir()
    (project / ".dbx" / "project.json").write_text(json.dumps(PROJECT))
    (project / "job.py").write_text("import sys; print('job of', sys.argv[1:])")
    file = project / "conf" / "deployment.yml"
    file.write_text(DEPLOYMENT)
    return file


def run(dbx: Client, deployment: Path, *arguments: str) -> str:
    """Run dbx in the project, and return what it prints."""
    done = dbx.run("dbx", *arguments, cwd=deployment.parents[1])
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_deploy_and_launch(dbx: Client, workspace: LocalWorkspace, deployment: Path) -> None:
    """A workflow is deployed with its file, changed by a second deployment, and launched."""
    run(dbx, deployment, "deploy", "--no-package")
    deployment.write_text(DEPLOYMENT.replace("as-deployed", "as-changed"))
    run(dbx, deployment, "deploy", "--no-package")
    shown = run(dbx, deployment, "launch", "deployed", "--trace", "--include-output=stdout")
    assert "finished successfully" in shown
    api = Api(workspace)
    [job] = api.get("list", version="2.1", name="deployed").json()["jobs"]
    [launched] = api.get("runs/list", version="2.1", job_id=job["job_id"]).json()["runs"]
    [task] = api.run(launched["run_id"], version="2.1")["tasks"]
    output = api.get("runs/get-output", version="2.1", run_id=task["run_id"]).json()
    assert output["logs"] == "job of ['as-changed']\n"


@pytest.mark.thorough
def test_launch_from_assets(dbx: Client, deployment: Path) -> None:
    """A workflow of which only the files are deployed is launched as a one-time run."""
    run(dbx, deployment, "deploy", "--no-package", "--assets-only")
    shown = run(dbx, deployment, "launch", "deployed", "--from-assets", "--trace")
    assert "finished successfully" in shown

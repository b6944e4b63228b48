"""Tasks whose code is in a Git repository, of which this machine has a clone."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from airflow_jobs_provider.local.runners.checkouts import is_in_git
from airflow_jobs_provider.local.workspace import LocalWorkspace
from tests.local.api import CLUSTER, Api, until

URL = "https://example.com/team/etl.git"
ENTRY = "import helper; print(helper.VERSION)"
NOTEBOOK = """# Databricks notebook source
# MAGIC %run ../other
# COMMAND ----------
import helper
dbutils.notebook.exit(f"{helper.VERSION} {other} {dbutils.notebook.run('../other', 60)}")
"""
OTHER = """# Databricks notebook source
other = "run"
"""


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder, apart from the user's own configuration."""
    env = {
        **{name: text for name, text in os.environ.items() if not name.startswith("GIT_")},
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        **{
            f"GIT_{who}_{what}": "me@example.com"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        },
    }
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, env=env, check=True, text=True, capture_output=True).stdout


def commit(folder: Path, version: str) -> str:
    """Commit a version of the code, and return the hash of the commit."""
    (folder / "helper.py").write_text(f"VERSION = {version!r}\n")
    (folder / "job.py").write_text(ENTRY)
    (folder / "notebooks").mkdir(exist_ok=True)
    (folder / "notebooks" / "main.py").write_text(NOTEBOOK)
    (folder / "other.py").write_text(OTHER)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", version)
    return git(folder, "rev-parse", "HEAD").strip()


def repository(folder: Path) -> dict[str, str]:
    """Make a repository with two versions, and return their commits."""
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet", "--initial-branch", "main")
    commits = {"one": commit(folder, "one")}
    git(folder, "tag", "v1")
    commits["two"] = commit(folder, "two")
    return commits


def source(url: str = URL, **reference: str) -> dict[str, str]:
    """Return a git_source."""
    return {"git_url": url, "git_provider": "gitHub", **reference}


JOB = {"spark_python_task": {"python_file": "job.py", "source": "GIT"}, **CLUSTER}


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ({"notebook_task": {"notebook_path": "a"}}, True),
        ({"notebook_task": {"notebook_path": "/a", "source": "WORKSPACE"}}, False),
        ({"sql_task": {"warehouse_id": "w", "file": {"path": "a"}}}, True),
        ({"sql_task": {"file": {"path": "a", "source": "WORKSPACE"}}}, False),
        ({"dbt_task": {"commands": ["dbt run"]}}, True),
        ({"spark_python_task": {"python_file": "a.py"}}, False),
        ({"spark_python_task": {"python_file": "a.py", "source": "GIT"}}, True),
        ({"python_wheel_task": {"package_name": "p"}}, False),
    ],
)
def test_which_tasks_are_in_git(task: dict[str, Any], expected: bool) -> None:
    """Each kind has its own default for the source of its code."""
    assert is_in_git(task) is expected


@pytest.mark.slow
def test_references(tmp_path: Path) -> None:
    """A branch, a tag or a commit is checked out from a clone, of which nothing is changed."""
    clone = tmp_path / "clone"
    commits = repository(clone)
    (clone / "helper.py").write_text("not committed")
    root = tmp_path / "root"
    root.mkdir()
    with LocalWorkspace(root, repositories={URL: clone}) as workspace:
        api = Api(workspace)
        for reference, version in (
            ({"git_branch": "main"}, "two"),
            ({"git_tag": "v1"}, "one"),
            ({"git_commit": commits["one"]}, "one"),
        ):
            # The suffix .git makes no difference.
            git_source = source(URL.removesuffix(".git"), **reference)
            ended, output = api.run_to_end(**JOB, git_source=git_source)
            assert ended["state"]["result_state"] == "SUCCESS", output
            assert output["logs"] == f"{version}\n"
            snapshot = {"git_snapshot": {"used_commit": commits[version]}}
            assert ended["git_source"] == {**git_source, **snapshot}
            assert output["metadata"]["git_source"] == ended["git_source"]
        left = [file.name for file in clone.iterdir()]
        assert sorted(left) == [".git", "helper.py", "job.py", "notebooks", "other.py"]
        assert git(clone, "worktree", "list").count("\n") == 1
        folder = workspace_folder(workspace)
        until(lambda: not [*folder.glob("git-*")], "the checkouts to be removed")


def workspace_folder(workspace: LocalWorkspace) -> Path:
    """Return the folder for what is needed only while a run runs."""
    return Path((workspace.state_dir / "temporary-folder").read_text())


@pytest.mark.slow
def test_a_notebook_of_a_repository(api: Api) -> None:
    """A notebook imports from its repository, and runs other notebooks of it."""
    repository(api.root / "Repos" / "team" / "etl")
    task = {"notebook_path": "notebooks/main"}
    tasks = [{"task_key": "t", "notebook_task": task}]
    ended, output = api.run_to_end(tasks=tasks, git_source=source(git_branch="main"))
    assert ended["state"]["result_state"] == "SUCCESS", output
    assert output["notebook_output"]["result"] == "two run "


@pytest.mark.slow
def test_one_commit_for_all_tasks(tmp_path: Path) -> None:
    """All tasks of a run and its repairs use the commit that the run started with."""
    clone = tmp_path / "clone"
    first = repository(clone)["two"]
    root = tmp_path / "root"
    root.mkdir()
    wait = "import os, time\nopen('started', 'w').close()\n"
    wait += "while not os.path.exists('go'):\n    time.sleep(0.02)\n"
    (root / "wait.py").write_text(wait)
    with LocalWorkspace(root) as workspace:
        api = Api(workspace)
        first_task = {"spark_python_task": {"python_file": "/wait.py"}, **CLUSTER}
        second = {**JOB, "depends_on": [{"task_key": "wait"}]}
        tasks = [{"task_key": "wait", **first_task}, {"task_key": "job", **second}]
        git_source = source(clone.as_uri(), git_branch="main")
        settings = {"tasks": tasks, "git_source": git_source}
        job_id = api.create(**settings, version="2.2")
        run_id = api.post("run-now", {"job_id": job_id}, version="2.2").json()["run_id"]
        until((root / "started").exists, "the first task to start")
        until(lambda: "git_snapshot" in api.run(run_id, "2.2")["git_source"], "the commit")
        commit(clone, "three")
        (root / "go").touch()
        for _ in range(2):
            api.wait(run_id)
            ended = api.run(run_id, version="2.2")
            assert ended["git_source"]["git_snapshot"]["used_commit"] == first
            last = max(one["run_id"] for one in ended["tasks"])
            output = api.get("runs/get-output", version="2.2", run_id=last).json()
            assert output["logs"] == "two\n"
            repair = {"run_id": run_id, "rerun_tasks": ["job"]}
            api.post("runs/repair", repair, version="2.2")


@pytest.mark.parametrize(
    ("git_source", "words"),
    [
        (source("https://example.com/team/none", git_branch="main"), "has no clone of"),
        (source("git@example.com:team/none.git", git_tag="v1"), "has no clone of"),
        (source("/no/such/folder", git_tag="v1"), "/no/such/folder"),
        (source("file://", git_tag="v1"), "has no clone of"),
        (source("{clone}", git_branch="--help"), "has no refs/heads/--help"),
        (source("{clone}", git_branch="a\0b"), "null byte"),
        (source("{clone}", git_commit="main"), "not the hash of a commit"),
        (source("{clone}", git_commit="0123456789"), "has no 0123456789"),
    ],
)
def test_what_cannot_be_checked_out(
    tmp_path_factory: pytest.TempPathFactory, api: Api, git_source: dict[str, str], words: str
) -> None:
    """A run whose repository or commit is not on this machine fails, and says so."""
    if git_source["git_url"] == "{clone}":
        clone = tmp_path_factory.mktemp("empty")
        git(clone, "init", "--quiet")
        git_source = {**git_source, "git_url": str(clone)}
    ended, output = api.run_to_end(**JOB, git_source=git_source)
    assert ended["state"]["result_state"] == "FAILED"
    assert output["error"].startswith("Failed to checkout Git repository: ")
    assert words in output["error"]
    assert ended["status"]["termination_details"]["code"] == "REPOSITORY_CHECKOUT_FAILED"
    if "clone of" in words:
        assert f"--repository {git_source['git_url']}=FOLDER" in output["error"]

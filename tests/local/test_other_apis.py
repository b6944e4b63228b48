"""The neighbours of the Jobs API that tools use, driven by Databricks' own SDK."""

from __future__ import annotations

import base64
import io
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from airflow_jobs_provider.local.engine.uploads import PartialFiles, Uploads
from airflow_jobs_provider.testing import DatabricksWorkspace
from tests.local.api import CLUSTER, Api

# Every test process imports this file. The SDK takes 1.5 s of processor time, so that only the
# tests that need it import it.
if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DatabricksWorkspace]:
    """A workspace for all tests of this module."""
    with DatabricksWorkspace(tmp_path_factory.mktemp("root"), max_concurrent_runs=2) as running:
        yield running


@pytest.fixture
def sdk(workspace: DatabricksWorkspace, monkeypatch: pytest.MonkeyPatch) -> WorkspaceClient:
    """Databricks' own client."""
    from databricks.sdk import WorkspaceClient

    logging.getLogger("databricks.sdk").setLevel(logging.ERROR)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return WorkspaceClient(host=workspace.url, token=workspace.token)


def call(
    workspace: DatabricksWorkspace, method: str, endpoint: str, fields: dict[str, Any]
) -> requests.Response:
    """Send a request as no client would."""
    return requests.request(
        method,
        f"{workspace.url}/api/2.0/{endpoint}",
        headers={"Authorization": f"Bearer {workspace.token}"},
        timeout=30,
        params=fields if method == "GET" else None,
        json=None if method == "GET" else fields,
    )


def test_dbfs(sdk: WorkspaceClient, workspace: DatabricksWorkspace) -> None:
    """Files are written, read, listed, moved and deleted; large ones in blocks."""
    from databricks.sdk.errors import NotFound
    from databricks.sdk.errors.base import DatabricksError

    content = bytes(range(256)) * 6000  # more than a block
    sdk.dbfs.mkdirs("/data")
    sdk.dbfs.upload("/data/large.bin", io.BytesIO(content))
    assert (workspace.root / "data" / "large.bin").read_bytes() == content
    assert sdk.dbfs.download("dbfs:/data/large.bin").read() == content
    sdk.dbfs.put("/data/small.txt", contents=base64.b64encode(b"small").decode())
    listed = {one.path: one.file_size for one in sdk.dbfs.list("/data")}
    assert listed == {"/data/large.bin": len(content), "/data/small.txt": 5}
    with pytest.raises(DatabricksError, match="exists already"):
        sdk.dbfs.put("/data/small.txt", contents="")
    sdk.dbfs.move("/data/small.txt", "/data/other.txt")
    assert sdk.dbfs.get_status("/data/other.txt").file_size == 5
    sdk.dbfs.delete("/data", recursive=True)
    with pytest.raises(NotFound):
        sdk.dbfs.get_status("/data")


def test_an_upload_that_was_not_closed(workspace: DatabricksWorkspace) -> None:
    """Nobody sees it; a handle that is not open is refused."""
    handle = call(workspace, "POST", "dbfs/create", {"path": "/half.txt"}).json()["handle"]
    call(workspace, "POST", "dbfs/add-block", {"handle": handle, "data": "AAAA"})
    assert call(workspace, "GET", "dbfs/get-status", {"path": "/half.txt"}).status_code == 404
    listed = call(workspace, "GET", "dbfs/list", {"path": "/"}).json()["files"]
    assert not [one for one in listed if "partial" in one["path"]]
    assert call(workspace, "POST", "dbfs/close", {"handle": handle}).status_code == 200
    assert (workspace.root / "half.txt").read_bytes() == b"\0\0\0"
    assert call(workspace, "POST", "dbfs/close", {"handle": handle}).status_code == 404


def test_an_upload_of_a_killed_workspace(tmp_path: Path) -> None:
    """The next workspace removes what was written of it, and nothing else."""
    notes, root = tmp_path / "notes", tmp_path / "root"
    root.mkdir()
    killed = Uploads(PartialFiles(notes))
    (root / "of_a_user.partial").touch()
    handle = killed.create(root / "half.txt")
    killed.add(handle, b"half")
    killed.close(killed.create(root / "whole.txt"))
    assert len(list(root.iterdir())) == 3
    (notes / "odd").write_bytes(bytes(root / "whole.txt"))
    PartialFiles(notes).discard_all()
    assert sorted(one.name for one in root.iterdir()) == ["of_a_user.partial", "whole.txt"]
    assert list(notes.iterdir()) == []


def test_contents_of_files_in_the_log(workspace: DatabricksWorkspace) -> None:
    """The log of requests keeps the beginning of a large file; the file itself is whole."""
    contents = base64.b64encode(b"x" * 30_000).decode()
    call(workspace, "POST", "dbfs/put", {"path": "/large.txt", "contents": contents})
    assert (workspace.root / "large.txt").stat().st_size == 30_000
    data = workspace.simulation.log.requests[-1].data
    cut = f"{contents[:20_000]}... (20000 more characters)"
    assert data == {"path": "/large.txt", "contents": cut}


@pytest.mark.parametrize(
    ("method", "endpoint", "fields", "words"),
    [
        ("GET", "dbfs/list", {"path": "/../etc"}, "leads out of the workspace"),
        ("GET", "dbfs/list", {"path": "/.workspace"}, "the workspace's own state"),
        ("GET", "dbfs/list", {"path": "etc"}, "Path must be absolute"),
        ("GET", "dbfs/list", {}, "Missing required field: path"),
        ("GET", "dbfs/read", {"path": "/"}, "is a directory"),
        ("POST", "dbfs/delete", {"path": "/", "recursive": True}, "root directory"),
        ("POST", "dbfs/put", {"path": "/x", "contents": "?"}, "encoded in base64"),
        ("POST", "dbfs/put", {"path": "/x", "contents": 5}, "encoded in base64"),
        ("POST", "dbfs/create", {"path": "/file/x"}, "file exists already"),
        (
            "POST",
            "dbfs/move",
            {"source_path": "/file", "destination_path": "/file/x"},
            "moved into itself",
        ),
        (
            "POST",
            "dbfs/move",
            {"source_path": "/other", "destination_path": "/file/x"},
            "file exists already",
        ),
        ("DELETE", "fs/directories/", {}, "root directory"),
        ("POST", "secrets/scopes/create", {"scope": "a b"}, "scope must have 1 to 128"),
        ("POST", "secrets/put", {"scope": "none", "key": "k"}, "Scope none does not exist"),
        ("GET", "clusters/get", {"cluster_id": "none"}, "Cluster none does not exist"),
    ],
)
def test_what_is_wrong_is_refused(
    workspace: DatabricksWorkspace, method: str, endpoint: str, fields: dict[str, Any], words: str
) -> None:
    """The message says what."""
    for name in ("file", "other"):
        (workspace.root / name).touch()
    answer = call(workspace, method, endpoint, fields)
    assert 400 <= answer.status_code < 500
    assert words in answer.json()["message"]


def test_files_of_volumes(sdk: WorkspaceClient, workspace: DatabricksWorkspace) -> None:
    """By the Files API, whose paths are in the URL."""
    from databricks.sdk.errors import NotFound

    folder = "/Volumes/main/default/my files"
    sdk.files.create_directory(folder)
    sdk.files.upload(f"{folder}/a ü.csv", io.BytesIO(b"x,y\n"))
    assert (workspace.root / folder[1:] / "a ü.csv").read_bytes() == b"x,y\n"
    contents = sdk.files.download(f"{folder}/a ü.csv").contents
    assert contents is not None
    assert contents.read() == b"x,y\n"
    os.utime(workspace.root / folder[1:] / "a ü.csv", (0, 1_760_000_000))
    metadata = sdk.files.get_metadata(f"{folder}/a ü.csv")
    assert metadata.content_length == 4
    assert metadata.last_modified == "Thu, 09 Oct 2025 08:53:20 GMT"
    sdk.files.get_directory_metadata(folder)
    (entry,) = sdk.files.list_directory_contents(folder)
    assert (entry.name, entry.file_size, entry.is_directory) == ("a ü.csv", 4, False)
    sdk.files.delete(f"{folder}/a ü.csv")
    sdk.files.delete_directory(folder)
    with pytest.raises(NotFound):
        sdk.files.download(f"{folder}/a ü.csv")


def test_secrets(sdk: WorkspaceClient, workspace: DatabricksWorkspace) -> None:
    """Scopes and secrets; the log of requests has no value."""
    from databricks.sdk.errors.base import DatabricksError

    sdk.secrets.create_scope("mine")
    sdk.secrets.put_secret("mine", "password", string_value="hunter2")
    sdk.secrets.put_secret("mine", "key", bytes_value=base64.b64encode(b"\1\2").decode())
    assert [one.key for one in sdk.secrets.list_secrets("mine")] == ["key", "password"]
    value = sdk.secrets.get_secret("mine", "password").value
    assert value is not None
    assert base64.b64decode(value) == b"hunter2"
    with pytest.raises(DatabricksError, match="already exists"):
        sdk.secrets.create_scope("mine")
    sdk.secrets.delete_secret("mine", "key")
    sdk.secrets.delete_scope("mine")
    assert list(sdk.secrets.list_scopes()) == []
    assert "hunter2" not in str(workspace.simulation.log.requests)


def test_clusters_that_runs_name(sdk: WorkspaceClient, workspace: DatabricksWorkspace) -> None:
    """They are RUNNING."""
    workspace.returns("/any")
    api = Api(workspace)
    api.wait(api.submit(notebook_task={"notebook_path": "/any"}))
    cluster_id = CLUSTER["existing_cluster_id"]
    task = {"task_key": "a", "existing_cluster_id": "of-a-task"}
    tasks = [{**task, "notebook_task": {"notebook_path": "/any"}}]
    assert api.post("create", {"tasks": tasks}, version="2.1").ok
    assert [one.cluster_id for one in sdk.clusters.list()] == [cluster_id, "of-a-task"]
    state = sdk.clusters.get(cluster_id).state
    assert state is not None
    assert state.value == "RUNNING"


def test_a_notebook_uses_files_and_secrets(
    sdk: WorkspaceClient, workspace: DatabricksWorkspace
) -> None:
    """dbutils.fs sees the workspace's files; secrets are redacted in outputs."""
    sdk.secrets.create_scope("job")
    sdk.secrets.put_secret("job", "password", string_value="s3cret-value")
    workspace.add_notebook(
        "/files",
        """
        dbutils.fs.mkdirs("dbfs:/out")
        dbutils.fs.put("/out/a.txt", "hello")
        dbutils.fs.cp("dbfs:/out/a.txt", "/dbfs/out/b.txt")
        dbutils.fs.mv("/out/a.txt", "/out/c.txt")
        names = [(one.path, one.size) for one in dbutils.fs.ls("/out")]
        found = (names, dbutils.fs.head("/out/b.txt", 4), dbutils.fs.rm("/out", True))
        # COMMAND ----------
        password = dbutils.secrets.get(scope="job", key="password")
        print(password)
        password
        # COMMAND ----------
        keys = [one.key for one in dbutils.secrets.list("job")]
        scopes = [one.name for one in dbutils.secrets.listScopes()]
        dbutils.notebook.exit(f"{found} {keys} {scopes} {len(password)} {password}")
        """,
    )
    api = Api(workspace)
    run_id = api.submit(notebook_task={"notebook_path": "/files"})
    assert api.wait(run_id)["state"]["result_state"] == "SUCCESS", api.output(run_id)
    listed = [("dbfs:/out/b.txt", 5), ("dbfs:/out/c.txt", 5)]
    assert api.output(run_id)["notebook_output"]["result"] == (
        f"{(listed, 'hell', True)} ['password'] ['job'] 12 [REDACTED]"
    )
    executed = api.get("runs/export", run_id=run_id).text
    assert "s3cret-value" not in executed
    assert "[REDACTED]" in executed

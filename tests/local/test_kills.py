"""A workspace that is killed under load loses nothing that it has answered, and leaves nothing."""

from __future__ import annotations

import base64
import random
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import requests

from airflow_jobs_provider.local.engine.scheduler import STOPPED_MESSAGE
from airflow_jobs_provider.local.runners.process_markers import MARKER_VARIABLE
from tests.local.api import CLUSTER, TERMINAL, Address, Api, until
from tests.local.program import Program

psutil: Any = import_module("psutil")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not sys.platform.startswith("linux"), reason="the supervisor of a run needs Linux"
    ),
]

TOKEN = "the-token-of-all-lives"
NOTEBOOK = "# Databricks notebook source\ndbutils.notebook.exit(dbutils.widgets.get('n') * 3)\n"
TALKS = "import sys; print('said', sys.argv[1])"
# Its process, and one that has left it, would work for ten minutes.
WORKS = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
time.sleep(600)
"""
# What the clients start: more than two cores do, so that runs are in all states at each kill.
KINDS = ("notebook", "python", "works", "tasks", "job")
MOST_ACTIVE = 4
END_SECONDS = 10


@dataclass
class Answered:
    """What the workspace has answered, in all of its lives."""

    launches: dict[str, int] = field(default_factory=dict)
    # The requests of all launches, by their tokens; those without an answer, too
    requests: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    ended: dict[int, dict[str, Any]] = field(default_factory=dict)
    ends: int = 0
    outputs: dict[int, dict[str, Any]] = field(default_factory=dict)
    jobs: dict[int, str] = field(default_factory=dict)
    deleted_runs: set[int] = field(default_factory=set)
    # Those of requests without an answer, too
    perhaps_deleted: set[int] = field(default_factory=set)
    secrets: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    repairs: dict[int, int] = field(default_factory=dict)


class Client:
    """A client that uses the workspace until it dies."""

    def __init__(self, number: int, url: str, seen: Answered, seed: int) -> None:
        self.seen = seen
        self.failure: BaseException | None = None
        self._number = number
        self._url = url
        self._random = random.Random(seed)
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {TOKEN}"
        self._count = 0
        self._seed = seed
        self._active: list[int] = []
        self._ended: list[int] = []
        self.thread = threading.Thread(target=self._work, name=f"client {number}")

    def _work(self) -> None:
        acts: list[Callable[[str], None]] = [
            *([self._launch] * 4),
            *([self._look] * 4),
            self._create,
            self._put_secret,
            self._put_file,
            self._delete_run,
            self._repair,
            self._upload_in_blocks,
        ]
        try:
            while True:
                self._count += 1
                self._random.choice(acts)(f"{self._seed}-{self._number}-{self._count}")
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
            pass  # killed
        except BaseException as error:  # noqa: BLE001  (told by the test)
            self.failure = error

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        answer = self._session.post(f"{self._url}/api/{path}", json=body, timeout=30)
        assert answer.status_code == 200, (path, answer.text)
        answered: dict[str, Any] = answer.json()
        return answered

    def _get(self, path: str, **query: Any) -> dict[str, Any]:
        answer = self._session.get(f"{self._url}/api/{path}", params=query, timeout=30)
        assert answer.status_code == 200, (path, answer.text)
        answered: dict[str, Any] = answer.json()
        return answered

    def _launch(self, name: str) -> None:
        if len(self._active) >= MOST_ACTIVE:
            return  # else runs would wait in the queue only
        settings = settings_of(self._random.choice(KINDS), name)
        path = "2.1/jobs/runs/submit"
        if settings is None:
            if not self.seen.jobs:
                return
            path = "2.1/jobs/run-now"
            job_id = self._random.choice([*self.seen.jobs])
            settings = {"job_id": job_id, "notebook_params": {"n": name}}
        body = {**settings, "idempotency_token": name}
        self.seen.requests[name] = path, body
        run_id = self._post(path, body)["run_id"]
        self.seen.launches[name] = run_id
        self._active.append(run_id)

    def _look(self, _name: str) -> None:
        if not self._active:
            return
        run_id = self._random.choice(self._active)
        run = self._get("2.1/jobs/runs/get", run_id=run_id)
        if run["state"]["life_cycle_state"] not in TERMINAL:
            return
        for task in run["tasks"]:
            output = self._get("2.1/jobs/runs/get-output", run_id=task["run_id"])
            self.seen.outputs[task["run_id"]] = without_run(output)
        self.seen.ended[run_id] = run
        self.seen.ends += 1
        self._active.remove(run_id)
        self._ended.append(run_id)

    def _create(self, name: str) -> None:
        task = {"notebook_path": "/notebook", "base_parameters": {"n": "of the job"}}
        settings = {"name": name, "max_concurrent_runs": 1000, "notebook_task": task, **CLUSTER}
        self.seen.jobs[self._post("2.0/jobs/create", settings)["job_id"]] = name

    def _put_secret(self, name: str) -> None:
        self._post("2.0/secrets/put", {"scope": "all", "key": name, "string_value": name})
        self.seen.secrets[name] = name

    def _put_file(self, name: str) -> None:
        content = name.encode() * self._random.randrange(1, 5000)
        body = {"path": f"/data/{name}", "contents": base64.b64encode(content).decode()}
        self._post("2.0/dbfs/put", body)
        self.seen.files[name] = content

    def _upload_in_blocks(self, name: str) -> None:
        handle = self._post("2.0/dbfs/create", {"path": f"/data/{name}"})["handle"]
        block = base64.b64encode(name.encode()).decode()
        for _ in range(10):
            self._post("2.0/dbfs/add-block", {"handle": handle, "data": block})
        self._post("2.0/dbfs/close", {"handle": handle})
        self.seen.files[name] = name.encode() * 10

    def _delete_run(self, _name: str) -> None:
        run_id = self._take_ended()
        if run_id is not None:
            self.seen.perhaps_deleted.add(run_id)
            self._post("2.0/jobs/runs/delete", {"run_id": run_id})
            self.seen.deleted_runs.add(run_id)

    def _repair(self, _name: str) -> None:
        run_id = self._take_ended()
        if run_id is not None:
            key = self._get("2.1/jobs/runs/get", run_id=run_id)["tasks"][0]["task_key"]
            body = {"run_id": run_id, "rerun_tasks": [key]}
            self.seen.repairs[run_id] = self._post("2.1/jobs/runs/repair", body)["repair_id"]

    def _take_ended(self) -> int | None:
        """Return a run that is to be changed: what is known of it does not hold any more."""
        if not self._ended:
            return None
        run_id = self._ended.pop(self._random.randrange(len(self._ended)))
        for task in self.seen.ended.pop(run_id)["tasks"]:
            self.seen.outputs.pop(task["run_id"], None)
        return run_id


def settings_of(kind: str, name: str) -> dict[str, Any] | None:
    """Return the settings of a one-time run of a kind; None for a run of a job."""
    notebook = {"notebook_path": "/notebook", "base_parameters": {"n": name}}
    python = {"python_file": "/talks.py", "parameters": [name]}
    match kind:
        case "notebook":
            return {"run_name": name, "notebook_task": notebook, **CLUSTER}
        case "python":
            return {"run_name": name, "spark_python_task": python, **CLUSTER}
        case "works":
            # Canceled by its time-out: else no place would be left for the others.
            task = {"python_file": "/works.py"}
            return {"run_name": name, "timeout_seconds": 1, "spark_python_task": task, **CLUSTER}
        case "tasks":
            tasks = [
                {"task_key": "first", "notebook_task": notebook, **CLUSTER},
                {
                    "task_key": "second",
                    "depends_on": [{"task_key": "first"}],
                    "spark_python_task": python,
                    **CLUSTER,
                },
            ]
            return {"run_name": name, "tasks": tasks}
        case _:
            return None


def launched_as(run: Mapping[str, Any]) -> str:
    """Return the token with which a run was launched: runs are named by it."""
    if run["run_type"] == "SUBMIT_RUN":
        return str(run["run_name"])
    return str(run["overriding_parameters"]["notebook_params"]["n"])


def without_run(output: dict[str, Any]) -> dict[str, Any]:
    """Return an output without its run, which is compared by itself."""
    return {name: value for name, value in output.items() if name != "metadata"}


def free_port() -> int:
    """Return a port that nothing listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def processes_of(root: Path) -> list[Any]:
    """Return the processes of the workspace's runs: the marker has its id."""
    marker = (root / ".workspace" / "workspace-id").read_text()
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARKER_VARIABLE, "").startswith(marker):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def check(api: Api, seen: Answered, most: int | None) -> None:
    """Assert that all is there that was answered, and no run twice.

    :param most: how many of the latest runs, tokens and secrets are read; None for all.
    """
    chosen = slice(None if most is None else -most, None)
    listed = all_runs(api)
    assert set(seen.launches.values()) - seen.perhaps_deleted <= listed.keys()
    assert not seen.deleted_runs & listed.keys()
    for run in listed.values():
        assert run["state"]["life_cycle_state"] in TERMINAL, "nothing goes on after a kill"
    tokens = [launched_as(run) for run in listed.values()]
    assert len(set(tokens)) == len(tokens)
    for run_id, run in list(seen.ended.items())[chosen]:
        assert api.run(run_id, "2.1") == run
    for run_id, output in list(seen.outputs.items())[chosen]:
        answer = api.get("runs/get-output", version="2.1", run_id=run_id)
        assert without_run(answer.json()) == output
    for run_id, repair_id in list(seen.repairs.items())[chosen]:
        query = {"run_id": run_id, "include_history": "true"}
        history = api.get("runs/get", version="2.1", **query).json()["repair_history"]
        assert [item.get("id") for item in history] == [None, repair_id]
    jobs = {
        job["job_id"]: job["settings"]["name"] for job in api.get("list").json().get("jobs", [])
    }
    assert seen.jobs.items() <= jobs.items()
    for key, text in list(seen.secrets.items())[chosen]:
        secret = ask(api, "secrets/get", scope="all", key=key)
        assert base64.b64decode(secret["value"]).decode() == text
    for name, content in seen.files.items():
        assert (api.root / "data" / name).read_bytes() == content
    assert not [*api.root.rglob("*.partial")]
    check_tokens(api, seen, chosen)


def check_tokens(api: Api, seen: Answered, chosen: slice) -> None:
    """Assert that each token leads to its run; one without an answer launches one run at most."""
    for token, run_id in list(seen.launches.items())[chosen]:
        answer = launch(api, seen, token)
        if answer.status_code == 200:
            assert answer.json()["run_id"] == run_id
            assert run_id not in seen.deleted_runs
        else:
            assert "has been deleted" in answer.text
            assert run_id in seen.perhaps_deleted
    for token in seen.requests.keys() - seen.launches.keys():
        first, again = (launch(api, seen, token).json()["run_id"] for _ in range(2))
        assert first == again
        assert first not in seen.launches.values()
        seen.launches[token] = first


def launch(api: Api, seen: Answered, token: str) -> requests.Response:
    """Send the request of a launch once more."""
    path, body = seen.requests[token]
    return api.session.post(f"{api.workspace.url}/api/{path}", json=body, timeout=30)


def ask(api: Api, path: str, **query: Any) -> dict[str, Any]:
    """Return the answer of another API than that of jobs."""
    answer = api.session.get(f"{api.workspace.url}/api/2.0/{path}", params=query, timeout=30)
    assert answer.status_code == 200, answer.text
    answered: dict[str, Any] = answer.json()
    return answered


def all_runs(api: Api) -> dict[int, dict[str, Any]]:
    """Return all runs of the workspace."""
    runs: dict[int, dict[str, Any]] = {}
    offset = 0
    while True:
        page = api.get("runs/list", limit=1000, offset=offset).json()
        runs |= {run["run_id"]: run for run in page.get("runs", [])}
        if not page["has_more"]:
            return runs
        offset += 1000


@pytest.mark.parametrize(
    "kills", [5, pytest.param(30, marks=pytest.mark.thorough)], ids="{} kills".format
)
def test_killed_under_load(tmp_path: Path, programs: list[Program], kills: int) -> None:
    """No job, run, output, token, secret or file is lost once answered; no process is left."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "notebook.py").write_text(NOTEBOOK)
    (root / "talks.py").write_text(TALKS)
    (root / "works.py").write_text(WORKS)
    (root / "data").mkdir()
    port = free_port()
    seen, chance = Answered(), random.Random(20261127)
    folders: set[Path] = set()
    for life in range(kills + 1):
        program = Program(root, "--port", str(port), "--token", TOKEN)
        programs.append(program)
        program.connection()
        api = Api(Address(f"http://127.0.0.1:{port}", TOKEN, root))
        if life == 0:
            api.session.post(
                f"{api.workspace.url}/api/2.0/secrets/scopes/create",
                json={"scope": "all"},
                timeout=30,
            )
        else:
            check(api, seen, None if life == kills else 50)
        folders.add(Path((root / ".workspace" / "temporary-folder").read_text()))
        if life == kills:
            break
        clients = [Client(number, api.workspace.url, seen, life) for number in range(4)]
        ends = seen.ends
        for client in clients:
            client.thread.start()
        # The kill comes while runs work, at any moment of what they and the clients do.
        until(lambda: seen.ends > ends + 3, "ends of runs", seconds=60)  # noqa: B023
        until(lambda: processes_of(root), "processes of runs", seconds=30)
        time.sleep(chance.uniform(0, 1))
        program.process.kill()
        program.process.communicate()
        for client in clients:
            client.thread.join(30)
            assert not client.thread.is_alive()
            assert client.failure is None, repr(client.failure)
        _, alive = psutil.wait_procs(processes_of(root), timeout=END_SECONDS)
        assert [one for one in alive if one.status() != psutil.STATUS_ZOMBIE] == []
    stopped = [
        run
        for run in all_runs(api).values()
        if run["state"].get("state_message") == STOPPED_MESSAGE
    ]
    assert stopped, "no kill met an active run"
    program.process.terminate()
    program.end()
    assert not [folder for folder in folders if folder.exists()]
    assert processes_of(root) == []

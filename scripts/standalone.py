"""``make airflow``: a whole Airflow with the example DAGs and the local workspace, ready to click.

A start page leads to both; on a desktop it is opened in the browser.

The components of ``airflow standalone`` (scheduler, triggerer, DAG processor, API server) with a
home of their own. They are started one by one because ``airflow standalone`` opens two log servers
to the network; here everything stays on loopback. Ctrl-C stops all. Each component's log is in the
home.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.error import URLError
from urllib.request import ProxyHandler, Request, build_opener

from airflow_jobs_provider.local.workspace import CannotStartError, LocalWorkspace
from scripts.airflow_env import (
    DEMO_HOME,
    EXAMPLE_DAGS,
    WORKSPACE_PORT,
    airflow_environment,
    connection_to,
    write_private_file,
)
from scripts.start_page import open_in_browser, write_start_page

COMPONENTS = (
    "scheduler --skip-serve-logs",
    "triggerer --skip-serve-logs",
    "dag-processor",
    "api-server",
)
START_SECONDS = 180
STOP_SECONDS = 20
FIRST_DAGS = {
    "databricks_demo": "a notebook weighs penguins; the next task gets its exit value",
    "databricks_run_now": "a job is created, and run with parameters",
    "databricks_wait_for_job": "a sensor waits for a run that somebody else has launched",
    "databricks_workflow_group": "three notebooks are one run; clear one to run it again there",
}
OPEN = build_opener(ProxyHandler({})).open


class InterruptedBySignalError(Exception):
    """Ctrl-C, or a SIGTERM."""


def main() -> int:
    """Run until interrupted, and return the exit code."""
    parser = argparse.ArgumentParser(prog="make airflow", description=__doc__)
    parser.add_argument("--home", type=Path, default=DEMO_HOME / "airflow")
    parser.add_argument("--dags", type=Path, default=EXAMPLE_DAGS)
    parser.add_argument("--port", type=int, default=8080, help="of Airflow; 0 for any free one")
    parser.add_argument("--workspace-port", type=int, default=WORKSPACE_PORT)
    parser.add_argument("--workspace-state", type=Path, default=DEMO_HOME / "workspace")
    chosen = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    home: Path = chosen.home.resolve()
    home.mkdir(parents=True, exist_ok=True)
    try:
        port = free_port(chosen.port)
        with LocalWorkspace(
            EXAMPLE_DAGS / "workspace", chosen.workspace_port, state_dir=chosen.workspace_state
        ) as workspace:
            return run(home, chosen.dags.resolve(), port, workspace)
    except CannotStartError as error:
        print(f"Error: {error} (is another make demo or make airflow running?)", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"Error: port {chosen.port} cannot be used ({error.strerror})", file=sys.stderr)
        print("Choose another one: make airflow AIRFLOW_PORT=8090", file=sys.stderr)
        return 1
    except InterruptedBySignalError:
        return 0


def run(home: Path, dags: Path, port: int, workspace: LocalWorkspace) -> int:
    """Start Airflow, say where it is, wait for its end or for an interruption."""
    password = write_password(home / "passwords.json")
    env = airflow_environment(home, dags, connection=connection_to(workspace)) | {
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__PARALLELISM": "4",
        # Airflow's supervisor often misses the moment its task process ends and looks again only
        # after this many seconds (5 by default). Where a task that deferred is resumed sooner, the
        # scheduler takes the late news for that of the resumed try and fails the task.
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
    }
    print("Starting Airflow: half a minute, longer the first time ...", flush=True)
    processes: dict[str, subprocess.Popen[bytes]] = {}
    try:
        # First alone: it writes airflow.cfg, whose secrets all components share.
        if started(home, env, "db migrate").wait() != 0:
            return failed(home, "db migrate")
        for command in COMPONENTS:
            processes[command] = started(home, env, command)
        if not is_ready(processes, port, password):
            return failed(home, *ended(processes))
        page = home / "index.html"
        write_start_page(
            page,
            airflow=f"http://127.0.0.1:{port}",
            user="admin",
            password=password,
            pages=workspace.pages_url,
            root=workspace.root,
            dags=FIRST_DAGS,
        )
        print(
            f"\nAirflow:          http://127.0.0.1:{port}  (user admin, password {password})\n"
            f"Local workspace:  {workspace.url}  (connection databricks_default)\n"
            f"Both on one page: {page.as_uri()}\n"
            f"Logs:             {home}\n"
            f"Trigger {', '.join([*FIRST_DAGS][:-1])} or {[*FIRST_DAGS][-1]} there. "
            "Ctrl-C stops everything.",
            flush=True,
        )
        open_in_browser(page)
        while not ended(processes):
            time.sleep(1)
        return failed(home, *ended(processes))
    except InterruptedBySignalError:
        print("\nStopping Airflow and the workspace ...", flush=True)
        return 0
    finally:
        stop(list(processes.values()))


def started(home: Path, env: dict[str, str], command: str) -> subprocess.Popen[bytes]:
    """Start an Airflow command that writes its own log file."""
    with log_of(home, command).open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "airflow", *command.split()],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches us only, and we stop it in order.
        )


def log_of(home: Path, command: str) -> Path:
    """Name the log file of an Airflow command."""
    name = command.partition(" --")[0].replace(" ", "-")
    return home / f"{name}.log"


def ended(processes: dict[str, subprocess.Popen[bytes]]) -> list[str]:
    """Return the components that run no more."""
    return [command for command, process in processes.items() if process.poll() is not None]


def failed(home: Path, *commands: str) -> int:
    """Show why Airflow does not run, and return the exit code."""
    for command in commands:
        lines = log_of(home, command).read_text().splitlines()[-30:]
        print("\n".join(lines), file=sys.stderr)
    what = f"airflow {', '.join(commands)} has ended" if commands else "Airflow did not get ready"
    print(f"Error: {what}. The logs are in {home}.", file=sys.stderr)
    return 1


def interrupt(_number: int, _frame: FrameType | None) -> None:
    """Turn the first signal into an exception, and ignore others while we stop."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise InterruptedBySignalError


def free_port(port: int) -> int:
    """Return the port if it is free, any free one for 0.

    :raises OSError: it is taken.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        chosen: int = probe.getsockname()[1]
    return chosen


def write_password(file: Path) -> str:
    """Make the admin's password, in a file that only this user reads."""
    password = secrets.token_urlsafe(9)
    write_private_file(file, json.dumps({"admin": password}))
    return password


def is_ready(processes: dict[str, subprocess.Popen[bytes]], port: int, password: str) -> bool:
    """Wait until every component is alive and the example DAGs are listed."""
    deadline = time.monotonic() + START_SECONDS
    while not ended(processes) and time.monotonic() < deadline:
        with suppress(URLError, OSError, ValueError, KeyError):
            health = ask(f"http://127.0.0.1:{port}/api/v2/monitor/health")
            parts = ("scheduler", "triggerer", "dag_processor")
            if all(health[part]["status"] == "healthy" for part in parts):
                login = {"username": "admin", "password": password}
                token = ask(f"http://127.0.0.1:{port}/auth/token", body=login)["access_token"]
                dags = ask(f"http://127.0.0.1:{port}/api/v2/dags", token=token)["dags"]
                if dags:
                    return True
        time.sleep(0.5)
    return False


def ask(url: str, *, body: object = None, token: str = "") -> dict[str, Any]:
    """Send a request to Airflow, never through a proxy."""
    request = Request(url, headers={"Content-Type": "application/json"})
    if body is not None:
        request.data = json.dumps(body).encode()
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    with OPEN(request, timeout=10) as answer:
        decoded: dict[str, Any] = json.load(answer)
    return decoded


def stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """Ask Airflow to stop, then make sure that nothing of it is left."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.1, deadline - time.monotonic()))
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())

"""``make demo``: the demo DAG on a real Airflow, against a local workspace.

Starts the workspace, makes an Airflow of its own under ``.demo/``, runs
``example_dags/databricks_demo.py`` with the trigger in the same process, and shows what the log
says of the run. The whole log is in ``.demo/demo.log``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from airflow_jobs_provider.local.workspace import CannotStartError, LocalWorkspace
from scripts.airflow_env import (
    DEMO_HOME,
    EXAMPLE_DAGS,
    ROOT,
    WORKSPACE_PORT,
    airflow_environment,
    connection_to,
)

DAG_ID = "databricks_demo"
LAUNCHING, PRINTING = "weigh_penguins", "print_weights"
WIDTH = 78


def main() -> int:
    """Run the demo, and return the exit code."""
    DEMO_HOME.mkdir(exist_ok=True)
    log_file = DEMO_HOME / "demo.log"
    with started_workspace() as (workspace, keeps_runs):
        say(f"A local workspace answers at {workspace.url}")
        env = airflow_environment(
            DEMO_HOME / "demo-airflow", EXAMPLE_DAGS, connection=connection_to(workspace)
        ) | {"AIRFLOW__LOGGING__JSON_LOGS": "True"}
        say("Preparing the metadata database of the demo's own Airflow")
        with log_file.open("w") as log:
            migrated = subprocess.run(
                [sys.executable, "-m", "airflow", "db", "migrate"],
                env=env,
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if migrated.returncode:
            return failed(log_file, "Airflow could not make its metadata database.")
        say(f"Running the DAG {DAG_ID} (example_dags/{DAG_ID}.py)")
        result, printed = run_dag(env, log_file)
    if result is None:
        return failed(log_file, "Airflow could not run the DAG.")
    if result["state"] != "success":
        print(f"Error: the DAG run failed, see above; the whole log is {log_file}", file=sys.stderr)
        return 1
    launched = result["tasks"][LAUNCHING]["xcoms"]
    print("-" * WIDTH)
    print(f"The second task, {PRINTING}, read the exit value from XCom and printed:")
    print("\n".join(f"    {line}" for line in printed))
    print(f"The run's page:  {launched['run_page_url']}")
    if keeps_runs:
        print("                 (the demo's workspace has stopped; make airflow shows it again)")
    print(f"The whole log:   {log_file.relative_to(ROOT)}")
    return 0


@contextmanager
def started_workspace() -> Iterator[tuple[LocalWorkspace, bool]]:
    """Start a workspace; the second value tells whether ``make airflow`` will know its runs."""
    notebooks = EXAMPLE_DAGS / "workspace"
    try:
        workspace = LocalWorkspace(
            notebooks, port=WORKSPACE_PORT, state_dir=DEMO_HOME / "workspace"
        ).start()
    except CannotStartError:  # Such as when "make airflow" is running.
        with (
            tempfile.TemporaryDirectory() as state,
            LocalWorkspace(notebooks, state_dir=state) as other,
        ):
            yield other, False
    else:
        with workspace_running(workspace):
            yield workspace, True


@contextmanager
def workspace_running(workspace: LocalWorkspace) -> Iterator[None]:
    """Stop a started workspace in the end."""
    try:
        yield
    finally:
        workspace.stop()


def run_dag(env: dict[str, str], log_file: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """Run the DAG in an Airflow process; return its result and what the second task printed."""
    result_file = DEMO_HOME / "result.json"
    result_file.unlink(missing_ok=True)
    command = [sys.executable, str(ROOT / "scripts" / "run_dag.py")]
    command += [str(EXAMPLE_DAGS / f"{DAG_ID}.py"), DAG_ID, str(result_file)]
    task, printed = "", []
    with (
        log_file.open("a") as log,
        subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            log.write(line)
            entry = parsed(line)
            if entry is None:
                if task == PRINTING and line.strip():
                    printed.append(line.rstrip())
                continue
            event = str(entry.get("event", ""))
            if event.startswith("[DAG TEST] starting task_id="):
                task = event.split("task_id=")[1].split(maxsplit=1)[0]
            if is_telling(entry):
                time = str(entry.get("timestamp", ""))[11:19]
                text = event.removeprefix("[DAG TEST] ").strip() + raised(entry)
                print(f"  {time}  {task:15} {text}", flush=True)
    if not result_file.exists():
        return None, printed
    return json.loads(result_file.read_text()), printed


def parsed(line: str) -> dict[str, Any] | None:
    """Read a line of Airflow's JSON log; None for what a task printed."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and "event" in entry else None


def is_telling(entry: dict[str, Any]) -> bool:
    """Choose the log lines that tell what happens to the run and its task."""
    return (
        "airflow_jobs_provider." in str(entry.get("logger"))
        or entry.get("level") in ("error", "critical")
        or str(entry["event"]).startswith(
            ("Pausing task as DEFERRED", "[DAG TEST] running trigger", "[DAG TEST] Trigger")
        )
    )


def raised(entry: dict[str, Any]) -> str:
    """Return the exception of a log entry, if it has one."""
    chain = entry.get("exception")
    if not isinstance(chain, list) or not chain:
        return ""
    return f": {chain[0].get('exc_type')}: {chain[0].get('exc_value')}"


def say(text: str) -> None:
    """Announce a step."""
    print(f"==> {text}", flush=True)


def failed(log_file: Path, why: str) -> int:
    """Show the end of the log, and return the exit code."""
    lines = log_file.read_text().splitlines()[-30:]
    print("\n".join(line[:400] for line in lines), file=sys.stderr)
    print(f"Error: {why} The end of the log is above, all of it in {log_file}.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())

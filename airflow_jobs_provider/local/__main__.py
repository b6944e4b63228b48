"""``python -m airflow_jobs_provider.local --root DIR``: a workspace until it is interrupted."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import secrets
import shlex
import signal
import sys
from pathlib import Path

from airflow_jobs_provider.local.paths import STATE_FOLDER
from airflow_jobs_provider.local.workspace import CannotStartError, serve

_DEFAULT_PORT = 8421


def main(arguments: list[str] | None = None) -> int:
    """Run the workspace, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m airflow_jobs_provider.local",
        description="A Databricks workspace on this machine: the Jobs API over HTTP, with "
        "notebooks and Python files that really run.",
    )
    parser.add_argument(
        "--root", type=Path, required=True, help="the folder that is the workspace's /"
    )
    parser.add_argument(
        "--port",
        type=int,
        default=_DEFAULT_PORT,
        help=f"the port on 127.0.0.1 (default: {_DEFAULT_PORT}); 0 for any that is free",
    )
    parser.add_argument("--token", help="the access token (default: a new one)")
    parser.add_argument(
        "--state-dir",
        type=Path,
        help=f"where jobs, runs and executed notebooks are kept (default: ROOT/{STATE_FOLDER})",
    )
    parser.add_argument(
        "--max-concurrent-runs",
        type=_positive,
        help="how many runs work at once (default: the number of cores, at least 2)",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="let each run end well at once, without doing anything",
    )
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        asyncio.run(_serve(chosen))
    except CannotStartError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


async def _serve(chosen: argparse.Namespace) -> None:
    interrupted = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, interrupted.set)
        except NotImplementedError:  # pragma: no cover  (Windows)
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(interrupted.set))
    root: Path = chosen.root.resolve()
    state_dir: Path = (chosen.state_dir or root / STATE_FOLDER).resolve()
    token: str = chosen.token or secrets.token_urlsafe(24)
    async with serve(
        root, chosen.port, token, state_dir, chosen.max_concurrent_runs, dry_run=chosen.dry_run
    ) as url:
        connection = json.dumps({"conn_type": "databricks_jobs", "host": url, "password": token})
        _say(
            f"The local workspace answers at {url}",
            f"Its notebooks lie in {root}, its jobs and runs in {state_dir}",
            "Connect Airflow to it with:",
            f"export AIRFLOW_CONN_DATABRICKS_DEFAULT={shlex.quote(connection)}",
            "Stop it with Ctrl-C.",
        )
        await interrupted.wait()
        _say("Stopping: active runs are ended.")


def _say(*lines: str) -> None:
    # Whoever started us through a pipe waits for these lines.
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stdout.flush()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())

"""``python -m airflow_jobs_provider.local --root DIR``: a workspace until it is interrupted."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import secrets
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

from airflow_jobs_provider.local.control_command import COMMANDS, TOKEN_VARIABLE, run_command
from airflow_jobs_provider.local.paths import STATE_FOLDER
from airflow_jobs_provider.local.workspace import (
    DEFAULT_TOKEN_LIFETIME_SECONDS,
    CannotStartError,
    pages_url,
    serve,
)

_log = logging.getLogger(__name__)
_DEFAULT_PORT = 8421


def main(arguments: list[str] | None = None) -> int:
    """Run the workspace, or a command for a running one, and return the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    if given and given[0] in COMMANDS:
        return run_command(given, default_port=_DEFAULT_PORT, token_of=_token)
    chosen = _parser().parse_args(given)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        asyncio.run(_serve(chosen))
    except CannotStartError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    """Make the parser of the arguments with which the workspace starts."""
    parser = argparse.ArgumentParser(
        prog="python -m airflow_jobs_provider.local",
        description="A Databricks workspace on this machine: the Jobs API over HTTP, with "
        "notebooks and Python files that really run.",
        epilog=f"Commands for a running workspace: {', '.join(COMMANDS)}; see COMMAND --help.",
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
    token = parser.add_mutually_exclusive_group()
    token.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="a file that holds the access token (default: the environment variable "
        f"{TOKEN_VARIABLE}, else a new token)",
    )
    token.add_argument(
        "--token", help="the access token; every user of this machine can see it: prefer a file"
    )
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
    parser.add_argument(
        "--pip-install",
        action="store_true",
        help="let %%pip install of a notebook install packages, into a folder of its run",
    )
    parser.add_argument(
        "--oauth",
        action="store_true",
        help="accept OAuth tokens only, and print a connection with client id and client secret; "
        "the secret is the access token",
    )
    parser.add_argument(
        "--token-lifetime",
        type=_positive,
        metavar="SECONDS",
        default=DEFAULT_TOKEN_LIFETIME_SECONDS,
        help=f"how long an OAuth token is valid (default: {DEFAULT_TOKEN_LIFETIME_SECONDS})",
    )
    parser.add_argument(
        "--record",
        type=Path,
        metavar="DIR",
        help="record all requests and responses in DIR/requests.jsonl, tokens masked",
    )
    parser.add_argument(
        "--repository",
        type=_repository,
        action="append",
        default=[],
        metavar="URL=DIR",
        help="the folder of a clone of a Git repository, for git_source; may be given several "
        "times (clones in ROOT/Repos need not be named)",
    )
    return parser


async def _serve(chosen: argparse.Namespace) -> None:
    from airflow_jobs_provider.local.http.request_log import RequestLog
    from airflow_jobs_provider.local.simulation import Simulation

    interrupted = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, interrupted.set)
        except NotImplementedError:  # pragma: no cover  (Windows)
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(interrupted.set))
    root: Path = chosen.root.resolve()
    state_dir: Path = (chosen.state_dir or root / STATE_FOLDER).resolve()
    token = _token(chosen)
    try:
        log = RequestLog(chosen.record, token)
    except OSError as error:
        raise CannotStartError(f"Requests cannot be recorded: {error}") from error
    async with serve(
        root,
        chosen.port,
        token,
        state_dir,
        chosen.max_concurrent_runs,
        dry_run=chosen.dry_run,
        oauth=chosen.oauth,
        token_lifetime_seconds=chosen.token_lifetime,
        simulation=Simulation(log=log),
        preload_kernels=True,
        pip_install=chosen.pip_install,
        repositories=dict(chosen.repository),
    ) as url:
        connection = json.dumps(_connection(url, token, oauth=chosen.oauth))
        _say(
            f"The local workspace answers at {url}",
            f"Its notebooks are in {root}, its jobs and runs in {state_dir}",
            "Connect Airflow to it with:",
            f"export AIRFLOW_CONN_DATABRICKS_DEFAULT={shlex.quote(connection)}",
            f"Its pages: {pages_url(url, token)}",
            "Stop it with Ctrl-C.",
        )
        await interrupted.wait()
        _say("Stopping: active runs are ended.")


def _connection(url: str, token: str, *, oauth: bool) -> dict[str, Any]:
    connection = {"conn_type": "databricks_jobs", "host": url, "password": token}
    if not oauth:
        return connection
    from airflow_jobs_provider.local.http.oauth import CLIENT_ID

    return {**connection, "login": CLIENT_ID, "extra": {"service_principal_oauth": True}}


def _token(chosen: argparse.Namespace) -> str:
    # Taken out of the environment, so that no run inherits it.
    from_environment = os.environ.pop(TOKEN_VARIABLE, "")
    if chosen.token_file is not None:
        return _token_in(chosen.token_file)
    if chosen.token:
        _log.warning(
            "--token is shown in the list of processes to every user of this machine; "
            "use --token-file or %s",
            TOKEN_VARIABLE,
        )
        return str(chosen.token)
    return from_environment or secrets.token_urlsafe(24)


def _token_in(file: Path) -> str:
    try:
        token = file.read_text(encoding="utf-8").strip()
        readable = os.name == "posix" and file.stat().st_mode & 0o077
    except (OSError, UnicodeDecodeError) as error:
        raise CannotStartError(f"The token file {file} cannot be read ({error})") from error
    if not token:
        raise CannotStartError(f"The token file {file} is empty")
    if readable:
        _log.warning("Other users of this machine may read %s: chmod 600 %s", file, file)
    return token


def _say(*lines: str) -> None:
    # Whoever started us through a pipe waits for these lines.
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stdout.flush()


def _repository(text: str) -> tuple[str, Path]:
    # A URL may have an equals sign; what a folder of a clone has is after the last one.
    url, _, folder = text.rpartition("=")
    if not url or not folder:
        raise argparse.ArgumentTypeError("must be URL=DIR")
    return url, Path(folder).resolve()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())

"""Commands that change a running local workspace: ``break``, ``result``, ``requests``, ``clear``.

::

    python -m airflow_jobs_provider.local break runs/get --status 503 --times 5
    python -m airflow_jobs_provider.local result /Shared/etl --returns '{"rows": 3}'
    python -m airflow_jobs_provider.local result /Shared/etl --fails "no such table" --times 1
    python -m airflow_jobs_provider.local requests
    python -m airflow_jobs_provider.local clear

They use the requests of :mod:`airflow_jobs_provider.local.http.control`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow_jobs_provider.local.workspace import CannotStartError

__all__ = ["COMMANDS", "TOKEN_VARIABLE", "run_command"]

TOKEN_VARIABLE = "AIRFLOW_JOBS_PROVIDER_LOCAL_TOKEN"  # noqa: S105  (a name, no secret)

_TIMEOUT_SECONDS = 30
_KINDS = ("error", "html", "expired_token", "connection_reset", "response_lost", "no_response")


def run_command(
    arguments: list[str], *, default_port: int, token_of: Callable[[argparse.Namespace], str]
) -> int:
    """Run one of the commands against a workspace that runs on this machine.

    :param arguments: the command and its arguments.
    :param default_port: the workspace's port where none is given.
    :param token_of: returns the access token, from the arguments or the environment.
    :return: the exit code.
    """
    chosen = _parser(default_port).parse_args(arguments)
    try:
        token = token_of(chosen)  # once: it takes the token out of the environment
        answers = [
            _send(chosen, token, method, path, body)
            for method, path, body in COMMANDS[chosen.command](chosen)
        ]
    except (_CommandError, CannotStartError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    for answer in answers:
        if answer:
            sys.stdout.write(json.dumps(answer, indent=2) + "\n")
    if chosen.command in _DONE:
        sys.stdout.write(_DONE[chosen.command](chosen) + "\n")
    return 0


class _CommandError(Exception):
    """The command cannot be carried out; the text says why."""


_Requests = list[tuple[str, str, dict[str, Any] | None]]


def _break(chosen: argparse.Namespace) -> _Requests:
    names = ("endpoint", "kind", "status", "error_code", "message", "retry_after", "times")
    return [("POST", "faults", {name: getattr(chosen, name) for name in names})]


def _result(chosen: argparse.Namespace) -> _Requests:
    body: dict[str, Any] = {"name": chosen.name, "seconds": chosen.seconds, "times": chosen.times}
    if chosen.fails is not None:
        body |= {"end": "failed", "error": chosen.fails}
    elif chosen.never_ends:
        body["end"] = "never"
    elif chosen.is_deleted:
        body["end"] = "deleted"
    else:
        body["result"] = chosen.returns
    return [("POST", "results", body)]


def _requests(_chosen: argparse.Namespace) -> _Requests:
    return [("GET", "requests", None)]


def _clear(_chosen: argparse.Namespace) -> _Requests:
    return [("DELETE", path, None) for path in ("faults", "results", "requests")]


#: The commands, and the requests that each sends.
COMMANDS: dict[str, Callable[[argparse.Namespace], _Requests]] = {
    "break": _break,
    "result": _result,
    "requests": _requests,
    "clear": _clear,
}


def _is_broken(chosen: argparse.Namespace) -> str:
    which = "The next request" if chosen.times == 1 else f"The next {chosen.times} requests"
    how = f"status {chosen.status}" if chosen.kind in ("error", "html") else ""
    what = ", ".join(filter(None, (f"kind {chosen.kind}", how)))
    return f"{which} of {chosen.endpoint}: {what}"


def _is_decided(chosen: argparse.Namespace) -> str:
    which = "All runs" if chosen.times is None else f"The next runs ({chosen.times})"
    ends = {"fail": chosen.fails is not None, "never end": chosen.never_ends}
    ends["are deleted"] = chosen.is_deleted
    return f"{which} of {chosen.name} {next((end for end in ends if ends[end]), 'succeed')}"


#: What a command prints when it is done; the others print what was asked for.
_DONE: dict[str, Callable[[argparse.Namespace], str]] = {
    "break": _is_broken,
    "result": _is_decided,
    "clear": lambda _chosen: "Faults, results and logged requests are removed",
}


def _send(
    chosen: argparse.Namespace, token: str, method: str, path: str, body: dict[str, Any] | None
) -> dict[str, Any]:
    import requests

    url = f"http://127.0.0.1:{chosen.port}/_local/{path}"
    try:
        with requests.Session() as session:
            session.trust_env = False  # no proxy leads to this machine
            answer = session.request(
                method,
                url,
                json=body,
                headers={"Authorization": f"Bearer {token}"},
                timeout=_TIMEOUT_SECONDS,
            )
            data: dict[str, Any] = answer.json()
    except requests.ConnectionError:
        raise _CommandError(
            f"No local workspace answers on port {chosen.port}; start one, or give --port"
        ) from None
    except (requests.RequestException, ValueError) as error:
        raise _CommandError(
            f"What answers on port {chosen.port} is no local workspace ({error}); give --port"
        ) from None
    if answer.status_code in (401, 403):
        raise _CommandError(
            f"{data.get('message', data)} Set {TOKEN_VARIABLE} to the access token of the "
            "workspace, or give --token-file"
        )
    if not answer.ok:
        raise _CommandError(str(data.get("message", data)))
    return data


def _parser(default_port: int) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m airflow_jobs_provider.local")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--port", type=int, default=default_port, help=f"the workspace's port ({default_port})"
    )
    shared.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="a file that holds the workspace's access token",
    )
    shared.set_defaults(token=None)
    commands = parser.add_subparsers(dest="command", required=True)
    breaking = commands.add_parser("break", parents=[shared], help="break the next requests")
    breaking.add_argument("endpoint", help='such as runs/get or "runs/*"')
    breaking.add_argument("--kind", choices=_KINDS, default="error", help="default: error")
    breaking.add_argument("--status", type=int, default=503, help="HTTP status (503)")
    breaking.add_argument("--error-code", help="the error's error_code")
    breaking.add_argument("--message", help="the error's message")
    breaking.add_argument("--retry-after", type=int, metavar="SECONDS", help="Retry-After")
    breaking.add_argument("--times", type=int, default=1, help="how many requests (1)")
    result = commands.add_parser("result", parents=[shared], help="decide how runs end")
    result.add_argument("name", help="notebook path, file, run or job name, or task key")
    ends = result.add_mutually_exclusive_group()
    ends.add_argument("--returns", metavar="TEXT", help="succeed with this output")
    ends.add_argument("--fails", metavar="ERROR", help="fail with this error")
    ends.add_argument("--never-ends", action="store_true", help="stay active until canceled")
    ends.add_argument("--is-deleted", action="store_true", help="end, and be deleted")
    result.add_argument("--seconds", type=float, default=0.0, help="reported duration (0)")
    result.add_argument("--times", type=int, help="for how many runs (all)")
    commands.add_parser("requests", parents=[shared], help="print the last requests")
    commands.add_parser("clear", parents=[shared], help="remove faults, results and requests")
    return parser

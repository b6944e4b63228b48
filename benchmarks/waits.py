"""Follow many deferred runs with this provider and with the official one, side by side.

    python -m benchmarks.waits --runs 1000 --official-python PYTHON
    python -m benchmarks.waits --runs 100 --group --official-python PYTHON

Both providers' triggers wait, in a process of their own, for runs of one counting server on this
machine, at the same polling period; the runs end evenly over a stretch of time. What is counted:
requests and connections at the server; CPU time, memory and the longest block of the event loop in
the process that waits; the time from a run's end to its event.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

ROOT = Path(__file__).parents[1]
# runs, first and last end in seconds from the start, polling period
SCENARIOS = {
    1: (40, 40, 5),
    10: (20, 60, 5),
    100: (20, 60, 5),
    1000: (20, 60, 5),
    10_000: (30, 150, 10),
}
COLUMNS = {
    "runs": "runs",
    "provider": "provider",
    "requests": "requests",
    "requests_per_second": "a second",
    "connections": "connections",
    "cpu_seconds": "CPU s",
    "cpu_percent": "of a core",
    "peak_kb_per_run": "kB a run",
    "longest_block_ms": "longest block ms",
    "longest_without_collections_ms": "(without garbage collection)",
    "late_median": "event delay s (median)",
    "late_p99": "(99 %)",
    "late_worst": "(worst)",
    "events": "events",
}
# How long a measure may take: long enough for everything that keeps up.
LONGEST_SECONDS = 600


class TookTooLongError(Exception):
    """A provider did not come to the end of its runs in time."""


def ask(url: str, body: dict[str, Any] | None = None) -> Any:
    """Ask the counting server."""
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(url, data=data, headers={"Content-Type": "application/json"})) as answer:
        return json.load(answer)


@contextmanager
def counting_server() -> Iterator[str]:
    """Lend a server of ``many_runs.py`` in a process of its own; its address."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.many_runs"], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        assert server.stdout is not None
        yield json.loads(server.stdout.readline())["url"]
    finally:
        server.terminate()
        server.wait(10)


def measure(
    python: str,
    provider: str,
    runs: int,
    *,
    period: int | None = None,
    ends: tuple[int, int] | None = None,
    api_version: str = "2.0",
    **limits: Any,
) -> dict[str, Any]:
    """Measure one provider with one number of runs.

    :param python: interpreter that has the provider.
    :param provider: ``this one`` or ``official``.
    :param runs: how many, of those that SCENARIOS names.
    :param period: polling period, in place of the scenario's.
    :param ends: seconds after which the first and the last run end, in place of the scenario's.
    :param api_version: ``2.1`` for lists of 25 runs a page.
    :param limits: the server's, see ``many_runs.py``. With ``group`` the runs are those of the
        tasks of one run.
    """
    first_end, last_end, usual_period = SCENARIOS[runs]
    if ends is not None:
        first_end, last_end = ends
    period = period or usual_period
    with counting_server() as url:
        set_up = {"runs": runs, "first_end": first_end, "last_end": last_end, **limits}
        wish = {
            "url": url,
            "provider": provider,
            "ends": ask(f"{url}/set-up", set_up),
            "period": period,
            "warm_up": runs + 1,
            "api_version": api_version,
            "group": runs + 2 if limits.get("group") else None,
        }
        with tempfile.TemporaryDirectory() as home:
            environment = {**os.environ, "AIRFLOW_HOME": home, "PYTHONPATH": str(ROOT)}
            try:
                driven = subprocess.run(
                    [python, "-m", "benchmarks.drive_triggers"],
                    input=json.dumps(wish),
                    capture_output=True,
                    text=True,
                    env=environment,
                    timeout=LONGEST_SECONDS,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                counts = ask(f"{url}/counts")
                raise TookTooLongError(f"{provider}, {runs} runs: {counts}") from None
        if driven.returncode:
            sys.exit(driven.stderr[-3000:])
        measures = json.loads(driven.stdout.splitlines()[-1])
        counts = ask(f"{url}/counts")
    requests = sum(counts["requests"].values()) - 1  # the one wait that warms up
    return {
        "runs": runs,
        "provider": provider,
        "period": period,
        "requests": requests,
        "requests_per_second": requests / measures["wall_seconds"],
        "connections": counts["connections"],
        "throttled": counts["throttled"],
        "asked": counts["requests"],
        "cpu_percent": 100 * measures["cpu_seconds"] / measures["wall_seconds"],
        **measures,
        "api_version": api_version,
        "limits": limits,
    }


def table(rows: list[dict[str, Any]], columns: dict[str, str] | None = None) -> str:
    """Write the measures as a Markdown table.

    :param columns: heads by the measures' names; COLUMNS by default.
    """
    columns = columns or COLUMNS

    def cell(row: dict[str, Any], name: str) -> str:
        value = row[name]
        if name == "cpu_percent":
            return f"{value:.1f} %"
        if name.endswith("_ms"):
            return f"{value:.0f}"
        if name == "peak_kb_per_run":
            # Of a few runs' it would say nothing.
            return f"{value:.0f}" if row["runs"] >= 100 else ""
        if isinstance(value, float):
            return f"{value:,.2f}"
        return f"{value:,}" if isinstance(value, int) else str(value)

    lines = [
        "| " + " | ".join(columns.values()) + " |",
        "| " + " | ".join("---" for _ in columns) + " |",
    ]
    lines += ["| " + " | ".join(cell(row, name) for name in columns) + " |" for row in rows]
    return "\n".join(lines)


def main() -> None:
    """Measure what was asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, nargs="+", default=[10, 100, 1000, 10_000])
    parser.add_argument("--official-python", help="Python that has the official provider")
    parser.add_argument("--official-most", type=int, default=1000, help="runs it is given at most")
    parser.add_argument("--period", type=int, help="polling period in seconds")
    parser.add_argument("--ends", type=int, nargs=2, help="seconds to the first and the last end")
    parser.add_argument("--api-version", default="2.0", help="2.1 and 2.2 list 25 runs a page")
    parser.add_argument("--max-page", type=int, help="runs on a page of a list of 2.0, at most")
    parser.add_argument("--requests-per-second", type=float, help="above it, the answer is 429")
    parser.add_argument(
        "--group", action="store_true", default=None, help="the runs are the tasks of one run"
    )
    parser.add_argument("--out", type=Path, help="file for the measures as JSON")
    arguments = parser.parse_args()
    options: dict[str, Any] = {
        name: value
        for name in ("period", "ends", "api_version", "max_page", "requests_per_second", "group")
        if (value := getattr(arguments, name)) is not None
    }
    rows = []
    for runs in arguments.runs:
        rows.append(measure(sys.executable, "this one", runs, **options))
        if arguments.official_python and runs <= arguments.official_most:
            rows.append(measure(arguments.official_python, "official", runs, **options))
    print(table(rows))
    print(f"\n{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()

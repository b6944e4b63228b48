"""Follow 10 to 10,000 deferred runs with this provider and with the official one, side by side.

    make bench

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
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

ROOT = Path(__file__).parents[1]
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
    "longest_collection_ms": "(garbage collection ms)",
    "late_median": "noticed after s (median)",
    "late_p99": "(99 %)",
    "late_worst": "(worst)",
    "events": "events",
}
# runs, first and last end in seconds from the start, polling period
SCENARIOS = {10: (20, 60, 5), 100: (20, 60, 5), 1000: (20, 60, 5), 10_000: (30, 150, 10)}


def ask(url: str, body: dict[str, Any] | None = None) -> Any:
    """Ask the counting server."""
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(url, data=data, headers={"Content-Type": "application/json"})) as answer:
        return json.load(answer)


def measure(
    python: str, provider: str, runs: int, *, api_version: str = "2.0", **options: Any
) -> dict[str, Any]:
    """Measure one provider with one number of runs."""
    first_end, last_end, period = SCENARIOS[runs]
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.many_runs"], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        assert server.stdout is not None
        url = json.loads(server.stdout.readline())["url"]
        ends = ask(
            f"{url}/set-up",
            {"runs": runs, "first_end": first_end, "last_end": last_end, **options},
        )
        wish = {"url": url, "provider": provider, "ends": ends, "period": period, "warm_up": 0}
        wish["api_version"] = api_version
        with tempfile.TemporaryDirectory() as home:
            environment = {**os.environ, "AIRFLOW_HOME": home, "PYTHONPATH": str(ROOT)}
            driven = subprocess.run(
                [python, str(ROOT / "benchmarks" / "drive_triggers.py")],
                input=json.dumps(wish),
                capture_output=True,
                text=True,
                env=environment,
                timeout=900,
                check=False,
            )
        if driven.returncode:
            sys.exit(driven.stderr[-3000:])
        measures = json.loads(driven.stdout.splitlines()[-1])
        counts = ask(f"{url}/counts")
    finally:
        server.terminate()
        server.wait(10)
    requests = sum(counts["requests"].values()) - 1  # the one wait that warms up
    return {
        "runs": runs,
        "provider": provider,
        "requests": requests,
        "requests_per_second": requests / measures["wall_seconds"],
        "connections": counts["connections"],
        "throttled": counts["throttled"],
        "asked": counts["requests"],
        "cpu_percent": 100 * measures["cpu_seconds"] / measures["wall_seconds"],
        **measures,
        "api_version": api_version,
        "limits": options,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Write the measures as a Markdown table."""

    def cell(row: dict[str, Any], name: str) -> str:
        value = row[name]
        if name == "cpu_percent":
            return f"{value:.1f} %"
        return (
            f"{value:,.2f}"
            if isinstance(value, float)
            else f"{value:,}"
            if isinstance(value, int)
            else str(value)
        )

    lines = [
        "| " + " | ".join(COLUMNS.values()) + " |",
        "| " + " | ".join("---" for _ in COLUMNS) + " |",
    ]
    lines += ["| " + " | ".join(cell(row, name) for name in COLUMNS) + " |" for row in rows]
    return "\n".join(lines)


def main() -> None:
    """Measure what was asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, nargs="+", default=[10, 100, 1000, 10_000])
    parser.add_argument("--official-python", help="Python that has the official provider")
    parser.add_argument("--official-most", type=int, default=1000, help="runs it is given at most")
    parser.add_argument("--api-version", default="2.0", help="2.1 and 2.2 list 25 runs a page")
    parser.add_argument("--max-page", type=int, help="runs on a page of a list of 2.0, at most")
    parser.add_argument("--requests-per-second", type=float, help="above it, the answer is 429")
    parser.add_argument("--out", type=Path, help="file for the measures as JSON")
    arguments = parser.parse_args()
    options: dict[str, Any] = {
        name: value
        for name in ("max_page", "requests_per_second")
        if (value := getattr(arguments, name)) is not None
    }
    options["api_version"] = arguments.api_version
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

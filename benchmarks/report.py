"""Measure everything and write docs/benchmarks.md and its plots.

    make bench

Makes an environment of its own for the official provider, runs ``waits.py`` and ``imports.py`` with
both, and writes what came out, with the command, the date and the machine. Takes about 20 minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import imports, waits

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
OFFICIAL = "apache-airflow-providers-databricks==7.23.0"
AIRFLOW = "apache-airflow==3.3.2"


def official_python(folder: Path) -> str:
    """Return the Python of an environment with the official provider, made if need be."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        command = [str(python), "-m", "pip", "install", "--quiet", AIRFLOW, OFFICIAL]
        subprocess.run(command, check=True)
    return str(python)


def plot(rows: list[dict[str, Any]], name: str, label: str, file: Path) -> None:
    """Draw one measure over the number of runs, for both providers."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.5))
    for provider, marker in (("official", "s"), ("this one", "o")):
        points = [(row["runs"], row[name]) for row in rows if row["provider"] == provider]
        axes.plot(*zip(*points, strict=True), marker=marker, label=provider)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("deferred runs in one process")
    axes.set_ylabel(label)
    axes.grid(which="both", alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def page(
    side_by_side: list[dict[str, Any]],
    hard: list[dict[str, Any]],
    costs: list[dict[str, Any]],
) -> str:
    """Write the page."""
    thousand = {row["provider"]: row for row in side_by_side if row["runs"] == 1000}
    ours, official = thousand["this one"], thousand["official"]
    machine = (
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"Airflow 3.3.2, {time.strftime('%Y-%m-%d')}"
    )
    return f"""# Benchmarks

Measured with `make bench` on {machine}. Both providers ({OFFICIAL} and this one) wait for runs of
one counting server on the same machine, in the same run of the benchmark, at the same polling
period: 5 s for 10 to 1,000 runs that end between 20 and 60 s, 10 s for 10,000 runs that end between
30 and 150 s. The server only passes the time, so that what is measured is the waiting.

## Waiting for many runs

{waits.table(side_by_side)}

For 1,000 runs: {official["requests"] / ours["requests"]:.0f} times fewer requests and
{official["cpu_seconds"] / ours["cpu_seconds"]:.0f} times less CPU; a run's end is noticed after
{ours["late_median"]:.1f} s in the median, against {official["late_median"]:.1f} s.

![Requests](benchmarks-requests.svg)
![CPU](benchmarks-cpu.svg)

*Longest block* is the longest turn of the event loop, in which no other trigger had one; a part of
it may be a garbage collection of Python's, which has its own column. What Airflow itself had loaded
was frozen before (`gc.freeze()`), for both providers alike. *kB a run* is the growth of the
process's peak memory, divided by the runs.

## Harder services

10,000 runs with lists of at most 25 runs a page, and a service that answers 429 to anything above
10 requests a second:

{waits.table(hard)}

Every run fired its one event; {hard[-1]["throttled"]} requests were answered 429.

## What it costs to have it

{imports.table(costs)}
"""


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--official-env", type=Path, default=ROOT / ".venv-official")
    parser.add_argument("--from-file", type=Path, help="write the page from measures taken before")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results.json")
    arguments = parser.parse_args()
    if arguments.from_file:
        measured = json.loads(arguments.from_file.read_text())
    else:
        official = official_python(arguments.official_env.absolute())
        side_by_side = []
        for runs in (10, 100, 1000, 10_000):
            side_by_side.append(waits.measure(sys.executable, "this one", runs))
            if runs <= 1000:
                side_by_side.append(waits.measure(official, "official", runs))
            print(waits.table(side_by_side), flush=True)
        hard = [
            waits.measure(sys.executable, "this one", 10_000, max_page=25, requests_per_second=10)
        ]
        costs = [
            imports.measure(sys.executable, "this one"),
            imports.measure(official, "official"),
        ]
        measured = {"side_by_side": side_by_side, "hard": hard, "costs": costs}
        arguments.out.write_text(json.dumps(measured, indent=2) + "\n")
    DOCS.mkdir(exist_ok=True)
    rows = measured["side_by_side"]
    plot(rows, "requests", "requests", DOCS / "benchmarks-requests.svg")
    plot(rows, "cpu_seconds", "CPU seconds of the waiting process", DOCS / "benchmarks-cpu.svg")
    (DOCS / "benchmarks.md").write_text(page(**measured))
    print(f"Wrote {DOCS / 'benchmarks.md'}")


if __name__ == "__main__":
    main()

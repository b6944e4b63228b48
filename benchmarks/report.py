"""Measure both providers side by side and write docs/benchmarks.md and its plots.

    make bench

Creates an environment for the official provider. Both providers wait for 1 to 10,000 runs; this one
also with rate limits and small pages. Measures import time and installed size too, and writes the
results with the command, the date and the machine. Takes about 25 minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import imports, memory, waits
from scripts import official

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# What is promised of 1,000 and of 10,000 runs.
FEWER_REQUESTS, LESS_CPU, REQUESTS_PER_SECOND, PERCENT_OF_A_CORE = 100, 10, 2, 10
PERIODS = {
    "runs": "runs",
    "period": "polling period s",
    "requests_per_second": "requests a second",
    "cpu_percent": "of a core",
    "late_median": "event delay s (median)",
    "late_worst": "(worst)",
}
SERVICES = {
    "service": "the service",
    "requests": "requests",
    "requests_per_second": "a second",
    "throttled": "of them answered 429",
    "cpu_percent": "of a core",
    "late_median": "event delay s (median)",
    "late_worst": "(worst)",
    "events": "events",
    "repeated": "repeated",
}


def measure(official_python: str) -> dict[str, Any]:
    """Measure everything; a table of what there is so far after each step."""
    side_by_side: list[dict[str, Any]] = []
    for runs in (1, 10, 100, 1000):
        side_by_side.append(waits.measure(sys.executable, "this one", runs))
        side_by_side.append(waits.measure(official_python, "official", runs))
        print(waits.table(side_by_side[-2:]), flush=True)
    many = waits.measure(sys.executable, "this one", 10_000)
    side_by_side.append(many)
    too_many = ""
    try:
        side_by_side.append(waits.measure(official_python, "official", 10_000))
    except waits.TookTooLongError as error:
        too_many = str(error)
    print(waits.table(side_by_side[-2:]), flush=True)
    services = [
        {**many, "service": "as it is: pages of 1,000, no limit met"},
        {
            **waits.measure(sys.executable, "this one", 10_000, requests_per_second=10),
            "service": "answers 429 to more than 10 requests a second",
        },
        {
            **waits.measure(
                sys.executable, "this one", 10_000, requests_per_second=10, api_version="2.1"
            ),
            "service": "the same in API 2.1: pages of 25",
        },
    ]
    print(waits.table(services, SERVICES), flush=True)
    periods = [row for row in side_by_side if row["provider"] == "this one" and row["runs"] >= 1000]
    for runs, period, ends in ((1000, 10, None), (1000, 30, None), (10_000, 5, (30, 90))):
        periods.append(waits.measure(sys.executable, "this one", runs, period=period, ends=ends))
    periods.append(waits.measure(sys.executable, "this one", 10_000, period=30, ends=(30, 90)))
    periods.sort(key=lambda row: (row["runs"], row["period"]))
    print(waits.table(periods, PERIODS), flush=True)
    kept = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory"],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    return {
        "machine": (
            f"{platform.machine()} with {os.cpu_count()} cores, Python "
            f"{platform.python_version()}, {official.AIRFLOW}"
        ),
        "date": time.strftime("%Y-%m-%d"),
        "side_by_side": side_by_side,
        "too_many": too_many,
        "services": services,
        "periods": periods,
        "memory": json.loads(kept.stdout.splitlines()[-1]),
        "costs": [
            imports.measure(sys.executable, "this one"),
            imports.measure(official_python, "official"),
        ],
    }


@contextmanager
def figure(file: Path, count: int, *, width: float, height: float) -> Iterator[list[Any]]:
    """Lend the axes of so many plots side by side, and write them to an SVG file.

    :param file: the file.
    :param count: how many plots.
    :param width: of the whole, in inches.
    :param height: of the whole, in inches.
    """
    import matplotlib as mpl

    mpl.use("svg")
    # The same measures give the same file, and text stays text.
    mpl.rcParams.update({"svg.hashsalt": "benchmarks", "svg.fonttype": "none"})
    from matplotlib import pyplot as plt

    drawn, every_axes = plt.subplots(1, count, figsize=(width, height), squeeze=False)
    yield list(every_axes[0])
    drawn.tight_layout()
    drawn.savefig(file, metadata={"Date": None})
    plt.close(drawn)


def plot(rows: list[dict[str, Any]], names: dict[str, str], file: Path) -> None:
    """Draw measures over the number of runs, for both providers."""
    with figure(file, len(names), width=4.5 * len(names), height=3.5) as every_axes:
        for axes, (name, label) in zip(every_axes, names.items(), strict=True):
            for provider, marker in (("official", "s"), ("this one", "o")):
                points = [(row["runs"], row[name]) for row in rows if row["provider"] == provider]
                axes.plot(*zip(*points, strict=True), marker=marker, label=provider)
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xlabel("deferred runs in one process")
            axes.set_title(label, fontsize="medium")
            axes.grid(which="major", alpha=0.3)
            axes.legend()


def write_section(
    title: str, text: str, *, page_file: Path, last_line: str, after: str | None = None
) -> None:
    """Replace a section of a page down to its last line, or add it.

    :param title: its heading.
    :param text: what stands below the heading.
    :param page_file: the page.
    :param last_line: stands below the text; what the page has below it is kept.
    :param after: the section behind which a new one stands; default: the last one.
    :raises ValueError: the section is there without its last line.
    """
    page = page_file.read_text()
    before, found, rest = page.partition(f"## {title}\n\n")
    kept = ""
    if found:
        replaced, more, others = rest.partition("\n## ")
        _, is_marked, kept = replaced.partition(last_line)
        if not is_marked:
            raise ValueError(f"{page_file}: the section {title!r} lacks the line {last_line!r}")
    else:
        place = len(page) if after is None else page.index(f"## {after}\n")
        end = page.find("\n## ", place)
        before, others = (page, "") if end == -1 else (page[:end], page[end + len("\n## ") :])
        before, more = before.rstrip("\n") + "\n\n", "\n## " if others else ""
    new = "\n\n".join(
        part.strip("\n") for part in (f"## {title}", text, last_line, kept) if part.strip("\n")
    )
    page_file.write_text(f"{before}{new}\n{more}{others}")


def page(measured: dict[str, Any], kept_sections: str) -> str:
    """Write the page.

    :param kept_sections: sections about other benchmarks, to stand at its end.
    """
    rows = measured["side_by_side"]
    ours = {row["runs"]: row for row in rows if row["provider"] == "this one"}
    theirs = {row["runs"]: row for row in rows if row["provider"] == "official"}
    fewer = theirs[1000]["requests"] / ours[1000]["requests"]
    less = theirs[1000]["cpu_seconds"] / ours[1000]["cpu_seconds"]
    many, small_pages = ours[10_000], measured["services"][-1]
    keeps = measured["memory"]
    text = f"""# Benchmarks

    make bench

Measured on {measured["date"]}, {measured["machine"]}. The triggers of both providers wait for runs
of one counting server on the same machine (`tests/fakes/many_runs.py`), each provider in its own
process. They run one after the other in the same call of the benchmark, with the same polling
period. The server only lets the time pass, so the benchmark measures the waiting alone. The
official provider is {official.PROVIDER.partition("==")[2]}, in an environment that the benchmark
creates for it.

## Deferred runs

1 to 1,000 runs that end between 20 and 60 s (the single one after 40 s), polled every 5 s; 10,000
runs that end between 30 and 150 s, polled every 10 s.

{waits.table(rows)}

![Requests, CPU and the longest block by number of runs](benchmarks.svg)

For 1,000 runs this package sends {fewer:.0f} times fewer requests and takes {less:.0f} times less
CPU. Its event comes {ours[1000]["late_median"]:.2f} s after a run's end in the median, against
{theirs[1000]["late_median"]:.2f} s. A single run takes {ours[1]["requests"]} requests, against
{theirs[1]["requests"]}.

*CPU s* and *longest block* are those of the waiting process. The *longest block* is the longest
turn of the event loop, in CPU time, in which no other trigger can run. One wait before the
measurement is not counted, so that imports are not measured. The objects that Airflow had loaded by
then are excluded from garbage collection (`gc.freeze()`), for both providers alike: a full
collection of them alone takes {many["airflows_collection_ms"]:.0f} ms in every triggerer, whatever
triggers it runs. For 10,000 runs the longest block is {many["longest_block_ms"]:.0f} ms, of which
garbage collection takes up to {many["longest_collection_ms"]:.0f} ms. Without it no turn takes
longer than {many["longest_without_collections_ms"]:.0f} ms. *kB a run* is the growth of the
process's peak memory, divided by the runs. It includes the pages that are being read.

The official provider sends one request for each run: for 10,000 runs at 10 s it would need 1,000
requests a second. {_too_many(theirs.get(10_000), measured["too_many"])}

## Rate limits and small pages

10,000 runs that end between 30 and 150 s, polled every 10 s.

{waits.table(measured["services"], SERVICES)}

With pages of 25, one reading of 10,000 active runs takes 400 requests. A service that allows ten
requests a second cannot list them all within 10 s. Then only what has changed is read
([architecture.md](architecture.md#reading-only-what-has-changed)), and the log has one line about
it. An event comes up to {small_pages["late_worst"]:.0f} s after its run's end. If thousands of runs
are waited for, API 2.0 with its pages of 1,000 is the better choice.

## Polling period

{waits.table(measured["periods"], PERIODS)}

The runs end between 20 and 60 s (1,000), between 30 and 150 s (10,000 at 10 s) or between 30 and
90 s (10,000 at 5 and 30 s).

The operators' default is 10 s: an event comes about 5 s after the run's end and within 10 s, and
ten thousand deferred runs take fewer than two requests a second. At 5 s the requests double.

## Memory

{memory.table(keeps)}

Measured with `tracemalloc`, with 1,000 triggers in one process. The figures include the asyncio
task in which Airflow runs any trigger. *Objects* are those that the garbage collector traverses.

## Import time and installed size

{imports.section(measured["costs"], measured["date"])}
"""
    return f"{wrapped(text)}\n{kept_sections}"


def wrapped(text: str) -> str:
    """Wrap the paragraphs, now that the figures are in them."""
    blocks = text.split("\n\n")
    return "\n\n".join(
        block
        if block.startswith(("#", "|", "!", " "))
        # The text of a link may have hyphens.
        else textwrap.fill(block, 100, break_on_hyphens=False)
        for block in blocks
    )


def _too_many(row: dict[str, Any] | None, error: str) -> str:
    if row is None:
        return f"It did not finish within {waits.LONGEST_SECONDS} s ({error})."
    return (
        f"It reached {row['requests_per_second']:.0f} on this machine. Its events came up to "
        f"{row['late_worst']:.0f} s after the end of their runs. Its longest block took "
        f"{row['longest_block_ms']:.0f} ms."
    )


def promises(measured: dict[str, Any]) -> list[str]:
    """Return which promises the measures do not keep."""
    rows = {(row["provider"], row["runs"]): row for row in measured["side_by_side"]}
    ours, theirs, many = (
        rows["this one", 1000],
        rows["official", 1000],
        rows["this one", 10_000],
    )
    checks = {
        "requests at 1,000 runs": ours["requests"] * FEWER_REQUESTS <= theirs["requests"],
        "CPU at 1,000 runs": ours["cpu_seconds"] * LESS_CPU <= theirs["cpu_seconds"],
        "event delay at 1,000 runs": ours["late_median"] <= theirs["late_median"],
        "requests for one run": rows["this one", 1]["requests"] <= rows["official", 1]["requests"],
        "requests a second at 10,000 runs": many["requests_per_second"] < REQUESTS_PER_SECOND,
        "CPU at 10,000 runs": many["cpu_percent"] < PERCENT_OF_A_CORE,
        "one event for each run": all(
            row["events"] == row["runs"] and not row["repeated"] and not row["failed"]
            for row in measured["side_by_side"] + measured["services"]
            if row["provider"] == "this one"
        ),
    }
    return [name for name, kept in checks.items() if not kept]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--official-python", help="one that has the official provider already")
    parser.add_argument("--from-file", type=Path, help="write the page from measures taken before")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results.json")
    arguments = parser.parse_args()
    if arguments.from_file:
        measured = json.loads(arguments.from_file.read_text())
    else:
        measured = measure(arguments.official_python or official.python())
        arguments.out.write_text(json.dumps(measured, indent=2) + "\n")
    text = (DOCS / "benchmarks.md").read_text()
    kept = text[text.index("## Validation") :]
    names = {
        "requests": "requests",
        "cpu_seconds": "CPU seconds",
        "longest_block_ms": "longest block, ms",
    }
    plot(measured["side_by_side"], names, DOCS / "benchmarks.svg")
    (DOCS / "benchmarks.md").write_text(page(measured, kept))
    print(f"Wrote {DOCS / 'benchmarks.md'}")
    if broken := promises(measured):
        sys.exit("Not kept: " + ", ".join(broken))


if __name__ == "__main__":
    main()

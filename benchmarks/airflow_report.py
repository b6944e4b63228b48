"""Write what ``benchmarks.airflow_costs`` measured: tables, a plot, the section of the page.

python -m benchmarks.airflow_report [benchmarks/airflow_results.json]
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import report
from scripts import official

TITLES = {
    False: "CPU of a whole Airflow",
    True: "CPU of a whole Airflow with CeleryExecutor and PostgreSQL",
}
# In the order in which they are shown.
KINDS = (
    "task processes",
    "executor",
    "Celery worker",
    "scheduler",
    "API server",
    "triggerer",
    "DAG processor",
    "PostgreSQL",
    "Redis",
)
EMPTY, OFFICIAL = "empty", "official"
# What is promised: the mode, the mode that it is compared with, and how much of that it may take.
PROMISES = (
    ("deferrable", OFFICIAL, 1.0),
    ("deferrable", EMPTY, 2.5),
    ("end_from_trigger", OFFICIAL, 0.7),
    ("start_from_trigger", OFFICIAL, 0.3),
    ("start_from_trigger", EMPTY, 1.0),
)


def tables(result: dict[str, Any]) -> str:
    """Return CPU and the other figures as two Markdown tables."""
    rows = result["medians"]
    kinds = [kind for kind in KINDS if any(kind in row["by_process"] for row in rows)]
    cpu = [["CPU s of one task", "all", "lowest to highest round", *kinds]]
    others = [
        [
            "one task",
            "processes",
            "requests to Airflow's API",
            "rows written",
            "log kB",
            "requests to the service",
            "s for all tasks",
        ]
    ]
    for row in rows:
        cpu.append(
            [
                _name(row, result),
                f"{row['cpu_seconds']:.3f}",
                f"{row['lowest']:.3f} to {row['highest']:.3f}",
                *(f"{row['by_process'].get(kind, 0):.3f}" for kind in kinds),
            ]
        )
        others.append(
            [
                _name(row, result),
                f"{row['processes']:.2f}",
                f"{sum(row['airflow_requests'].values()):.1f}",
                f"{row['written_rows']:.1f}",
                f"{row['log_bytes'] / 1000:.1f}",
                f"{sum(row['requests'].values()):.2f}",
                f"{row['wall_seconds']:.0f}",
            ]
        )
    return f"{_markdown(cpu)}\n\n{_markdown(others)}"


def _markdown(rows: list[list[str]]) -> str:
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _name(row: dict[str, Any], result: dict[str, Any]) -> str:
    shown = str(result["shown"][row["mode"]])
    if sum(one["mode"] == row["mode"] for one in result["medians"]) > 1:
        shown += f" ({row['environment']} installed)"
    return shown


def broken_promises(result: dict[str, Any]) -> list[str]:
    """Return which promises the measures do not keep; those that were not measured are left out."""
    seconds: dict[str, float] = {}
    for row in result["medians"]:
        # Of the empty operator that beside this package.
        seconds.setdefault(row["mode"], row["cpu_seconds"])
    broken = []
    for mode, other, share in PROMISES:
        if mode in seconds and other in seconds and seconds[mode] > share * seconds[other]:
            broken.append(
                f"{mode} takes {seconds[mode] / seconds[other]:.2f} times the CPU of {other}, "
                f"promised are {share}"
            )
    broken += [
        f"start_from_trigger takes {row['processes']:.2f} processes a task, promised are 0"
        for row in result["medians"]
        if row["mode"] == "start_from_trigger" and row["processes"] >= 0.1
    ]
    return broken


def section(result: dict[str, Any]) -> str:
    """Return the section of docs/benchmarks.md, without its title."""
    distributed = result["distributed"]
    if distributed:
        text = f"""    make bench-airflow EXECUTOR=CeleryExecutor

Measured on {result["date"]}, {result["machine"]}. The same as above with CeleryExecutor, a worker
for 16 tasks at once, PostgreSQL and Redis, {result["tasks"]} tasks at once and {result["rounds"]}
rounds. The *executor* is the pool processes of the Celery worker, which supervise the tasks; the
CPU of the servers is counted, too.{_repeated(result)}"""
    else:
        text = f"""    make bench-airflow

Measured on {result["date"]}, {result["machine"]}, in {result["minutes"]:.0f} minutes. Two Airflows
run at the same time, each with scheduler, LocalExecutor, triggerer, DAG processor and API server,
on SQLite. One has this package, the other one the official provider
{official.PROVIDER.partition("==")[2]}. {result["tasks"]} tasks run at once, in DAG runs of ten
tasks, with Airflow's defaults. Each task submits a run that lasts {result["run_seconds"]:.0f} s, to
a server on the same machine, whose CPU is not counted. Both providers poll every 5 s. The figures
are medians of {result["rounds"]} rounds in which the modes take turns, after a round that is not
counted.{_repeated(result)}"""
    text += f"""

{tables(result)}

![CPU seconds of one task, by kind of process]({_plot_file(distributed=distributed)})
"""
    if not distributed:
        text += f"""
*CPU* is that of all processes of Airflow, those that have ended included, from the trigger of the
DAG runs until all processes have noted their end. What the idle Airflow takes in the same time is
subtracted; it is measured for 4 s before and after each round. Linux keeps the CPU time of ended
processes with the process that waited for them, and `scripts/process_cpu.py` sees to it that this
is one of Airflow's. *Task processes* are those that the executor starts for the tasks; the
*executor* is its worker processes, which supervise them. The triggerer, the API server and the DAG
processor include their child processes. *Rows written* are inserts, updates and deletes without the
heartbeats of the components, counted by triggers in the round that is not counted. DAG files are
parsed once, before the measurement.{_burned(result)}
"""
    return report.wrapped(text)


def results_file(*, distributed: bool) -> Path:
    """Return the file of the measures."""
    name = "airflow_results_distributed.json" if distributed else "airflow_results.json"
    return Path(__file__).parent / name


def _plot_file(*, distributed: bool) -> str:
    return "benchmarks_airflow_distributed.svg" if distributed else "benchmarks_airflow.svg"


def _repeated(result: dict[str, Any]) -> str:
    if not result["repeated"]:
        return ""
    return f" In {result['repeated']} of them a task failed at first; they were repeated."


def _burned(result: dict[str, Any]) -> str:
    seconds = {row["mode"]: row["cpu_seconds"] for row in reversed(result["medians"])}
    if "burn" not in seconds or EMPTY not in seconds:
        return ""
    return (
        " As a check, one mode is a task that takes 1.000 s of CPU by its own clock: measured are "
        f"{seconds['burn'] - seconds[EMPTY]:.3f} s more than for the empty task."
    )


def plot(result: dict[str, Any], file: Path) -> None:
    """Draw the CPU of each mode as a bar of its kinds of processes."""
    rows = [row for row in result["medians"] if row["mode"] != "burn"]
    with report.figure(file, 1, width=9, height=0.8 + 0.45 * len(rows)) as (axes,):
        names = [_name(row, result) for row in rows]
        left = [0.0] * len(rows)
        for kind in KINDS:
            widths = [max(0.0, row["by_process"].get(kind, 0.0)) for row in rows]
            axes.barh(names, widths, left=left, label=kind)
            left = [one + width for one, width in zip(left, widths, strict=True)]
        axes.invert_yaxis()
        axes.set_xlabel("CPU seconds of one task")
        axes.grid(axis="x", alpha=0.3)
        axes.legend(fontsize="small")


def write(result: dict[str, Any]) -> None:
    """Write the section of docs/benchmarks.md and its plot."""
    distributed = result["distributed"]
    plot(result, report.DOCS / _plot_file(distributed=distributed))
    report.write_section(TITLES[distributed], section(result))


def main() -> None:
    """Write the page from measures taken before."""
    for distributed in (False, True):
        file = results_file(distributed=distributed)
        if file.exists():
            write(json.loads(file.read_text()))


if __name__ == "__main__":
    main()

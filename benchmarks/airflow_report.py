"""Write what ``benchmarks.airflow_costs`` measured: tables, a plot, the section of the page.

    python -m benchmarks.airflow_report [--docs FOLDER] [--without-plots] [FILE ...]

All text of a section comes from the measures, but what stands below its last line, which is a
comment: that is kept as it is.
"""

from __future__ import annotations

import argparse
import json
import statistics
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import report

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
# The component whose processes execute the tasks, by "distributed".
WORKERS = {False: "scheduler", True: "worker"}
EMPTY, OFFICIAL, WITHOUT_WORKER = "empty", "official", "start_from_trigger"
LAST_LINE = "<!-- The section above is generated. What is written below this line is kept. -->"
# A load average from which on the page tells of it.
BUSY = 0.5


@dataclass(frozen=True)
class Goal:
    """How much of another mode's CPU a mode may take.

    :ivar mode: the mode.
    :ivar other: the mode that it is compared with.
    :ivar share: its CPU divided by the other's.
    :ivar is_below: whether it must be less than that.
    """

    mode: str
    other: str
    share: float
    is_below: bool = False

    def is_reached(self, share: float) -> bool:
        """Return whether a measured share keeps to the goal."""
        return share < self.share if self.is_below else share <= self.share

    def __str__(self) -> str:
        limit = "less than" if self.is_below else "at most"
        other = {EMPTY: "an empty task's", OFFICIAL: "the official provider's"}[self.other]
        times = "" if self.share == 1 else f"{self.share:g} times "
        return f"{limit} {times}{other} CPU"


GOALS = (
    Goal("deferrable", OFFICIAL, 1),
    Goal("deferrable", EMPTY, 2.5),
    Goal("end_from_trigger", OFFICIAL, 0.7),
    Goal(WITHOUT_WORKER, OFFICIAL, 0.3),
    Goal(WITHOUT_WORKER, EMPTY, 1, is_below=True),
)


@dataclass(frozen=True)
class Checked:
    """A goal beside what was measured.

    :ivar mode: the mode.
    :ivar goal: the goal, in words.
    :ivar measured: the figure.
    :ivar is_reached: whether it keeps to the goal.
    """

    mode: str
    goal: str
    measured: str
    is_reached: bool


def medians(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the medians over the rounds, for one task, of each mode in each environment."""
    measured = result["measured"]
    rows = []
    for mode, environment in dict.fromkeys((one["mode"], one["environment"]) for one in measured):
        first, *counted = [
            one for one in measured if (one["mode"], one["environment"]) == (mode, environment)
        ]
        totals = [sum(one["cpu_seconds"].values()) / one["tasks"] for one in counted]
        rows.append(
            {
                "mode": mode,
                "environment": environment,
                "cpu_seconds": statistics.median(totals),
                "lowest": min(totals),
                "highest": max(totals),
                "by_process": _median_of_each("cpu_seconds", counted),
                "wall_seconds": statistics.median(one["wall_seconds"] for one in counted),
                "processes": _median_of_each("processes", counted),
                "written_rows": sum(first["written_rows"].values()) / first["tasks"],
                "log_bytes": statistics.median(one["log_bytes"] / one["tasks"] for one in counted),
                "requests": _median_of_each("requests", counted),
                "airflow_requests": _median_of_each("airflow_requests", counted),
            }
        )
    return rows


def _median_of_each(name: str, counted: list[dict[str, Any]]) -> dict[str, float]:
    keys = sorted({key for one in counted for key in one[name]})
    return {
        key: statistics.median(one[name].get(key, 0) / one["tasks"] for one in counted)
        for key in keys
    }


def tables(result: dict[str, Any]) -> str:
    """Return CPU and the other figures as two Markdown tables."""
    rows = medians(result)
    kinds = [kind for kind in KINDS if any(kind in row["by_process"] for row in rows)]
    cpu = [["CPU s of one task", "all", "lowest to highest round", *kinds]]
    others = [
        [
            "one task",
            "worker processes",
            "other processes",
            "requests to Airflow's API",
            "rows written",
            "log kB",
            "requests to the service",
            "s for all tasks",
        ]
    ]
    for row, name in zip(rows, _names(rows, result), strict=True):
        cpu.append(
            [
                name,
                _seconds(row["cpu_seconds"]),
                f"{_seconds(row['lowest'])} to {_seconds(row['highest'])}",
                *(_seconds(row["by_process"].get(kind, 0)) for kind in kinds),
            ]
        )
        workers = row["processes"].get(WORKERS[result["distributed"]], 0)
        others.append(
            [
                name,
                f"{workers:.2f}",
                f"{sum(row['processes'].values()) - workers:.2f}",
                f"{sum(row['airflow_requests'].values()):.1f}",
                f"{row['written_rows']:.1f}",
                f"{row['log_bytes'] / 1000:.1f}",
                f"{sum(row['requests'].values()):.2f}",
                f"{row['wall_seconds']:.0f}",
            ]
        )
    return f"{_markdown(cpu)}\n\n{_markdown(others)}"


def _seconds(seconds: float) -> str:
    # Without "-0.000".
    return f"{round(seconds, 3) + 0.0:.3f}"


def _markdown(rows: list[list[str]]) -> str:
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _names(rows: list[dict[str, Any]], result: dict[str, Any]) -> list[str]:
    modes = [row["mode"] for row in rows]
    return [
        str(result["shown"][row["mode"]])
        + (f" ({row['environment']} installed)" if modes.count(row["mode"]) > 1 else "")
        for row in rows
    ]


def checked_goals(result: dict[str, Any]) -> list[Checked]:
    """Return the goals beside the measures; without those whose modes were not measured."""
    seconds: dict[str, float] = {}
    for row in medians(result):
        # Of the empty operator that beside this package.
        seconds.setdefault(row["mode"], row["cpu_seconds"])
    checked = []
    for goal in GOALS:
        if goal.mode in seconds and goal.other in seconds:
            share = seconds[goal.mode] / seconds[goal.other]
            measured = f"{share:.2f} times"
            checked.append(Checked(goal.mode, str(goal), measured, goal.is_reached(share)))
    counted = [one for one in result["measured"] if one["round"] and one["mode"] == WITHOUT_WORKER]
    if counted:
        workers = sum(one["processes"].get(WORKERS[result["distributed"]], 0) for one in counted)
        measured = f"{workers} for {sum(one['tasks'] for one in counted)} tasks"
        checked.append(Checked(WITHOUT_WORKER, "no worker process", measured, not workers))
    return checked


def broken_promises(result: dict[str, Any]) -> list[str]:
    """Return which goals the measures do not reach; those that were not measured are left out."""
    return [
        f"{one.mode}: {one.goal}; measured: {one.measured}"
        for one in checked_goals(result)
        if not one.is_reached
    ]


def _goals(result: dict[str, Any]) -> str:
    """Return the goals as a paragraph and a table, and why one is not reached where it is known."""
    checked = checked_goals(result)
    if not checked:
        return ""
    missed = [one for one in checked if not one.is_reached]
    text = f"Of {len(checked)} goals {len(checked) - len(missed) or 'none'} are reached:"
    if not missed:
        text = f"All {len(checked)} goals are reached:"
    rows = [["task", "goal", "measured", "reached"]]
    for one in checked:
        shown = result["shown"][one.mode]
        rows.append([shown, one.goal, one.measured, "yes" if one.is_reached else "**no**"])
    text += f"\n\n{_markdown(rows)}\n\n"
    if any(one.mode == WITHOUT_WORKER for one in missed):
        text += (
            "What a task costs that starts and ends in the triggerer is explained in "
            "[without-workers.md](without-workers.md#what-such-a-task-costs).\n\n"
        )
    return text


def section(result: dict[str, Any]) -> str:
    """Return the section of docs/benchmarks.md, without its title and without what is kept."""
    distributed = result["distributed"]
    measured = f"Measured on {result['date']}, {result['machine']}"
    if distributed:
        text = f"""    {_command(result)}

{measured}. The same as above with CeleryExecutor, a worker for 16 tasks at once, PostgreSQL and
Redis, {result["tasks"]} tasks at once and {_rounds(result)}. The *executor* is the pool processes
of the Celery worker, which supervise the tasks; the CPU of the servers is counted,
too.{_repeated(result)}{_load(result)}"""
    else:
        text = f"""    {_command(result)}

{measured}, in {result["minutes"]:.0f} minutes. Two Airflows run at the same time, each with
scheduler, LocalExecutor, triggerer, DAG processor and API server, on SQLite. One has this package,
the other one the official provider {result["official_provider"].partition("==")[2]}.
{result["tasks"]} tasks run at once, in DAG runs of ten tasks, with Airflow's defaults. Each task
submits a run that lasts {result["run_seconds"]:.0f} s, to a server on the same machine, whose CPU
is not counted. Both providers poll every 5 s. The figures are medians of {_rounds(result)} in which
the modes take turns, after a round that is not counted.{_repeated(result)}{_load(result)}"""
    text += f"""

{tables(result)}

![CPU seconds of one task, by kind of process]({_plot_file(distributed=distributed)})

{_goals(result)}"""
    if not distributed:
        text += f"""*CPU* is that of all processes of Airflow, those that have ended included, from
the trigger of the DAG runs until all processes have noted their end. What the idle Airflow takes in
the same time is subtracted; it is measured for 4 s before and after each round. Linux keeps the CPU
time of ended processes with the process that waited for them, and `scripts/process_cpu.py` sees to
it that this is one of Airflow's. *Task processes* are those that the executor starts for the tasks;
the *executor* is its worker processes, which supervise them. The triggerer, the API server and the
DAG processor include their child processes. *Rows written* are inserts, updates and deletes without
the heartbeats of the components, counted by triggers in the round that is not counted. DAG files
are parsed once, before the measurement.{_burned(result)}

*Worker processes* are those that the executor starts for the tasks. *Other processes* are started
by other components.{_callbacks(result)}
"""
    return report.wrapped(text)


def results_file(*, distributed: bool) -> Path:
    """Return the file of the measures."""
    name = "airflow_results_distributed.json" if distributed else "airflow_results.json"
    return Path(__file__).parent / name


def _command(result: dict[str, Any]) -> str:
    words = ["make bench-airflow"]
    if result["distributed"]:
        words.append("EXECUTOR=CeleryExecutor")
    if result["options"]:
        words += [result["options"], "REPORT=1"]
    return " ".join(words)


def _plot_file(*, distributed: bool) -> str:
    return "benchmarks_airflow_distributed.svg" if distributed else "benchmarks_airflow.svg"


def _rounds(result: dict[str, Any]) -> str:
    return "1 round" if result["rounds"] == 1 else f"{result['rounds']} rounds"


def _repeated(result: dict[str, Any]) -> str:
    if not result["repeated"]:
        return ""
    return (
        " A task failed at the first attempt of "
        f"{result['repeated']} measurements; these were repeated."
    )


def _load(result: dict[str, Any]) -> str:
    if (load := result["load_average"]) is None or load < BUSY:
        return ""
    return f" The machine also did other work: before the start its load average was {load:.1f}."


def _callbacks(result: dict[str, Any]) -> str:
    if not any(one["processes"].get("dag-processor") for one in result["measured"]):
        return ""
    return (
        " Airflow makes a callback request for each task that a trigger ends, and the DAG processor"
        " starts one process for several of them."
    )


def _burned(result: dict[str, Any]) -> str:
    seconds = {row["mode"]: row["cpu_seconds"] for row in reversed(medians(result))}
    if "burn" not in seconds or EMPTY not in seconds:
        return ""
    return (
        " As a check, one mode is a task that takes 1.000 s of CPU by its own clock: measured are "
        f"{seconds['burn'] - seconds[EMPTY]:.3f} s more than for the empty task."
    )


def plot(result: dict[str, Any], file: Path) -> None:
    """Draw the CPU of each mode as a bar of its kinds of processes."""
    rows = [row for row in medians(result) if row["mode"] != "burn"]
    kinds = [kind for kind in KINDS if any(kind in row["by_process"] for row in rows)]
    # Long names in two lines leave more of the width to the bars.
    names = [textwrap.fill(name, 36, break_on_hyphens=False) for name in _names(rows, result)]
    with report.figure(file, 1, width=9, height=1.4 + 0.45 * len(rows)) as (axes,):
        left = [0.0] * len(rows)
        for kind in kinds:
            widths = [max(0.0, row["by_process"].get(kind, 0.0)) for row in rows]
            # The same colour in both plots.
            colour = f"C{KINDS.index(kind)}"
            axes.barh(names, widths, left=left, label=kind, color=colour, zorder=2)
            left = [one + width for one, width in zip(left, widths, strict=True)]
        for index, (end, row) in enumerate(zip(left, rows, strict=True)):
            axes.annotate(
                _seconds(row["cpu_seconds"]),
                (end, index),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize="small",
            )
        axes.set_xlim(0, 1.12 * max(left))
        axes.invert_yaxis()
        axes.set_xlabel("CPU seconds of one task")
        axes.grid(axis="x", alpha=0.3, zorder=0)
        # Above the bars, so that it covers none.
        axes.legend(
            fontsize="small",
            ncols=(len(kinds) + 1) // 2,
            loc="lower left",
            bbox_to_anchor=(0, 1.01),
            frameon=False,
            borderaxespad=0,
        )


def write(result: dict[str, Any], docs: Path = report.DOCS, *, with_plot: bool = True) -> None:
    """Write the section of docs/benchmarks.md and its plot.

    :param result: the measures.
    :param docs: folder of the page and the plot.
    :param with_plot: whether to draw the plot, for which Matplotlib is needed.
    :raises ValueError: the page has the section, but not the comment at its end.
    """
    distributed = result["distributed"]
    if with_plot:
        plot(result, docs / _plot_file(distributed=distributed))
    report.write_section(
        TITLES[distributed],
        section(result),
        page_file=docs / "benchmarks.md",
        last_line=LAST_LINE,
        after=TITLES[False] if distributed else None,
    )


def main() -> None:
    """Write the page from measures taken before, and print which goals they do not reach."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="*", help="measures; default: those of the page")
    parser.add_argument("--docs", type=Path, default=report.DOCS, help="folder of the page")
    parser.add_argument("--without-plots", action="store_true")
    chosen = parser.parse_args()
    files = chosen.files or [results_file(distributed=choice) for choice in (False, True)]
    for file in files:
        if chosen.files or file.exists():
            result = json.loads(file.read_text())
            write(result, chosen.docs, with_plot=not chosen.without_plots)
            for line in broken_promises(result):
                print(f"Not kept: {line}")


if __name__ == "__main__":
    main()

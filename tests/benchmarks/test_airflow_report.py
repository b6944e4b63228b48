"""The section of docs/benchmarks.md about the CPU of a whole Airflow, written from measures."""

from __future__ import annotations

import contextlib
import io
import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LAST_LINE = "<!-- The section above is generated. What is written below this line is kept. -->"
HEADING = "## CPU of a whole Airflow\n"
CELERY_HEADING = "## CPU of a whole Airflow with CeleryExecutor and PostgreSQL\n"
PAGE = f"""# Benchmarks

Text before.

{HEADING}
An old figure: 9.999.

{LAST_LINE}

Written by hand.

| by | hand |
| --- | --- |
| 1 | 2 |

## Another section

Text after.
"""
SHOWN = {
    "empty": "an empty task",
    "official": "the other package",
    "deferrable": "on two workers",
    "end_from_trigger": "on one worker",
    "start_from_trigger": "on none",
}
CPU = {
    "empty": 0.2,
    "official": 0.6,
    "deferrable": 0.48,
    "end_from_trigger": 0.3,
    "start_from_trigger": 0.17,
}
# For each task, in the component that has the executor.
WORKERS = {
    "empty": 1,
    "official": 2,
    "deferrable": 2,
    "end_from_trigger": 1,
    "start_from_trigger": 0,
}


def measures(
    cpu: dict[str, float], *, workers: dict[str, int] | None = None, distributed: bool = False
) -> dict[str, Any]:
    """Return what the benchmark stores of one round after the one that is not counted.

    :param cpu: CPU seconds of a task, by mode.
    :param workers: worker processes of all ten tasks, by mode; default: as it should be.
    :param distributed: whether with CeleryExecutor.
    """
    executor = "worker" if distributed else "scheduler"
    rows = []
    for number in range(2):
        for mode, seconds in cpu.items():
            started = {executor: (workers or {}).get(mode, 10 * WORKERS[mode])}
            if mode.endswith("from_trigger"):
                started["dag-processor"] = 3
            rows.append(
                {
                    "mode": mode,
                    "environment": "this package",
                    "round": number,
                    "tasks": 10,
                    # The round that is not counted takes more.
                    "cpu_seconds": {"task processes": seconds * (10 if number else 100)},
                    "idle_cpu_seconds": {},
                    "wall_seconds": 30,
                    "processes": {name: count for name, count in started.items() if count},
                    "log_bytes": 1000,
                    "requests": {},
                    "airflow_requests": {},
                    "written_rows": {},
                    "is_repeated": False,
                }
            )
    return {
        "machine": "a machine",
        "date": "2026-11-27",
        "official_provider": "apache-airflow-providers-databricks==7.23.0",
        "load_average": 0.1,
        "options": "",
        "distributed": distributed,
        "tasks": 10,
        "rounds": 1,
        "run_seconds": 10,
        "minutes": 2,
        "shown": SHOWN,
        "repeated": 0,
        "measured": rows,
    }


def written(folder: Path, *results: dict[str, Any], page: str = PAGE) -> tuple[str, list[str]]:
    """Write the page of a folder; return it, and the goals that are not reached.

    The program runs in this process: to start one for each test takes more than all tests do.
    """
    (folder / "benchmarks.md").write_text(page)
    files = []
    for number, result in enumerate(results):
        files.append(folder / f"{number}.json")
        files[-1].write_text(json.dumps(result))
    arguments = ["--without-plots", "--docs", str(folder), *map(str, files)]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as out:
        patch.setattr(sys, "argv", ["airflow_report", *arguments])
        runpy.run_module("benchmarks.airflow_report", run_name="__main__")
    broken = [
        line.removeprefix("Not kept: ")
        for line in out.getvalue().splitlines()
        if line.startswith("Not kept: ")
    ]
    return (folder / "benchmarks.md").read_text(), broken


def cells(page: str, name: str) -> list[list[str]]:
    """Return the cells behind a name, of each table that has it."""
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("|")]
    return [row[1:] for row in rows if row[0] == name]


@pytest.mark.parametrize("distributed", [False, True])
def test_processes_that_report_callbacks_are_no_workers(
    tmp_path: Path, *, distributed: bool
) -> None:
    """The DAG processor's processes have a column of their own, and break no goal."""
    page, broken = written(tmp_path, measures(CPU, distributed=distributed))
    assert not broken
    assert "| one task | worker processes | other processes |" in page
    assert cells(page, "on none")[1][:2] == ["0.00", "0.30"]
    assert cells(page, "on one worker")[1][:2] == ["1.00", "0.30"]
    assert cells(page, "on two workers")[1][:2] == ["2.00", "0.00"]
    assert "| no worker process | 0 for 10 tasks | yes |" in page


@pytest.mark.parametrize("distributed", [False, True])
def test_one_worker_process_breaks_the_goal(tmp_path: Path, *, distributed: bool) -> None:
    """A single task that started on a worker is told."""
    result = measures(CPU, workers={"start_from_trigger": 1}, distributed=distributed)
    page, broken = written(tmp_path, result)
    assert broken == ["start_from_trigger: no worker process; measured: 1 for 10 tasks"]
    assert "| no worker process | 1 for 10 tasks | **no** |" in page


@pytest.mark.parametrize(
    ("changed", "goals"),
    [
        (
            {"deferrable": 0.61, "empty": 0.25},
            ["deferrable: at most the official provider's CPU; measured: 1.02 times"],
        ),
        (
            {"empty": 0.19},
            ["deferrable: at most 2.5 times an empty task's CPU; measured: 2.53 times"],
        ),
        (
            {"end_from_trigger": 0.43},
            ["end_from_trigger: at most 0.7 times the official provider's CPU"],
        ),
        (
            {"start_from_trigger": 0.19},
            ["start_from_trigger: at most 0.3 times the official provider's CPU"],
        ),
        (
            {"start_from_trigger": 0.2},
            [
                "start_from_trigger: at most 0.3 times the official provider's CPU",
                "start_from_trigger: less than an empty task's CPU; measured: 1.00 times",
            ],
        ),
    ],
)
def test_the_page_says_which_goals_are_reached(
    tmp_path: Path, changed: dict[str, float], goals: list[str]
) -> None:
    """Each goal is checked; the page has those that are not reached in bold."""
    page, broken = written(tmp_path, measures(CPU | changed))
    assert len(broken) == len(goals)
    for line, goal in zip(broken, goals, strict=True):
        assert goal in line
    assert page.count("| **no** |") == len(goals)
    assert page.count("| yes |") == 6 - len(goals)
    assert f"Of 6 goals {6 - len(goals)} are reached:" in page
    explained = "without-workers.md#what-such-a-task-costs" in page
    assert explained == ("start_from_trigger" in changed)


def test_all_goals_may_be_reached(tmp_path: Path) -> None:
    """The page says so."""
    page, broken = written(tmp_path, measures(CPU))
    assert not broken
    assert "All 6 goals are reached:" in page


def test_what_is_written_by_hand_is_kept(tmp_path: Path) -> None:
    """A second report changes nothing; the text below the comment and around the section stays."""
    first, _ = written(tmp_path, measures(CPU))
    assert "9.999" not in first
    kept = PAGE[PAGE.index(LAST_LINE) :]
    assert first.endswith(kept)
    assert first.startswith(PAGE[: PAGE.index("An old figure")])
    second, _ = written(tmp_path, measures(CPU), page=first)
    assert second == first


def test_a_section_without_its_last_line_is_not_replaced(tmp_path: Path) -> None:
    """Where the comment is missing, nobody can tell what was written by hand."""
    page = PAGE.replace(LAST_LINE, "")
    with pytest.raises(ValueError, match="lacks the line"):
        written(tmp_path, measures(CPU), page=page)
    assert (tmp_path / "benchmarks.md").read_text() == page


def test_celery_has_a_section_of_its_own(tmp_path: Path) -> None:
    """It stands behind the other one, which stays as it is, as does what follows."""
    result = measures(CPU, distributed=True) | {"options": "TASKS=10 ROUNDS=1"}
    page, _ = written(tmp_path, result)
    before, found, after = page.partition(CELERY_HEADING)
    assert found
    assert before == PAGE[: PAGE.index("## Another section")]
    assert after.endswith(LAST_LINE + "\n\n" + PAGE[PAGE.index("## Another section") :])
    assert "make bench-airflow EXECUTOR=CeleryExecutor TASKS=10 ROUNDS=1 REPORT=1" in after
    again, _ = written(tmp_path, result, page=page)
    assert again == page


def test_the_page_is_what_the_measures_say(tmp_path: Path) -> None:
    """Nothing is changed by hand above the comment, where the next measurement would drop it."""
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    rewritten, _ = written(tmp_path, page=page)
    assert rewritten == page


def test_a_page_gets_the_section_at_its_end(tmp_path: Path) -> None:
    """Where the page does not have it yet."""
    page, _ = written(tmp_path, measures(CPU), page="# Benchmarks\n\nText.\n")
    assert page.startswith(f"# Benchmarks\n\nText.\n\n{HEADING}\n")
    assert page.endswith(LAST_LINE + "\n")

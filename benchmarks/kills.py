"""Kill tasks of this provider and of the official one at the same points, and count their runs.

    python -m benchmarks.kills [--official-python PYTHON] [--random 100]

Each task is run by a real Airflow 3.3, its process is killed with SIGKILL, and Airflow retries it
(see tests/end_to_end/task_tries.py). A service that keeps count tells how many runs were launched,
how many were lost (nobody was ever told of their end) and how many were live at once. Prints a
table in Markdown.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from scripts import official
from scripts.airflow_env import airflow_environment
from tests.end_to_end.kills import POINTS, Account, Killer, killer, random_plans
from tests.fakes.fake_service import Plan

OPERATORS = ("submit", "run_now")
RUN_SECONDS = 0.6
NOT_REACHED = "not reached"


@contextmanager
def airflow(provider: str, python: str) -> Iterator[Killer]:
    """Lend an Airflow with a provider."""
    with tempfile.TemporaryDirectory(prefix="kills-", ignore_cleanup_errors=True) as folder:
        migrated = Path(folder) / "migrated"
        migrated.mkdir()
        subprocess.run(
            [python, "-m", "airflow", "db", "migrate"],
            env=airflow_environment(migrated, migrated, connection=None),
            check=True,
            capture_output=True,
        )
        (migrated / "airflow.cfg").unlink(missing_ok=True)
        with killer(migrated, Path(folder) / "home", python=python, provider=provider) as one:
            yield one


def cells(accounts: list[Account]) -> list[str]:
    """Say what the operators' tasks came to: one figure, or each operator's where they differ."""
    if not any(account.kills for account in accounts):
        return [NOT_REACHED, "", ""]
    columns = [
        [str(account.launched) for account in accounts],
        [str(len(account.lost)) for account in accounts],
        [str(account.at_once) for account in accounts],
    ]
    texts = [column[0] if len(set(column)) == 1 else " / ".join(column) for column in columns]
    if any(account.state != "success" for account in accounts):
        texts[0] += ", task " + " / ".join(account.state for account in accounts)
    return texts


def kill_at_random(airflow: Killer, kills: int) -> tuple[str, list[str]]:
    """Kill at random moments; return how many tasks were killed how often, and the figures."""
    dice = random.Random(4)
    done = tasks = needed = launched = lost = at_once = failed = 0
    while done < kills:
        dag_id = f"{OPERATORS[tasks % 2]}_{('blocking', 'deferrable')[tasks // 2 % 2]}"
        plans = random_plans(dice)
        airflow.service.plan = Plan(seconds=0.15)
        account = airflow.kill_after(dag_id, [dice.uniform(0, 0.7) for _ in range(8)], plans)
        done += account.kills
        tasks += 1
        needed += len(plans)
        launched += account.launched
        lost += len(account.lost)
        failed += account.state != "success"
        at_once = max(at_once, account.at_once)
    figures = [f"{launched} where {needed} were needed", str(lost), str(at_once)]
    if failed:
        figures[0] += f"; {failed} tasks failed"
    return f"{done} kills of {tasks} tasks", figures


def main() -> None:
    """Run the matrix and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--official-python", help="by default one that scripts.official makes")
    parser.add_argument("--random", type=int, default=100, help="kills at random moments")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        ours = stack.enter_context(airflow("ours", sys.executable))
        theirs = stack.enter_context(
            airflow("official", arguments.official_python or official.python())
        )
        print(datetime.now(UTC).date())
        print(
            "| Killed | Runs launched | lost | live at once | Official: launched | lost "
            "| live at once |\n| --- | --- | --- | --- | --- | --- | --- |"
        )
        for point in POINTS:
            row = [str(point)]
            for provider in (ours, theirs):
                accounts = [provider.kill_at(one, point, seconds=RUN_SECONDS) for one in OPERATORS]
                row += cells(accounts)
            print(f"| {' | '.join(row)} |", flush=True)
        counts, figures = zip(
            *(kill_at_random(provider, arguments.random) for provider in (ours, theirs)),
            strict=True,
        )
        row = [f"at random: {counts[0]}; official: {counts[1]}", *figures[0], *figures[1]]
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()

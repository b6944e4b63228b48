"""DAGs that were written for the official provider, with only their imports changed."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_jobs_provider.migrate.names import OFFICIAL
from airflow_jobs_provider.migrate.rewrite import rewrite
from scripts import official
from scripts.airflow_env import ROOT
from tests.end_to_end.side_by_side import DAGS, Side, rows, table, with_imports_changed
from tests.end_to_end.side_by_side_requests import group_requests, request_table

PAGE = ROOT / "docs" / "migrating.md"
FILES = sorted(DAGS.glob("*.py"))
# What differs, and the row of the page's "Differences in behaviour" that says so.
LISTED = {
    "return_value": "the XCom `return_value` is not pushed",
    "job_id": "the XCom `job_id` is pushed by deferrable tasks only",
    "run_page_url": "`do_xcom_push=False` pushes no XCom",
    "run_id": "a task of a workflow group pushes only the XCom `databricks_job_run_link`",
}
# What _xcoms of side_by_side leaves out.
HIDDEN = "no XCom has the task runs of a run of several tasks"
# The same for the state, by DAG.
LISTED_STATES = {
    "repair": "A blocking task fails although the repair succeeds",
    "group_dry_run": "`launch` of a workflow group fails if the run has ended before it is read",
    "group_mapped": "a workflow group in an expanded `@task_group` fails if it takes",
    "group_trigger_rules": "all tasks of a workflow group depend on `launch`",
}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_migrated_dag_is_parsed(file: Path) -> None:
    """With nothing but the imports changed; none leads to the official provider."""
    before = file.read_bytes()
    after = rewrite(before).after
    changed = [
        (old, new)
        for old, new in zip(before.splitlines(), after.splitlines(), strict=True)
        if old != new
    ]
    assert changed
    assert all(b"import" in line for lines in changed for line in lines)
    assert OFFICIAL.encode() not in after
    if file.stem.startswith("group_"):
        assert after.decode() == with_imports_changed(before.decode())
    module: dict[str, Any] = {}
    exec(compile(after, str(file), "exec"), module)
    assert isinstance(module["dag"], DAG)
    assert module["dag"].tasks


@pytest.fixture(scope="module")
def official_python() -> str:
    """The interpreter of an environment with the official provider."""
    return official.python()


@pytest.fixture(scope="module")
def sides(
    official_python: str, migrated_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Side]:
    """The DAGs, run with the official provider and with this package."""
    folder = tmp_path_factory.mktemp("side_by_side")
    sides = {
        "official": Side(official_python, folder / "official", migrates=False),
        "here": Side(sys.executable, folder / "here", migrates=True),
    }
    with ExitStack() as stack:
        running = [side.start(stack, migrated_home) for side in sides.values()]
        for process in running:
            process.wait(1200)  # it shares the cores with whole Airflows
    return sides


@pytest.fixture(scope="module")
def outcomes(sides: dict[str, Side]) -> dict[str, dict[str, Any]]:
    """What became of the DAGs with the official provider, and with this package."""
    return {name: side.outcomes() for name, side in sides.items()}


@pytest.mark.real_clients
def test_the_outcomes_are_those_of_the_official_provider(
    outcomes: dict[str, dict[str, Any]],
) -> None:
    """The states and the XComs are equal, or docs/migrating.md has the difference."""
    page = PAGE.read_text()
    for words in (*LISTED.values(), *LISTED_STATES.values(), HIDDEN):
        assert words in page
    found = list(rows(outcomes["official"], outcomes["here"]))
    assert {dag for dag, *_ in found} == {file.stem for file in FILES}
    for dag, *task, differs in found:
        listed = LISTED.keys() | ({"state"} if dag in LISTED_STATES else set())
        assert set(filter(None, differs.split(", "))) <= listed, (dag, *task)


@pytest.mark.real_clients
def test_the_page_shows_the_outcomes(outcomes: dict[str, dict[str, Any]]) -> None:
    """The table of docs/migrating.md is what was seen."""
    seen = table(outcomes["official"], outcomes["here"])
    assert shown_table("side by side") == seen.strip(), seen


@pytest.mark.real_clients
def test_the_page_shows_how_the_requests_of_groups_differ(sides: dict[str, Side]) -> None:
    """The table of docs/migrating.md is what was sent to create and to launch the jobs."""
    official, here = (group_requests(sides[name].sent) for name in ("official", "here"))
    groups = {name for name in official if name.startswith("group_")}
    assert len(groups) >= 6
    assert groups <= here.keys()
    seen = request_table(official, here, groups)
    assert shown_table("requests of groups") == seen.strip(), seen


def shown_table(name: str) -> str:
    """Return a table of docs/migrating.md."""
    shown = re.search(rf"<!-- {name} -->\n(.*?)<!-- end -->", PAGE.read_text(), re.DOTALL)
    assert shown is not None
    return shown[1].strip()


BOTH = f"""\
from datetime import datetime
from airflow.providers.common.compat.sdk import DAG
from {OFFICIAL}.operators.databricks import DatabricksSubmitRunOperator as Official
from airflow_jobs_provider.operators.jobs import DatabricksSubmitRunOperator as Ours

task = {{"notebook_task": {{"notebook_path": "/Shared/greet"}}, "existing_cluster_id": "c"}}
with DAG("both", schedule=None, start_date=datetime(2024, 1, 1)) as dag:
    for deferrable in (False, True):
        for operator, name in ((Official, "official"), (Ours, "ours")):
            operator(
                task_id=f"{{name}}_{{deferrable}}",
                json=task, deferrable=deferrable, polling_period_seconds=1,
            )
"""


@pytest.mark.real_clients
def test_both_packages_work_in_one_dag(
    official_python: str, migrated_home: Path, tmp_path: Path
) -> None:
    """Both are installed in one Airflow; the connection is of the official type."""
    packages, dags = tmp_path / "packages", tmp_path / "both"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run(
        [*install, "--no-build-isolation", "--target", str(packages), str(ROOT)], check=True
    )
    dags.mkdir()
    (dags / "both.py").write_text(BOTH)
    side = Side(official_python, tmp_path / "side", migrates=False, more_path=packages)
    with ExitStack() as stack:
        assert side.start(stack, migrated_home, dags).wait(300) == 0, side.log()
    tasks = side.outcomes()["both"]["tasks"]
    assert {task["state"] for task in tasks.values()} == {"success"}
    values = {name: task["xcoms"].get("return_value") for name, task in tasks.items()}
    assert values == {
        "official_False": None,
        "official_True": None,
        "ours_False": "hello nobody",
        "ours_True": "hello nobody",
    }

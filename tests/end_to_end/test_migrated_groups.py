"""The groups of official_dags on Airflow before 3.3, with only their imports changed.

On Airflow 3.3 they run side by side with the official provider: see test_official_dags.py.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from airflow import __version__ as airflow_version

from scripts.airflow_env import ROOT
from tests.end_to_end.side_by_side import DAGS, Side, shown, shown_outcomes, with_imports_changed

pytestmark = [
    pytest.mark.standalone,
    pytest.mark.skipif(airflow_version >= "3.3", reason="test_official_dags.py has more"),
]


def test_the_outcomes_are_those_of_the_page(migrated_home: Path, tmp_path: Path) -> None:
    """States and XComs are those of Airflow 3.3, in the table of docs/migrating.md."""
    dags = tmp_path / "dags"
    dags.mkdir()
    for file in DAGS.glob("group_*.py"):
        # As the migrate command does it: libcst is not in the environments of older versions.
        (dags / file.name).write_text(with_imports_changed(file.read_text()))
    side = Side(sys.executable, tmp_path / "here", migrates=False, more_path=ROOT)
    with ExitStack() as stack:
        side.start(stack, migrated_home, dags).wait(600)
    seen = {
        (dag_id, task_id): shown(task)
        for dag_id, outcome in side.outcomes().items()
        for task_id, task in outcome["tasks"].items()
    }
    assert seen == shown_outcomes()
    assert len({dag_id for dag_id, _ in seen}) == len(list(dags.glob("*.py")))

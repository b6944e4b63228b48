"""The module of ``lines`` that a version of Airflow gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_jobs_provider.airflow_compat import lines
from airflow_jobs_provider.airflow_compat.lines import airflow_line


def module_of(version: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of the module that a version gets."""
    monkeypatch.setattr("airflow.__version__", version)
    return type(airflow_line.__wrapped__()).__module__.rpartition(".")[2]


@pytest.mark.parametrize(
    ("version", "module"),
    [
        ("2.11.2", "airflow_2_11"),
        ("3.0.6", "airflow_3_0"),
        ("3.1.8", "airflow_3_1"),
        ("3.2.2", "airflow_3_2"),
        ("3.3.2", "airflow_3_3"),
        ("3.3.0rc1", "airflow_3_3"),
    ],
)
def test_each_line_gets_its_module(
    version: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With any patch release of the line."""
    assert module_of(version, monkeypatch) == module


@pytest.mark.parametrize(("version", "is_newer"), [("99.10.0", True), ("2.9.3", False)])
def test_a_version_outside_the_known_lines_gets_the_nearest_one(
    version: str, is_newer: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer version gets the newest module, an older one the oldest."""
    (folder,) = lines.__path__
    known = [
        tuple(map(int, file.stem.split("_")[1:])) for file in Path(folder).glob("airflow_*.py")
    ]
    nearest = max(known) if is_newer else min(known)
    assert module_of(version, monkeypatch) == "airflow_" + "_".join(map(str, nearest))


def test_a_line_is_chosen_once() -> None:
    """All questions of a process go to the same object."""
    assert airflow_line() is airflow_line()

"""The module of ``lines`` that a version of Airflow gets."""

from __future__ import annotations

import pytest

from airflow_jobs_provider.airflow_compat.lines import airflow_line


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("2.11.2", "Airflow211"),
        ("3.0.6", "Airflow30"),
        ("3.1.0", "Airflow31"),
        ("3.2.2", "Airflow32"),
        ("3.3.2", "Airflow33"),
        ("3.10.0rc1", "Airflow33"),
        ("4.0.0", "Airflow33"),
        ("2.10.5", "Airflow211"),
    ],
)
def test_the_newest_line_that_is_not_newer_is_used(
    version: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for versions that did not exist yet; the oldest one for older versions."""
    monkeypatch.setattr("airflow.__version__", version)
    assert type(airflow_line.__wrapped__()).__name__ == expected


def test_a_line_is_chosen_once() -> None:
    """All questions of a process go to the same object."""
    assert airflow_line() is airflow_line()

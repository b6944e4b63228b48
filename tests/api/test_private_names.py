"""Subclasses of users that replace private attributes."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
from airflow_jobs_provider.operators.jobs import DatabricksRunNowOperator
from airflow_jobs_provider.sensors.jobs import DatabricksJobRunSensor


@pytest.mark.parametrize(
    ("base", "name"),
    [
        (DatabricksRunNowOperator, "_cancel"),
        (DatabricksRunNowOperator, "_tokens"),
        (DatabricksJobRunSensor, "_read"),
        (DatabricksJobsHook, "_send"),
    ],
)
def test_a_private_method_that_is_replaced_is_warned_of(base: Any, name: str) -> None:
    """Where the class is defined: a DAG file that is parsed shows the warning."""
    with pytest.warns(UserWarning, match=f"Mine replaces private .*: {name}. Rename") as warned:

        class Mine(base):  # type: ignore[misc]
            locals()[name] = lambda _: None

    assert warned[0].filename == __file__


def test_names_of_a_users_own_are_not_warned_of() -> None:
    """Nor public ones, nor those that a base class of the user's has."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        class Base(DatabricksRunNowOperator):
            _my_own = 1
            __cancel = 2

            def execute(self, context: Any) -> Any:
                return super().execute(context)

        class Derived(Base):
            _my_own = 3

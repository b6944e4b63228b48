"""What is outside this package is said to be so where it is imported or called."""

from __future__ import annotations

import importlib
import re

import pytest

from airflow_jobs_provider.hooks.jobs import DatabricksHook
from airflow_jobs_provider.migrate.differences import name_difference
from airflow_jobs_provider.official_names import HOOK_METHODS_OUTSIDE, NAMES_OUTSIDE

MODULES = ["operators.jobs", "sensors.jobs", "triggers.jobs", "hooks.jobs", "exceptions"]


@pytest.mark.parametrize("module", MODULES)
def test_an_import_of_what_is_outside_names_where_it_stays(module: str) -> None:
    """One sentence, from each module that takes the place of an official one."""
    for name, (concern, official) in NAMES_OUTSIDE.items():
        with pytest.raises(ImportError) as caught:
            exec(f"from airflow_jobs_provider.{module} import {name}", {})
        assert str(caught.value) == (
            f"{name} is for {concern}, and this package is for jobs only: import it from "
            f"airflow.providers.databricks.{official}"
        )


@pytest.mark.parametrize("module", MODULES)
def test_any_other_name_is_missing_as_usual(module: str) -> None:
    """Tools that look for an attribute get an AttributeError."""
    found = importlib.import_module(f"airflow_jobs_provider.{module}")
    with pytest.raises(AttributeError, match="has no attribute 'DatabricksTypo'"):
        found.DatabricksTypo  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'DatabricksTypo'"):
        exec(f"from airflow_jobs_provider.{module} import DatabricksTypo", {})


@pytest.mark.parametrize("name", NAMES_OUTSIDE)
def test_the_page_about_migrating_has_each_name(name: str) -> None:
    """It is in a table of what stays, with the same reason."""
    assert re.search(
        ": stays with the official provider; nothing to do$", name_difference(name) or ""
    )


@pytest.mark.parametrize("name", HOOK_METHODS_OUTSIDE)
def test_a_method_of_the_hook_that_is_outside_names_where_it_stays(name: str) -> None:
    """As an AttributeError: the hook has no such method, and ``hasattr`` says so."""
    hook = DatabricksHook()
    assert not hasattr(hook, name)
    with pytest.raises(AttributeError) as caught:
        getattr(hook, name)({"cluster_id": "1"})
    assert str(caught.value) == (
        f"{name} is for {HOOK_METHODS_OUTSIDE[name]}, and this hook is for jobs only: call it on "
        "airflow.providers.databricks.hooks.databricks.DatabricksHook"
    )


def test_any_other_attribute_of_the_hook_is_missing_as_usual() -> None:
    """Also one that a property misses in turn: its own error is shown."""

    class Hook(DatabricksHook):
        @property
        def own(self) -> object:
            return self.databricks_conn_id.typo  # type: ignore[attr-defined]

    with pytest.raises(AttributeError, match="'Hook' object has no attribute 'typo'"):
        Hook().typo  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(AttributeError, match="'str' object has no attribute 'typo'"):
        Hook().own  # noqa: B018

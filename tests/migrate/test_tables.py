"""The tables of docs/migrating.md."""

from __future__ import annotations

import re

import pytest

from airflow_jobs_provider.migrate.differences import DIFFERENCES, Difference
from airflow_jobs_provider.migrate.names import MOVED
from scripts.migration_tables import PAGE, page

MODULES = {name: module for names in MOVED.values() for name, module in names.items()}


def test_the_page_has_the_tables_of_the_data() -> None:
    """docs/migrating.md is stale unless `python -m scripts.migration_tables` changes nothing."""
    assert page(PAGE.read_text()) == PAGE.read_text(), "run: python -m scripts.migration_tables"
    blocks = re.findall(r"<!-- table: (\w+) -->\n\| .*?<!-- end -->", PAGE.read_text(), re.DOTALL)
    assert sorted(blocks) == ["arguments", "behaviour", "moves", "stays"]


@pytest.mark.parametrize(
    "difference", DIFFERENCES, ids=lambda one: f"{one.names[0]}.{one.argument}"
)
def test_a_difference_is_of_a_class_that_moves(difference: Difference) -> None:
    """Its texts are parts of sentences: the table and the report end them themselves."""
    assert set(difference.names) <= MODULES.keys()
    assert not any(
        text.endswith(".") or "|" in text
        for text in (difference.how, difference.why, difference.action)
    )

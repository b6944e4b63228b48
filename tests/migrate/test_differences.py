"""What the command says about differences is what docs/migrating.md says."""

from __future__ import annotations

import json

from airflow_jobs_provider.migrate.differences import argument_differences, name_difference
from scripts.migration_differences import DATA, PAGE, SECTION, data


def test_the_command_has_the_rows_of_the_page() -> None:
    """Its data is stale unless `python -m scripts.migration_differences` would write the same."""
    assert DATA.read_text() == data(PAGE.read_text()), (
        "run: python -m scripts.migration_differences"
    )
    assert name_difference("DatabricksSqlOperator")
    assert argument_differences("DatabricksRunNowOperator")


def test_rows_become_sentences() -> None:
    """Links are left out, and so are rows with nothing to do; names keep their arguments."""
    page = (
        f"| `x` | y |\n{SECTION}\n### A\n| Official | How | Why | Do |\n| --- | --- | --- | --- |\n"
        "| `A(b=3)`, `C` | is [new](a.md) ([more](b.md)) | because | do it |\n"
        "| `N` | is | so | nothing; or x |\n"
        "| `D` | other | because | change it |\n\n| `E` | repos |\n\n## B\n| `z` | y |\n"
    )
    assert json.loads(data(page)) == [
        {"names": ["A(b=3)", "C"], "text": "is new. Do it"},
        {"names": ["D"], "text": "other. Change it"},
        {"names": ["E"], "text": "repos: stays with the official provider; nothing to do"},
    ]

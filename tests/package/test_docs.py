"""The page of what is typed and checked, and the code that documents show."""

from __future__ import annotations

import re

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_jobs_provider.api.schema.rules import RULES
from scripts.airflow_env import ROOT
from scripts.reference_docs import PAGE, page
from tests.helpers.snippets import IN_A_DAG, NOT_RUN, RUN_BY, SNIPPETS, Snippet


def test_the_page_is_what_the_code_says() -> None:
    """docs/reference.md is stale unless `python -m scripts.reference_docs` would write the same."""
    assert PAGE.read_text() == page(), "run: python -m scripts.reference_docs"


def test_every_link_leads_somewhere() -> None:
    """Each structure, map and enumeration that a table names has its place on the page."""
    text = page()
    places = {
        heading.lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }
    places |= set(re.findall(r'<a id="(\w+)">', text))
    assert set(re.findall(r"\(#([\w-]+)\)", text)) <= places
    assert text.count("(reference: ") > len(RULES)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet.place)
def test_every_snippet_is_python_and_says_how_it_is_run(snippet: Snippet) -> None:
    """A new one without a comment is a whole program; what cannot be run has a reason."""
    compile(snippet.code, snippet.place, "exec")
    if snippet.how in (RUN_BY, NOT_RUN):
        assert snippet.note, "tell the test, or the reason"
    if snippet.how == RUN_BY:
        tests = (ROOT / "tests").rglob("test_*.py")
        assert any(f"def {snippet.note}(" in test.read_text() for test in tests)


@pytest.mark.parametrize(
    "snippet",
    [snippet for snippet in SNIPPETS if snippet.how == IN_A_DAG],
    ids=lambda snippet: snippet.place,
)
def test_a_part_of_a_dag_is_parsed(snippet: Snippet) -> None:
    """Airflow takes its tasks, and so do the checks of their requests."""
    with DAG("documented", schedule=None) as dag:
        exec(compile(f"{snippet.note}\n{snippet.code}", snippet.place, "exec"), {})
    assert dag.tasks


def test_all_code_in_the_documents_is_found() -> None:
    """None hides behind an indentation or another name of the language."""
    documents = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    fences = sum(
        len(re.findall(r"^[ >]*```(?:py\w*|python.*)$", page.read_text(), re.MULTILINE))
        for page in documents
    )
    assert fences == len(SNIPPETS) > 0

"""The page of what is typed and checked."""

from __future__ import annotations

import re

from airflow_jobs_provider.api.rules import RULES
from scripts.reference_docs import PAGE, page


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

"""The page of what is typed and checked, and the code that documents show."""

from __future__ import annotations

import ast
import linecache
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_jobs_provider.api.schema.rules import RULES
from airflow_jobs_provider.xcom import RESERVED_KEYS
from scripts import architecture_diagrams
from scripts.airflow_env import ROOT
from scripts.reference_docs import all_pages, page
from tests.helpers.snippets import IN_A_DAG, NOT_RUN, RUN_BY, SNIPPETS, Snippet

DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "example_dags").rglob("*.md")]
)


def test_the_generated_pages_are_what_the_code_says() -> None:
    """A page is stale unless `python -m scripts.reference_docs` would write the same."""
    for path, content in all_pages().items():
        assert path.read_text() == content, "run: python -m scripts.reference_docs"


def test_no_generated_page_is_left() -> None:
    """A page that the script no longer writes is removed."""
    generated = {path for path in DOCUMENTS if "<!-- Written by scripts/" in path.read_text()}
    assert generated == set(all_pages())


@pytest.mark.parametrize(
    ("picture", "draw"),
    [
        (architecture_diagrams.LAYERS_PICTURE, architecture_diagrams.layers),
        (architecture_diagrams.RUN_PICTURE, architecture_diagrams.one_run),
    ],
)
def test_the_pictures_are_what_the_script_draws(picture: Path, draw: Callable[[], str]) -> None:
    """A picture is stale unless the script would draw the same."""
    assert picture.read_text() == draw(), "run: python -m scripts.architecture_diagrams"


def test_the_picture_of_the_layers_has_every_part() -> None:
    """Each module and package of the package is in one box."""
    drawn = {name.strip("/") for row in architecture_diagrams.LAYERS for name, _ in row}
    package = ROOT / "airflow_jobs_provider"
    parts = {path.stem for path in package.iterdir() if path.suffix == ".py"} | {
        path.parent.name for path in package.glob("*/__init__.py")
    }
    assert drawn == parts - {"__init__", "_version", "api", "local"}


def test_every_rule_names_its_section_of_the_reference() -> None:
    """The page shows where each rule comes from."""
    assert page().count("(reference: ") > len(RULES)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(document: Path) -> None:
    """Links to other sites are not followed."""
    links = re.findall(r"\]\(([^)\s]+)\)", document.read_text())
    for link in links:
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_that_a_document_names_exists(document: Path) -> None:
    """A file that was renamed or moved is renamed in the documents too."""
    names = re.findall(r"`([\w.]+/[\w./-]+)`", document.read_text())
    tops = {path.name for path in ROOT.iterdir()}
    for name in names:
        if name.partition("/")[0] in tops:
            assert (ROOT / name).exists(), name


@pytest.mark.parametrize("document", ["README.md", "docs/comparison.md"])
def test_the_figures_of_a_comparison_are_those_of_the_benchmarks(document: str) -> None:
    """A table beside the official provider has no other figures than docs/benchmarks.md."""
    text = (ROOT / document).read_text()
    benchmarks = (ROOT / "docs" / "benchmarks.md").read_text()
    (table,) = re.findall(r"(?:^\|.*(?i:official) provider 7.*\n)(?:^\|.*\n)+", text, re.MULTILINE)
    figures = re.findall(r"[\d.,]*\d(?= (?:ms|MB|requests|s of CPU|packages)\b)", table)
    assert len(figures) >= 6
    for figure in figures:
        assert re.search(rf"(?<![\d.,]){re.escape(figure)}(?![\d.,]*\d)", benchmarks), figure


def test_the_reserved_xcom_keys_are_those_of_the_code() -> None:
    """docs/several-tasks.md names each key that a task of a run must not have."""
    text = (ROOT / "docs" / "several-tasks.md").read_text()
    (keys,) = re.findall(r"is a reserved XCom key \((.*?)\)", text, re.DOTALL)
    assert set(re.findall(r"`(\w+)`", keys)) == RESERVED_KEYS


def test_each_example_dag_is_counted() -> None:
    """docs/README.md tells how many example DAGs there are."""
    count = len(list((ROOT / "example_dags").glob("*.py")))
    numbers = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    assert f"| {numbers[count]} DAGs " in (ROOT / "docs" / "README.md").read_text()


def test_every_extra_for_users_is_listed() -> None:
    """docs/installation.md has the extras of pyproject.toml, but those of development."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    of_development = {"bench", "dev", "distributed", "docs", "mutants", "release"}
    listed = re.findall(
        r"^\| `\[(\w+)\]` \|", (ROOT / "docs" / "installation.md").read_text(), re.MULTILINE
    )
    assert set(listed) == project["optional-dependencies"].keys() - of_development


def test_every_log_line_to_monitor_is_written_by_the_code() -> None:
    """docs/deployment.md has log lines with "..." for what varies."""
    section = (ROOT / "docs" / "deployment.md").read_text().partition("| Log line |")[2]
    lines = re.findall(r"^\| `(.*?)` \|", section.partition("\n\n")[0], re.MULTILINE)
    assert lines
    texts = [
        node.value
        for path in (ROOT / "airflow_jobs_provider").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    for line in lines:
        parts = line.split("...")
        assert any(all(part in text for part in parts) for text in texts), line


def anchors(document: Path) -> set[str]:
    """Return the anchors of a Markdown file, as forges make them from its headings."""
    text = document.read_text()
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r'<a id="(\w+)">', text))


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
def test_a_part_of_a_dag_is_parsed(snippet: Snippet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow takes its tasks, and so do the checks of their requests."""
    code = f"{snippet.note}\n{snippet.code}"
    # A decorator may read the source of a function.
    monkeypatch.setitem(
        linecache.cache, snippet.place, (len(code), None, code.splitlines(True), snippet.place)
    )
    with DAG("documented", schedule=None) as dag:
        exec(compile(code, snippet.place, "exec"), {})
    assert dag.tasks


def test_all_code_in_the_documents_is_found() -> None:
    """None hides behind an indentation or another name of the language."""
    documents = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    fences = sum(
        len(re.findall(r"^[ >]*```(?:py\w*|python.*)$", page.read_text(), re.MULTILINE))
        for page in documents
    )
    assert fences == len(SNIPPETS) > 0

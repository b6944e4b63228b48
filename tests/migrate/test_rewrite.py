"""What becomes of a file's imports, statement by statement."""

from __future__ import annotations

from importlib import import_module

import pytest

from airflow_jobs_provider.migrate.findings import FileResult, Kind
from airflow_jobs_provider.migrate.names import MODULES_THAT_STAY, MOVED

OFFICIAL = "airflow.providers.databricks.operators.databricks"
OURS = "airflow_jobs_provider.operators.jobs"
MAPPED = f"""\
import {OFFICIAL} as d
d.DatabricksRunNowOperator.partial(
).expand(
    databricks_retry_limit=[1])
"""


def rewrite(source: bytes) -> FileResult:
    """Rewrite a file. Every test process imports this one, and libcst takes a second to import."""
    module = import_module("airflow_jobs_provider.migrate.rewrite")
    result: FileResult = module.rewrite(source)
    return result


def after(source: str) -> str:
    """Return what a file becomes, and check that it stays so."""
    result = rewrite(source.encode())
    assert not result.has_failed, result.findings
    assert rewrite(result.after).after == result.after, "not idempotent"
    compile(result.after, "dag.py", "exec")
    return result.after.decode()


def findings(source: str, kind: Kind) -> list[tuple[int, str]]:
    """Return the findings of a kind: line and text."""
    result = rewrite(source.encode())
    return [(one.line, one.text) for one in result.findings if one.kind is kind]


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        pytest.param(
            f"from {OFFICIAL} import DatabricksSubmitRunOperator\n",
            f"from {OURS} import DatabricksSubmitRunOperator\n",
            id="one name",
        ),
        pytest.param(
            f"from {OFFICIAL} import DatabricksSubmitRunOperator as S , DatabricksRunNowOperator\n",
            f"from {OURS} import DatabricksSubmitRunOperator as S , DatabricksRunNowOperator\n",
            id="two names, one with as, odd spaces",
        ),
        pytest.param(
            f"from {OFFICIAL} import (  # why\n    # first\n    DatabricksSubmitRunOperator,\n"
            "    DatabricksRunNowOperator as R  # second\n    # end\n)  # noqa\n",
            f"from {OURS} import (  # why\n    # first\n    DatabricksSubmitRunOperator,\n"
            "    DatabricksRunNowOperator as R  # second\n    # end\n)  # noqa\n",
            id="parentheses with comments",
        ),
        pytest.param(
            f"from {OFFICIAL} import DatabricksSubmitRunOperator, \\\n  DatabricksRunNowOperator\n",
            f"from {OURS} import DatabricksSubmitRunOperator, \\\n  DatabricksRunNowOperator\n",
            id="a continued line",
        ),
        pytest.param(
            f"# above\nfrom {OFFICIAL} import DatabricksSQLStatementsOperator, "
            "DatabricksRunNowOperator  # noqa: F401\n",
            f"# above\nfrom {OFFICIAL} import DatabricksSQLStatementsOperator  # noqa: F401\n"
            f"from {OURS} import DatabricksRunNowOperator  # noqa: F401\n",
            id="one stays: two lines, both with the pragma",
        ),
        pytest.param(
            f"from {OFFICIAL} import DatabricksRunNowOperator, "
            "DatabricksSQLStatementsOperator  # both\n",
            f"from {OFFICIAL} import DatabricksSQLStatementsOperator  # both\n"
            f"from {OURS} import DatabricksRunNowOperator\n",
            id="one stays: the comment is kept once",
        ),
        pytest.param(
            f"from {OFFICIAL} import (  # why\n    # runs\n    DatabricksRunNowOperator,  # now\n"
            "    # SQL\n    DatabricksSQLStatementsOperator,\n    DatabricksSubmitRunOperator,\n"
            "    # end\n)\n",
            f"from {OFFICIAL} import (  # why\n    # SQL\n    DatabricksSQLStatementsOperator,\n"
            f"    # end\n)\nfrom {OURS} import (\n    # runs\n"
            "    DatabricksRunNowOperator,  # now\n"
            "    DatabricksSubmitRunOperator,\n)\n",
            id="one stays: comments stay with their names",
        ),
        pytest.param(
            f"import {OFFICIAL} as db, os  # two\ndb.DatabricksRunNowOperator(job_id=1)\n",
            f"import {OURS} as db, os  # two\ndb.DatabricksRunNowOperator(job_id=1)\n",
            id="a module with as",
        ),
        pytest.param(
            "from airflow.providers.databricks.operators import databricks\n"
            "databricks.DatabricksRunNowOperator(job_id=1)\n",
            "from airflow_jobs_provider.operators import jobs as databricks\n"
            "databricks.DatabricksRunNowOperator(job_id=1)\n",
            id="a module from its package",
        ),
        pytest.param(
            "from airflow.providers.databricks.operators import databricks as d, databricks_sql\n"
            "d.DatabricksRunNowOperator(job_id=1)\nd_jobs = 1\n"
            "d.DatabricksSQLStatementsOperator(statement='')\n",
            "from airflow.providers.databricks.operators import databricks as d, databricks_sql\n"
            "from airflow_jobs_provider.operators import jobs as d_jobs_\n"
            "d_jobs_.DatabricksRunNowOperator(job_id=1)\nd_jobs = 1\n"
            "d.DatabricksSQLStatementsOperator(statement='')\n",
            id="a module that is needed for both gets a second import with a free name",
        ),
        pytest.param(
            f"from {OFFICIAL} import (\n    DatabricksRunNowOperator  # type: ignore\n"
            "  , DatabricksSQLStatementsOperator  # SQL\n  , DatabricksSubmitRunOperator\n)\n",
            f"from {OFFICIAL} import (\n    DatabricksSQLStatementsOperator,  # SQL\n)\n"
            f"from {OURS} import (\n    DatabricksRunNowOperator,  # type: ignore\n"
            "    DatabricksSubmitRunOperator,\n)\n",
            id="lines that begin with the comma",
        ),
        pytest.param(
            "from airflow.providers.databricks.operators import databricks as a, databricks as b\n"
            "a.DatabricksRunNowOperator(job_id=1)\nb.DatabricksSQLStatementsOperator\n",
            "from airflow.providers.databricks.operators import databricks as b\n"
            "from airflow_jobs_provider.operators import jobs as a\n"
            "a.DatabricksRunNowOperator(job_id=1)\nb.DatabricksSQLStatementsOperator\n",
            id="a module under two names",
        ),
        pytest.param(
            f"import {OFFICIAL}\n{OFFICIAL}.DatabricksRunNowOperator(job_id=1)\n",
            f"import {OURS}\n{OURS}.DatabricksRunNowOperator(job_id=1)\n",
            id="a module without as",
        ),
        pytest.param(
            f"import {OFFICIAL}\n{OFFICIAL}.DatabricksRunNowOperator(job_id=1)\nairflow.DAG\n",
            f"import {OFFICIAL}, {OURS}\n{OURS}.DatabricksRunNowOperator(job_id=1)\nairflow.DAG\n",
            id="a module without as that also brings airflow",
        ),
        pytest.param(
            f"import airflow.models\nimport {OFFICIAL}\nairflow.models.DAG\n"
            f"{OFFICIAL}.DatabricksRunNowOperator(job_id=1)\n",
            f"import airflow.models\nimport {OURS}\nairflow.models.DAG\n"
            f"{OURS}.DatabricksRunNowOperator(job_id=1)\n",
            id="airflow that another import brings",
        ),
        pytest.param(
            "if TYPE_CHECKING:\n"
            f"    from {OFFICIAL} import DatabricksRunNowOperator\n"
            f"def f():\n\tfrom {OFFICIAL} import DatabricksSubmitRunOperator\n"
            f"\tx = 1; from {OFFICIAL} import DatabricksRunNowOperator, ClusterState; y = 2\n",
            "if TYPE_CHECKING:\n"
            f"    from {OURS} import DatabricksRunNowOperator\n"
            f"def f():\n\tfrom {OURS} import DatabricksSubmitRunOperator\n"
            f"\tx = 1; from {OFFICIAL} import ClusterState; "
            f"from {OURS} import DatabricksRunNowOperator; y = 2\n",
            id="in a block, in a function, on one line with others",
        ),
        pytest.param(
            f"if TYPE_CHECKING: from {OFFICIAL} import ClusterState, DatabricksRunNowOperator\n",
            f"if TYPE_CHECKING: from {OFFICIAL} import ClusterState; "
            f"from {OURS} import DatabricksRunNowOperator\n",
            id="on the line of its block",
        ),
        pytest.param(
            f"import {OFFICIAL} as db\ndef f(db):\n    return db.DatabricksRunNowOperator\n"
            "db.DatabricksSQLStatementsOperator\ndb.DatabricksRunNowOperator\n",
            f"import {OFFICIAL} as db, {OURS} as db_jobs\n"
            "def f(db):\n    return db.DatabricksRunNowOperator\n"
            "db.DatabricksSQLStatementsOperator\ndb_jobs.DatabricksRunNowOperator\n",
            id="a parameter of the same name is another thing",
        ),
    ],
)
def test_imports_are_rewritten(before: str, expected: str) -> None:
    """Each style of import leads to this package, and nothing else changes."""
    assert after(before) == expected


@pytest.mark.parametrize(
    "source",
    [
        "import os\n",
        f"from {OFFICIAL} import DatabricksSQLStatementsOperator\n",
        f"from {OFFICIAL} import *\n",
        f"from {OFFICIAL}_sql import DatabricksSqlOperator\n",
        f"import {OFFICIAL} as db\nprint(getattr(db, 'DatabricksRunNowOperator'))\n",
        f"path = '{OFFICIAL}.DatabricksRunNowOperator'\n",
        "from airflow.providers import databricks, http\n",
        "from airflow.providers.databricks import operators\n",
        "from .databricks import DatabricksRunNowOperator\n",
        f"from {OURS} import DatabricksRunNowOperator\n",
    ],
)
def test_everything_else_is_left(source: str) -> None:
    """What stays with the official provider, or cannot be followed, is not changed."""
    assert after(source) == source


@pytest.mark.parametrize(
    ("source", "kind", "line", "words"),
    [
        (f"\nfrom {OFFICIAL} import *\n", Kind.CHECK, 2, "name what is imported"),
        (
            f"from {OFFICIAL} import (\n    DatabricksSQLStatementsOperator,\n)\n",
            Kind.STAYS,
            2,
            "DatabricksSQLStatementsOperator: SQL statements",
        ),
        (f"import {OFFICIAL}_sql\n", Kind.STAYS, 1, "nothing of it is in this package"),
        (
            f"import {OFFICIAL} as db\ndb.ClusterState\n",
            Kind.STAYS,
            2,
            "ClusterState: clusters",
        ),
        (f"import {OFFICIAL} as db\nprint(db)\n", Kind.CHECK, 1, "no use of it was found"),
        (
            f"import {OFFICIAL} as db\ndb.DatabricksRunNowOperator\ngetattr(db, 'x')\n",
            Kind.CHECK,
            3,
            "used as a value",
        ),
        (f"patch('{OFFICIAL}.DatabricksRunNowOperator')\n", Kind.CHECK, 1, "a text names"),
        (f"f'{OFFICIAL}.{{name}}'\n", Kind.CHECK, 1, "a text names"),
        ("from airflow.providers import databricks\n", Kind.CHECK, 1, "as a package"),
        ("from airflow.providers.databricks import hooks\n", Kind.CHECK, 1, "as a package"),
        ("import airflow.providers.databricks\n", Kind.CHECK, 1, "import its classes instead"),
        (
            f"from {OFFICIAL} import DatabricksRunNowOperator as R\nclass Mine(R):\n    pass\n",
            Kind.CHECK,
            2,
            "class Mine(DatabricksRunNowOperator): check the methods that it overrides",
        ),
        (
            MAPPED,
            Kind.DIFFERS,
            4,
            "DatabricksRunNowOperator(databricks_retry_limit=): ",
        ),
    ],
)
def test_what_a_reader_should_know_is_reported(
    source: str, kind: Kind, line: int, words: str
) -> None:
    """With its line in the file as it was."""
    assert [number for number, text in findings(source, kind) if words in text] == [line]


def test_a_name_that_another_scope_has_is_not_reported() -> None:
    """A parameter or a variable of the same name is no use of the import."""
    source = (
        f"from {OFFICIAL} import DatabricksRunNowOperator\n"
        "def f(DatabricksRunNowOperator):\n"
        "    return DatabricksRunNowOperator(databricks_retry_limit=1)\n"
    )
    assert findings(source, Kind.DIFFERS) == []


@pytest.mark.parametrize(
    ("start", "encoding", "end"),
    [
        ("", "utf-8", "\n"),
        ("", "utf-8", "\r\n"),
        ("\ufeff", "utf-8", "\r\n"),
        ("# -*- coding: latin-1 -*-\n", "latin-1", "\n"),
    ],
)
def test_encoding_and_line_endings_are_kept(start: str, encoding: str, end: str) -> None:
    """Also those of a line that is added."""
    lines = (f"x = 'é'; from {OFFICIAL} import DatabricksRunNowOperator", "", "y = 1\t")
    mixed = f"from {OFFICIAL} import DatabricksSubmitRunOperator, ClusterState"
    source = (start + end.join((*lines, mixed))).encode(encoding)
    expected = (
        start
        + end.join(
            (
                lines[0].replace(OFFICIAL, OURS),
                *lines[1:],
                f"from {OFFICIAL} import ClusterState",
                f"from {OURS} import DatabricksSubmitRunOperator",
            )
        )
    ).encode(encoding)
    assert rewrite(source).after == expected


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (b"from airflow.providers.databricks import (\n", "cannot be parsed"),
        (b"# -*- coding: no-such-thing -*-\n", "cannot be parsed"),
        (b"x = '\xff'\n", "cannot be parsed"),
        (b"x = 1\ry = 2\r", "would change other lines"),
        (
            f"from {OFFICIAL} import (A  # a\n    , # b\n  DatabricksHook as B,\n"
            "  DatabricksRunNowOperator)\n".encode(),
            "a comment would be lost",
        ),
    ],
)
def test_a_file_that_cannot_be_rewritten_is_left(source: bytes, words: str) -> None:
    """It is reported, and its content is untouched."""
    result = rewrite(source)
    assert result.after == source
    assert result.has_failed
    assert words in result.findings[0].text


def test_each_name_that_moves_is_where_the_table_says() -> None:
    """The new import works."""
    for names in MOVED.values():
        for name, module in names.items():
            assert hasattr(import_module(module), name), f"{module}.{name}"


def test_no_module_both_moves_and_stays() -> None:
    """Each has one place."""
    assert not MOVED.keys() & MODULES_THAT_STAY

"""``dbutils.fs``, the redaction of secrets and the forms of notebooks, without a kernel."""

from __future__ import annotations

import base64
import html
import json
import os
from pathlib import Path
from typing import Any

import pytest

from airflow_jobs_provider.local.kernel.context import KernelContext
from airflow_jobs_provider.local.kernel.files import Files
from airflow_jobs_provider.local.kernel.output_monitor import RedactedSend
from airflow_jobs_provider.local.notebook_files import NotNotebookError, read_notebook


@pytest.fixture
def context(tmp_path: Path) -> KernelContext:
    """The context of a run in a workspace with a state, and with links that lead elsewhere."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root / ".workspace", root / "data" / "below", outside):
        folder.mkdir(parents=True)
    (root / ".workspace" / "workspace.sqlite").touch()
    (root / "data" / "file").write_text("text")
    (outside / "file").touch()
    (root / "data" / "state").symlink_to(root / ".workspace")
    (root / "data" / "outside").symlink_to(outside)
    (root / "data" / "nothing").symlink_to(root / "none")
    return KernelContext(root, root, [], root, {}, tmp_path / "exit", "", "secret")


def names(folder: Path) -> set[str]:
    """Return the paths of all that is in a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_the_state_is_not_copied(context: KernelContext) -> None:
    """Neither is what a link out of the root leads to."""
    (context.root / "data" / "nothing").unlink()
    Files(context).cp("/data", "/copy", recurse=True)
    assert names(context.root / "copy") == {"below", "file"}
    with pytest.raises(ValueError, match="cannot be copied into itself"):
        Files(context).cp("/", "/copy", recurse=True)


def test_a_folder_is_not_moved_into_itself(context: KernelContext) -> None:
    """It stays as it is."""
    with pytest.raises(ValueError, match="cannot be copied into itself"):
        Files(context).mv("/data", "/data/below/data", recurse=True)
    assert (context.root / "data" / "file").read_text() == "text"


def test_a_link_to_nothing_is_not_listed(context: KernelContext) -> None:
    """The other entries are."""
    listed = [one.name for one in Files(context).ls("/data")]
    assert listed == ["below/", "file", "outside/", "state/"]


def test_redaction(context: KernelContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a secret that begins with another one, of one with several lines, and in HTML."""
    secrets = {"short": "abc", "long": "abcdef", "key": "line 1\nline 2\n", "html": "<'&'>"}

    def answer(_context: KernelContext, _path: str, body: dict[str, str], _what: str) -> Any:
        return {"value": base64.b64encode(secrets[body["key"]].encode()).decode()}

    monkeypatch.setattr(KernelContext, "_ask", answer)
    assert context.redact("abcdef") == "abcdef"
    for key in secrets:
        context.secret_value("scope", key)
    assert context.redact({"text": ["abcdef", "abc"]}) == {"text": ["[REDACTED]", "[REDACTED]"]}
    key = secrets["key"]
    assert "line" not in context.redact(f"{key!r} {json.dumps(key)} {key.strip()}")
    page = f"<td>{html.escape(secrets['html'])}</td> {html.escape(secrets['html'], quote=False)}"
    assert context.redact(page) == "<td>[REDACTED]</td> [REDACTED]"


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        (["x ab", "cd y"], ["x ", "[REDACTED] y"]),
        (["abcd", "ef"], ["[REDACTED]"]),
        (["abcd", "e-"], ["[REDACTED]e-"]),
        (["ab", "c", "d"], ["[REDACTED]"]),
        (["a", "b"], ["ab"]),
        (["xab"], ["[REDACTED]"]),
        (["abab", "cd"], ["ab", "[REDACTED]"]),
        (["none", "of it"], ["none", "of it"]),
    ],
)
@pytest.mark.parametrize("end", ["execute_reply", "clear_output"])
def test_redaction_over_pieces(
    context: KernelContext, pieces: list[str], shown: list[str], end: str
) -> None:
    """A secret that is printed in pieces is redacted; nothing is kept back for good."""
    context.redacted = {"abcd", "abcdef", "xab", "abz"}
    sent: list[Any] = []

    def send(_stream: Any, message: Any, content: Any = None, **_: Any) -> None:
        sent.append((message["content"] if isinstance(message, dict) else content).get("text"))

    redacted = RedactedSend(send, context, os.getpid())
    for piece in pieces:
        header = {"msg_type": "stream"}
        content = {"name": "stdout", "text": piece}
        redacted(None, {"header": header, "parent_header": {}, "content": content}, ident=b"")
    redacted(None, end, {"status": "ok"})
    assert sent.pop() is None
    assert "".join(sent) == "".join(shown)
    assert all(text for text in sent)


def test_languages_of_notebooks(tmp_path: Path) -> None:
    """A notebook of SQL has its cells in SQL; one in Scala or R is refused by name."""
    file = tmp_path / "n.sql"
    file.write_text(
        "-- Databricks notebook source\n-- DBTITLE 1,x\nselect 1\n-- COMMAND ----------\n"
        "-- MAGIC %python\n-- MAGIC x = 1\n-- COMMAND ----------\n-- MAGIC %run ./other\n"
        "-- COMMAND ----------\n-- MAGIC %sh -e\n-- MAGIC ls"
    )
    assert [cell.source for cell in read_notebook(file)] == [
        "%%sql\n-- DBTITLE 1,x\nselect 1",
        "x = 1",
        "%run ./other",
        "%%sh -e\nls",
    ]
    jupyter = tmp_path / "n.ipynb"
    cells = [{"cell_type": "code", "source": "select 2"}]
    for language, metadata in (
        ("sql", {"application/vnd.databricks.v1+notebook": {"language": "sql"}}),
        ("sql", {"language_info": {"name": "sql"}}),
        ("scala", {"language_info": {"name": "scala"}}),
    ):
        jupyter.write_text(json.dumps({"cells": cells, "metadata": metadata}))
        if language == "sql":
            assert read_notebook(jupyter)[0].source == "%%sql\nselect 2"
        else:
            with pytest.raises(NotNotebookError, match="is in Scala, which the local workspace"):
                read_notebook(jupyter)
    for name, language in (("n.scala", "Scala"), ("n.r", "R"), ("n.R", "R")):
        (tmp_path / name).write_text("1")
        with pytest.raises(NotNotebookError, match=f"is in {language}, which"):
            read_notebook(tmp_path / name)

"""Reading notebooks: Jupyter's ``.ipynb`` and Databricks' source form, ``.py`` and ``.sql``.

Both end as the same list of cells. A cell's leading magic (``%md``, ``%sql``, ``%python`` ...) is
turned into what Jupyter can run; magics that work inside Python code (``%run``, ``%pip``) are left
as they are, since the kernel knows them (``kernel/magics.py``). The kernel reads notebooks with
this module too, for ``%run``, so it imports the standard library only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

__all__ = [
    "SOURCE_HEADER",
    "Cell",
    "NotNotebookError",
    "as_jupyter",
    "as_source",
    "read_notebook",
]

SOURCE_HEADER = "# Databricks notebook source"
_SEPARATOR = "# COMMAND ----------"
# How a comment begins in the source form of each language.
_COMMENTS = {".py": "#", ".sql": "--"}
_NOT_RUN = {"scala": "Scala", "r": "R"}
_METADATA = "application/vnd.databricks.v1+notebook"
_LEADING_MAGIC = re.compile(r"\A\s*%(md-sandbox|md|sql|python|sh|scala|r|fs)\b[ \t]*")


class NotNotebookError(ValueError):
    """The file is there, but it is no notebook that could be read."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a notebook, ready to run."""

    kind: Literal["code", "markdown"]
    source: str


def read_notebook(path: Path) -> list[Cell]:
    """Return the cells of a notebook file.

    :raises NotNotebookError: if the file cannot be read as a notebook.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise NotNotebookError(f"{path.name} is not text in UTF-8: {error}") from error
    if path.suffix == ".ipynb":
        return list(_cells_of_jupyter(path, text))
    language = path.suffix.lower().removeprefix(".")
    if language in _NOT_RUN:
        raise NotNotebookError(_not_run(path, language))
    return list(_cells_of_source(text, _COMMENTS.get(path.suffix, "#"), language))


def _not_run(path: Path, language: str) -> str:
    return (
        f"{path.name} is in {_NOT_RUN[language]}, which the local workspace does not run; "
        "it runs Python and SQL"
    )


def as_source(cells: Sequence[Cell]) -> str:
    """Return the cells in Databricks' source form."""
    chunks = [_chunk_of(cell) for cell in cells]
    return f"{SOURCE_HEADER}\n" + f"\n\n{_SEPARATOR}\n\n".join(chunks) + "\n"


def _chunk_of(cell: Cell) -> str:
    source = cell.source
    if cell.kind == "markdown":
        source = "%md\n" + source.lstrip("\n")
    if not source.startswith("%"):
        return source
    # A cell of another language, as read from either form, begins with two signs for Jupyter.
    lines = source.removeprefix("%" if source.startswith("%%") else "").splitlines()
    return "\n".join(f"# MAGIC {line}".rstrip() for line in lines)


def as_jupyter(cells: Sequence[Cell]) -> str:
    """Return the cells as a Jupyter notebook of format 4."""
    made: list[dict[str, Any]] = [
        {
            "cell_type": cell.kind,
            "metadata": {},
            "source": cell.source,
            **({"execution_count": None, "outputs": []} if cell.kind == "code" else {}),
        }
        for cell in cells
    ]
    metadata = {"language_info": {"name": "python"}}
    return json.dumps({"cells": made, "metadata": metadata, "nbformat": 4, "nbformat_minor": 4})


def _cells_of_jupyter(path: Path, text: str) -> Iterator[Cell]:
    try:
        document = json.loads(text)
        language = _language_of(document)
        cells: list[tuple[str, str]] = [
            (cell["cell_type"], "".join(cell["source"])) for cell in document["cells"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotNotebookError(
            f"{path.name} is not a Jupyter notebook of format 4: {error!r}"
        ) from error
    if language in _NOT_RUN:
        raise NotNotebookError(_not_run(path, language))
    for kind, source in cells:
        if kind == "code":
            yield _cell(source, language)
        elif kind == "markdown":
            yield Cell("markdown", source)


def _language_of(document: dict[str, Any]) -> str:
    metadata: dict[str, Any] = document.get("metadata") or {}
    named = (
        (metadata.get(_METADATA) or {}).get("language"),
        (metadata.get("language_info") or {}).get("name"),
    )
    return next((str(name).lower() for name in named if name), "python")


def _cells_of_source(text: str, comment: str, language: str) -> Iterator[Cell]:
    body = text.removeprefix("\ufeff").removeprefix(f"{comment} Databricks notebook source")
    for chunk in re.split(rf"^{comment} COMMAND -+[ \t]*$", body, flags=re.MULTILINE):
        source = chunk.strip("\n")
        if source.strip():
            yield _cell(_without_magic_comments(source, comment), language)


def _without_magic_comments(source: str, comment: str) -> str:
    magic = re.compile(rf"^{comment} MAGIC ?")
    lines = source.splitlines()
    if not any(magic.match(line) for line in lines):
        return source
    # A title line stands before the magic; Python would take it as a comment, %md would not.
    lines = [line for line in lines if not line.startswith(f"{comment} DBTITLE")]
    return "\n".join(magic.sub("", line) for line in lines).strip("\n")


def _cell(source: str, language: str) -> Cell:
    match = _LEADING_MAGIC.match(source)
    if match is None:
        if language == "sql" and not source.lstrip().startswith("%"):
            return Cell("code", f"%%sql\n{source}")
        return Cell("code", source)
    name, rest = match[1], source[match.end() :]
    if name in {"md", "md-sandbox"}:
        return Cell("markdown", rest)
    if name == "python":
        return Cell("code", rest.lstrip("\n"))
    # As a cell magic it takes the whole cell, several lines too.
    first, _, others = rest.partition("\n")
    options = ""
    if name == "sh" and first.split()[:1] == ["-e"]:
        options, first = " -e", first.split("-e", 1)[1].strip()
    body = f"{first}\n{others}" if first.strip() else others
    return Cell("code", f"%%{name}{options}\n{body}")

"""Reading notebooks: Jupyter's ``.ipynb`` and Databricks' source form ``.py``.

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
_CELL_SEPARATOR = re.compile(r"^# COMMAND -+[ \t]*$", re.MULTILINE)
_MAGIC_LINE = re.compile(r"^# MAGIC ?")
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
    return list(_cells_of_jupyter(path, text) if path.suffix == ".ipynb" else _cells_of_py(text))


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
        cells: list[dict[str, Any]] = document["cells"]
        for cell in cells:
            source = cell["source"]
            source = source if isinstance(source, str) else "".join(source)
            if cell["cell_type"] == "code":
                yield _cell(source)
            elif cell["cell_type"] == "markdown":
                yield Cell("markdown", source)
    except (ValueError, KeyError, TypeError) as error:
        raise NotNotebookError(
            f"{path.name} is not a Jupyter notebook of format 4: {error!r}"
        ) from error


def _cells_of_py(text: str) -> Iterator[Cell]:
    body = text.removeprefix("\ufeff").removeprefix(SOURCE_HEADER)
    for chunk in _CELL_SEPARATOR.split(body):
        source = chunk.strip("\n")
        if source.strip():
            yield _cell(_without_magic_comments(source))


def _without_magic_comments(source: str) -> str:
    lines = source.splitlines()
    if not any(_MAGIC_LINE.match(line) for line in lines):
        return source
    # A title line stands before the magic; Python would take it as a comment, %md would not.
    lines = [line for line in lines if not line.startswith("# DBTITLE")]
    return "\n".join(_MAGIC_LINE.sub("", line) for line in lines).strip("\n")


def _cell(source: str) -> Cell:
    match = _LEADING_MAGIC.match(source)
    if match is None:
        return Cell("code", source)
    name, rest = match[1], source[match.end() :]
    if name in {"md", "md-sandbox"}:
        return Cell("markdown", rest)
    if name == "python":
        return Cell("code", rest.lstrip("\n"))
    # As a cell magic it takes the whole cell, several lines too.
    first, _, others = rest.partition("\n")
    return Cell("code", f"%%{name}\n{first}\n{others}" if first.strip() else f"%%{name}\n{others}")

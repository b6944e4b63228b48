"""The cells of a notebook while it runs: source and text output, without HTML."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["NotebookChanges"]

_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# The executed notebook has all of it, once the run has ended.
_SHOWN_CHARS = 20_000


class NotebookChanges:
    """Tells which cells have changed.

    :param notebook: the notebook (format 4), which is executed meanwhile.
    """

    def __init__(self, notebook: Mapping[str, Any]) -> None:
        self._notebook = notebook
        self._sent: dict[int, tuple[Any, ...]] = {}

    def changed_cells(self) -> list[dict[str, Any]]:
        """Return the cells that are not as they were when this was called before."""
        cells = self._notebook["cells"]
        started = [index for index, cell in enumerate(cells) if cell.get("execution_count")]
        running = started[-1] if started else -1
        changed = []
        for index, cell in enumerate(cells):
            shape = (index == running, *map(_size_of, cell.get("outputs") or ()))
            if self._sent.get(index) == shape:
                continue
            self._sent[index] = shape
            changed.append(
                {
                    "index": index,
                    "kind": cell["cell_type"],
                    "source": cell["source"][:_SHOWN_CHARS],
                    "output": _output_of(cell),
                    "is_running": index == running,
                }
            )
        return changed


def _size_of(output: Mapping[str, Any]) -> tuple[str, int]:
    return output["output_type"], len(output.get("text", ""))


def _output_of(cell: Mapping[str, Any]) -> str:
    """Return the last part of a cell's outputs as text."""
    parts: list[str] = []
    length = 0
    for output in reversed(cell.get("outputs") or ()):
        parts.append(_text_of(output)[-_SHOWN_CHARS:])
        length += len(parts[-1])
        if length >= _SHOWN_CHARS:
            break
    return "".join(reversed(parts))[-_SHOWN_CHARS:]


def _text_of(output: Mapping[str, Any]) -> str:
    match output["output_type"]:
        case "stream":
            return str(output["text"])
        case "error":
            return _COLOURS.sub("", "\n".join(output["traceback"])) + "\n"
    data = output.get("data") or {}
    if "text/html" in data:
        return "(HTML: shown when the run has ended)\n"
    return str(data.get("text/plain", "")) + "\n"

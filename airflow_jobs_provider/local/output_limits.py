"""Limits of a run's output (reference: "NotebookTask", "NotebookOutput", "Runs get output").

The kernel of a notebook uses this module too, so it imports the standard library only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = [
    "MAX_CELL_OUTPUT_BYTES",
    "MAX_ERROR_CHARS",
    "MAX_NOTEBOOK_OUTPUT_BYTES",
    "MAX_RESULT_BYTES",
    "MAX_TRACE_CHARS",
    "OutputMeter",
    "truncate",
    "truncate_error",
]

MAX_CELL_OUTPUT_BYTES = 8 * 1024 * 1024
MAX_NOTEBOOK_OUTPUT_BYTES = 20 * 1024 * 1024
MAX_RESULT_BYTES = 5 * 1024 * 1024
MAX_ERROR_CHARS = 100_000
MAX_TRACE_CHARS = 1_000_000
_TOO_LARGE = "The output of the notebook is too large. Cause: "
# What a number, a null or the punctuation of a container takes, roughly.
_SCALAR_BYTES = 8
# Jupyter's messages that carry what a cell gives out.
_OUTPUT_MESSAGES = frozenset(
    {
        "comm_close",
        "comm_msg",
        "comm_open",
        "display_data",
        "error",
        "execute_result",
        "stream",
        "update_display_data",
    }
)


class OutputMeter:
    """Counts what the cells of a notebook give out, in bytes.

    :ivar excess: the service's words once a limit was passed; empty before.
    """

    def __init__(self) -> None:
        self.excess = ""
        self._cell_bytes = 0
        self._notebook_bytes = 0
        self._clear_is_pending = False

    def begin_cell(self) -> None:
        """Count for the next cell from now on."""
        self._cell_bytes = 0
        self._clear_is_pending = False

    def add(self, kind: str, content: Mapping[str, Any], buffers: Iterable[Any] = ()) -> None:
        """Count one message of Jupyter's protocol.

        :param kind: the message's type; one that carries no output is not counted.
        :param content: its content, before it is written as JSON.
        :param buffers: the binary data that goes with it.
        """
        if kind == "clear_output":
            if content.get("wait"):
                self._clear_is_pending = True
            else:
                self._clear_cell()
        elif kind in _OUTPUT_MESSAGES:
            if self._clear_is_pending:
                self._clear_cell()
            self._count(_size_of(content) + sum(memoryview(one).nbytes for one in buffers))

    def add_text(self, text: str) -> None:
        """Count what a cell writes to its standard output or error."""
        self.add("stream", {"text": text})

    def _count(self, size: int) -> None:
        self._cell_bytes += size
        self._notebook_bytes += size
        if self.excess:
            return
        if self._cell_bytes > MAX_CELL_OUTPUT_BYTES:
            self.excess = (
                f"{_TOO_LARGE}the output of a cell (of {self._cell_bytes} bytes) exceeds limit "
                f"of {MAX_CELL_OUTPUT_BYTES} bytes"
            )
        elif self._notebook_bytes > MAX_NOTEBOOK_OUTPUT_BYTES:
            self.excess = (
                f"{_TOO_LARGE}rpc response (of {self._notebook_bytes} bytes) exceeds limit "
                f"of {MAX_NOTEBOOK_OUTPUT_BYTES} bytes"
            )

    def _clear_cell(self) -> None:
        # What a cell has cleared is not kept, so it counts neither for the cell nor in all.
        self._notebook_bytes -= self._cell_bytes
        self.begin_cell()


def truncate(text: str, max_chars: int) -> tuple[str, bool]:
    """Return the first characters of a text, and whether there are more; the text then says so."""
    if len(text) <= max_chars:
        return text, False
    return f"{text[:max_chars]}... (truncated: {len(text)} characters)", True


def truncate_error(content: dict[str, Any]) -> dict[str, Any]:
    """Return a message about an error with texts of bounded size.

    :param content: what Jupyter's ``error`` and ``execute_reply`` have, with ``ename``, ``evalue``
        and ``traceback``; the same, with ``truncated`` true, is returned where something was cut.
    """
    name, name_is_cut = truncate(content.get("ename", ""), MAX_ERROR_CHARS)
    text, text_is_cut = truncate(content.get("evalue", ""), MAX_ERROR_CHARS)
    trace: list[str] = []
    trace_is_cut = False
    remaining = MAX_TRACE_CHARS
    for part in content.get("traceback", []):
        if remaining <= 0:
            trace_is_cut = True
            break
        kept, is_cut = truncate(part, remaining)
        trace.append(kept)
        trace_is_cut = trace_is_cut or is_cut
        remaining -= len(part)
    if not (name_is_cut or text_is_cut or trace_is_cut):
        return content
    return {**content, "ename": name, "evalue": text, "traceback": trace, "truncated": True}


def _size_of(content: Any) -> int:
    size = 0
    remaining = [content]
    while remaining:
        value = remaining.pop()
        if isinstance(value, str):
            size += len(value) if value.isascii() else len(value.encode(errors="surrogatepass"))
        elif isinstance(value, bytes):
            size += len(value)
        elif isinstance(value, Mapping):
            size += _SCALAR_BYTES
            remaining += value.keys()
            remaining += value.values()
        elif isinstance(value, list | tuple):
            size += _SCALAR_BYTES
            remaining += value
        else:
            size += _SCALAR_BYTES
    return size

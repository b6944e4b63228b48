"""The limits of a notebook's output, kept where the output is made (reference: "NotebookTask")."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from airflow_jobs_provider.local.kernel.context import KernelContext
from airflow_jobs_provider.local.output_limits import OutputMeter, truncate_error

__all__ = ["RedactedSend", "limit_output"]

_WITH_ERROR = ("error", "execute_reply")
_WITH_OUTPUT = (
    *_WITH_ERROR,
    *("stream", "display_data", "execute_result", "update_display_data"),
    *("comm_open", "comm_msg"),  # widgets
    "clear_output",
)


def limit_output(shell: Any, session: Any, context: KernelContext) -> None:
    """Have the kernel end itself when a notebook gives out more than Databricks lets it.

    A loop that prints makes hundreds of megabytes in the second it takes to be noticed from
    outside, and the workspace would have to read them all. Each message is looked at before it is
    written as JSON. An error's text and traceback are cut off instead.

    :param shell: IPython's shell.
    :param session: the kernel's session, which sends all messages.
    """
    meter = OutputMeter()
    kernel_pid = os.getpid()

    def begin_cell(*_: object) -> None:
        meter.begin_cell()

    def end_if_too_large() -> None:
        if not meter.excess:
            return
        context.leave_excess(meter.excess)
        if os.getpid() != kernel_pid:
            # A process that the notebook has forked prints through the kernel.
            os.kill(kernel_pid, signal.SIGKILL)
        os._exit(1)

    def limited(write: Callable[[str], int]) -> Callable[[str], int]:
        def limited_write(text: str) -> int:
            if isinstance(text, str):  # anything else is the stream's to refuse
                meter.add_text(text)
                end_if_too_large()
            return write(text)

        return limited_write

    send = session.send

    def limited_send(stream: Any, message: Any, content: Any = None, *args: Any, **kw: Any) -> Any:
        is_whole = isinstance(message, dict)
        kind = message["header"]["msg_type"] if is_whole else message
        given = (message["content"] if is_whole else content) or {}
        if kind in _WITH_ERROR and "traceback" in given:
            given = truncate_error(given)
            if is_whole:
                message = {**message, "content": given}
            else:
                content = given
        if kind != "stream":  # counted when it was written
            buffers = kw.get("buffers") or (message.get("buffers") if is_whole else None)
            meter.add(kind, given, buffers or ())
            end_if_too_large()
        return send(stream, message, content, *args, **kw)

    shell.events.register("pre_run_cell", begin_cell)
    session.send = RedactedSend(limited_send, context, kernel_pid)
    for output in (sys.stdout, sys.stderr):
        output.write = limited(output.write)  # type: ignore[method-assign]


class RedactedSend:
    """A session's ``send`` with the secrets redacted that the notebook has read.

    What a cell prints is sent in pieces. The end of a piece that may be the beginning of a secret
    is sent with the next piece, and at the latest before any other output and the end of the cell.
    """

    def __init__(self, send: Callable[..., Any], context: KernelContext, kernel_pid: int) -> None:
        self._send = send
        self._context = context
        self._kernel_pid = kernel_pid
        self._lock = threading.RLock()
        # By the stream's name: where it goes, the parent message, the topic, and the kept text.
        self._kept: dict[str, tuple[Any, Any, Any, str]] = {}
        if hasattr(os, "register_at_fork"):
            # Another thread may hold the lock at that moment; the parent sends what it has kept.
            os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._kept = {}

    def __call__(
        self, stream: Any, message: Any, content: Any = None, *args: Any, **kw: Any
    ) -> Any:
        """Send a message, in the two forms in which the session takes it."""
        is_whole = isinstance(message, dict)
        kind = message["header"]["msg_type"] if is_whole else message
        if kind not in _WITH_OUTPUT or not (self._context.redacted or self._kept):
            return self._send(stream, message, content, *args, **kw)
        with self._lock:
            if kind == "stream" and is_whole:
                return self._send_text(stream, message, **kw)
            self._send_kept()
            if is_whole:
                message = {**message, "content": self._context.redact(message["content"])}
            else:
                content = self._context.redact(content)
            return self._send(stream, message, content, *args, **kw)

    def _send_text(self, stream: Any, message: dict[str, Any], **kw: Any) -> Any:
        given = message["content"]
        name = given["name"]
        text = self._kept.pop(name, ("", "", "", ""))[-1] + given["text"]
        # A process that the notebook has forked may end without another message.
        is_forked = os.getpid() != self._kernel_pid
        complete = len(text) if is_forked else self._context.complete_chars(text)
        if complete < len(text):
            parent = message["parent_header"]
            self._kept[name] = (stream, parent, kw.get("ident"), text[complete:])
        if complete == 0:
            return None
        shown = {**given, "text": self._context.redact(text[:complete])}
        return self._send(stream, {**message, "content": shown}, **kw)

    def _send_kept(self) -> None:
        for name, (stream, parent, ident, text) in self._kept.items():
            content = {"name": name, "text": self._context.redact(text)}
            self._send(stream, "stream", content, parent=parent, ident=ident)
        self._kept.clear()

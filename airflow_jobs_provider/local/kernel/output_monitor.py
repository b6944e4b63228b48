"""The limits of a notebook's output, kept where the output is made (reference: "NotebookTask")."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from airflow_jobs_provider.local.kernel.context import KernelContext
from airflow_jobs_provider.local.output_limits import OutputMeter, truncate_error

__all__ = ["limit_output"]

_WITH_ERROR = ("error", "execute_reply")
_WITH_OUTPUT = (
    *_WITH_ERROR,
    *("stream", "display_data", "execute_result", "update_display_data"),
    *("comm_open", "comm_msg"),  # widgets
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
        if context.redacted and kind in _WITH_OUTPUT:
            given = context.redact(given)
            if is_whole:
                message = {**message, "content": given}
            else:
                content = given
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
    session.send = limited_send
    for output in (sys.stdout, sys.stderr):
        output.write = limited(output.write)  # type: ignore[method-assign]

"""Executed notebooks as HTML, made by a process of its own.

What makes the HTML takes 25 MB, more than the rest of the pages. So it is loaded in a process that
ends, and the HTML is kept beside the notebook.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from contextlib import suppress
from pathlib import Path

from airflow_jobs_provider.local.runners.processes import (
    environment_of_runs,
    start_process,
    stop_process,
)

__all__ = ["ExportError", "NotebookExporter"]

_log = logging.getLogger(__name__)
_PROGRAM = str(Path(__file__).with_name("export_program.py"))
# A notebook of 20 MB takes half a minute.
_MAX_SECONDS = 300
_LOGGED_CHARS = 4000
_SHOWN_CHARS = 1000


class ExportError(Exception):
    """A notebook could not be exported."""


class NotebookExporter:
    """Exports executed notebooks, one at a time.

    :param marker: the marker of its processes.
    """

    def __init__(self, marker: str) -> None:
        self._marker = marker
        self._turn = asyncio.Lock()

    async def export(self, notebook: Path) -> Path:
        """Return the file with the HTML of an executed notebook. The first time takes a second.

        :raises ExportError: the notebook cannot be exported.
        """
        html = notebook.with_suffix(".html")
        async with self._turn:
            if not _is_made_of(html, notebook):
                await self._make(notebook, html)
        return html

    async def _make(self, notebook: Path, html: Path) -> None:
        # What a killed workspace leaves of that name is removed at the next start.
        log = html.with_suffix(".export.partial")
        process = await start_process(
            [sys.executable, "-P", _PROGRAM, str(notebook), str(html)],
            cwd=html.parent,
            env=environment_of_runs(self._marker),
            log=log,
        )
        try:
            async with asyncio.timeout(_MAX_SECONDS):
                code = await process.wait()
            if code != 0:
                said = log.read_text(encoding="utf-8", errors="replace").rstrip()
                _log.error("%s was not exported (%s): %s", notebook, code, said[-_LOGGED_CHARS:])
                reason = said.rpartition("\n")[2][-_SHOWN_CHARS:] or f"exit code {code}"
                raise ExportError(f"{notebook.name} was not exported: {reason}")
        except TimeoutError:
            raise ExportError(f"{notebook.name} took over {_MAX_SECONDS} s to export") from None
        finally:
            await stop_process(process, self._marker)
            with suppress(OSError):
                log.unlink()


def _is_made_of(html: Path, notebook: Path) -> bool:
    """Return whether the HTML is that of the notebook as it is now: it has the same time."""
    try:
        return os.stat(html).st_mtime_ns == os.stat(notebook).st_mtime_ns  # noqa: PTH116  (shorter)
    except FileNotFoundError:
        return False

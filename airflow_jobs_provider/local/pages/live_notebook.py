"""What a page shows of a notebook while it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airflow_jobs_provider.local.engine.runner import LiveNotebook

__all__ = ["NotebookFollower"]


class NotebookFollower:
    """Tells which cells have changed.

    :param notebook: returns the cells of the notebook as they are now; None while there is none.
    """

    def __init__(self, notebook: Callable[[], LiveNotebook | None]) -> None:
        self._notebook = notebook
        self._seen = 0

    def changed_cells(self) -> list[dict[str, Any]]:
        """Return the cells that have changed since this was called before."""
        notebook = self._notebook()
        if notebook is None:
            return []
        seen, self._seen = self._seen, notebook.version
        return notebook.changed_since(seen)

"""Executed notebooks as HTML."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["export_notebook"]


def export_notebook(file: Path) -> str:
    """Return an executed notebook as one page of HTML. Takes a second; call it in a thread."""
    exporters: Any = import_module("nbconvert.exporters")
    html, _ = exporters.HTMLExporter().from_filename(str(file))
    return str(html)

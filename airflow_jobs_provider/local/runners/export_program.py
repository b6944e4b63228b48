"""Writes an executed notebook as one page of HTML: ``python export_program.py NOTEBOOK HTML``.

The HTML gets the time of the notebook, so that it is told when the notebook has changed since.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any


def main(notebook: Path, html: Path) -> None:
    """Write the file in one step, so that no part of it is ever served."""
    made_from = notebook.stat()
    exporters: Any = import_module("nbconvert.exporters")
    text, _ = exporters.HTMLExporter().from_filename(str(notebook))
    partial = html.with_suffix(".html.partial")
    # A notebook may print half a surrogate pair, which UTF-8 cannot hold.
    partial.write_bytes(str(text).encode("utf-8", "replace"))
    os.utime(partial, ns=(made_from.st_atime_ns, made_from.st_mtime_ns))
    partial.replace(html)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

"""Give the tables of docs/migrating.md to the migrate command, which reports them.

    python -m scripts.migration_differences

A test fails if the page has other rows than the command's data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "migrating.md"
DATA = ROOT / "airflow_jobs_provider" / "migrate" / "differences.json"
SECTION = "\n## What differs\n"


def data(page: str) -> str:
    """Return the rows of the section "What differs" for which a user has to do something."""
    _, _, section = page.partition(SECTION)
    section, _, _ = section.partition("\n## ")
    return json.dumps(list(_rows(section)), indent=2) + "\n"


def _rows(section: str) -> Iterator[dict[str, object]]:
    for line in section.splitlines():
        if line.startswith("| `"):
            names, *cells = (_plain(cell) for cell in line.strip("| ").split(" | "))
            found = re.findall(r"`([^`]+)`", line.split(" | ")[0])
            assert names, line
            if cells[-1].startswith("nothing"):
                continue
            if len(cells) == 1:
                cells = [f"{cells[0]}: stays with the official provider; nothing to do"]
            yield {"names": found, "text": _sentences([cells[0], *cells[2:]])}


def _plain(cell: str) -> str:
    """Return a cell without the links to other pages."""
    text = re.sub(r" ?\(\[[^]]*\]\([^)]*\)\)", "", cell)
    return re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text).strip()


def _sentences(cells: list[str]) -> str:
    first, *others = (cell for cell in cells if cell)
    return ". ".join([first, *(cell[0].upper() + cell[1:] for cell in others)])


if __name__ == "__main__":
    DATA.write_text(data(PAGE.read_text()))

"""Write the tables of docs/migrating.md that are data of the migrate command.

    python -m scripts.migration_tables

A test fails if the page has other tables than this writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from airflow_jobs_provider.migrate.differences import DIFFERENCES, Difference
from airflow_jobs_provider.migrate.names import MODULES_THAT_STAY, MOVED, NAMES_THAT_STAY, OFFICIAL

PAGE = Path(__file__).parents[1] / "docs" / "migrating.md"
_BLOCK = re.compile(r"(<!-- table: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(row)} |\n"


def _code(text: str) -> str:
    return f"`{text}`"


def _short(module: str) -> str:
    return module.removeprefix(f"{OFFICIAL}.")


def _moves() -> Iterator[Sequence[str]]:
    for module, names in MOVED.items():
        for name, target in sorted(names.items()):
            yield _code(_short(module)), _code(name), _code(target)


def _stays() -> Iterator[Sequence[str]]:
    for module, reason in MODULES_THAT_STAY.items():
        yield _code(_short(module)), "all", reason
    for (module, name), reason in NAMES_THAT_STAY.items():
        yield _code(_short(module)), _code(name), reason


def _classes(difference: Difference) -> str:
    return ", ".join(map(_code, difference.names))


def _behaviour() -> Iterator[Sequence[str]]:
    for one in DIFFERENCES:
        if one.argument is None:
            yield _classes(one), one.how, one.why, one.action


def _arguments() -> Iterator[Sequence[str]]:
    for one in DIFFERENCES:
        if one.argument is not None:
            yield _code(one.argument), _classes(one), one.how, one.why, one.action


_REASONS = ("What differs", "Why", "What to do")
_TABLES = {
    "moves": (("Official module", "Name", "Module here"), _moves),
    "stays": (("Official module", "Name", "Reason, or what to use here"), _stays),
    "behaviour": (("Class", *_REASONS), _behaviour),
    "arguments": (("Argument", "Class", *_REASONS), _arguments),
}


def page(text: str) -> str:
    """Return the page with these tables."""

    def block(match: re.Match[str]) -> str:
        head, rows = _TABLES[match[2]]
        return match[1] + "".join(_table(head, rows())) + match[4]

    return _BLOCK.sub(block, text)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))

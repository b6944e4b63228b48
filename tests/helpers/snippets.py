"""The Python code that README.md and docs/ show, and how each piece of it is run by the tests.

A comment right before a piece, which readers do not see, tells how:

* no comment: it is a whole program, run as it stands;
* ``<!-- in a DAG: ... -->``: it is a part of a DAG; what follows the colon is run before it, within
  the same DAG;
* ``<!-- run by: ... -->``: a test of its own runs it, the one that is named;
* ``<!-- not run: ... -->``: it cannot be run, for the reason that is told.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from scripts.airflow_env import ROOT

__all__ = ["IN_A_DAG", "NOT_RUN", "PROGRAM", "RUN_BY", "SNIPPETS", "Snippet"]

PROGRAM, IN_A_DAG, RUN_BY, NOT_RUN = "", "in a DAG", "run by", "not run"
_SNIPPET = re.compile(
    r"(?:<!-- (?P<how>in a DAG|run by|not run):(?P<note>(?:(?!-->).)*)-->\n+)?"
    r"^```python[^\n]*\n(?P<code>.*?)^```",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Snippet:
    """A piece of code in a document.

    :ivar place: document and line.
    :ivar code: the code that is shown.
    :ivar how: how it is run.
    :ivar note: what the comment says beside: code to run before, the test, or the reason.
    """

    place: str
    code: str
    how: str
    note: str


def _snippets() -> list[Snippet]:
    found = []
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        text = path.read_text(encoding="utf-8")
        for match in _SNIPPET.finditer(text):
            line = text.count("\n", 0, match.start("code"))
            place = f"{path.relative_to(ROOT)}:{line}"
            how, note = match["how"] or PROGRAM, (match["note"] or "").strip()
            found.append(Snippet(place, match["code"], how, note))
    return found


SNIPPETS = _snippets()

"""What the user is shown: a diff of each file that changes, and what was found in it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import PurePath

from airflow_jobs_provider.migrate.findings import Finding

__all__ = ["report", "unified_diff"]


def unified_diff(path: PurePath, before: bytes, after: bytes) -> bytes:
    """Return a unified diff that ``git apply`` and ``patch -p1`` take.

    :param path: the path that the diff names.
    :param before: the file's content.
    :param after: what it becomes.
    """
    name = path.as_posix().removeprefix("/").encode()
    lines = difflib.diff_bytes(
        difflib.unified_diff,
        BytesIO(before).readlines(),
        BytesIO(after).readlines(),
        b"a/" + name,
        b"b/" + name,
    )
    return b"".join(
        line if line.endswith(b"\n") else line + b"\n\\ No newline at end of file\n"
        for line in lines
    )


def report(path: PurePath, findings: Iterable[Finding]) -> Iterator[str]:
    """Return the lines of the report about a file; findings of the same text share a line."""
    lines: dict[tuple[str, str], list[int]] = {}
    for finding in findings:
        lines.setdefault((finding.kind.value, finding.text), []).append(finding.line)
    if lines:
        yield str(path)
    for (kind, text), numbers in lines.items():
        where = ", ".join(str(number) for number in numbers if number)
        yield f"  {kind:8}{f'line {where}: ' if where else ''}{text}"

"""``dbutils.fs`` and the redaction of secrets, without a kernel."""

from __future__ import annotations

import base64
import html
import json
from pathlib import Path
from typing import Any

import pytest

from airflow_jobs_provider.local.kernel.context import KernelContext
from airflow_jobs_provider.local.kernel.files import Files


@pytest.fixture
def context(tmp_path: Path) -> KernelContext:
    """The context of a run in a workspace with a state, and with links that lead elsewhere."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root / ".workspace", root / "data" / "below", outside):
        folder.mkdir(parents=True)
    (root / ".workspace" / "workspace.sqlite").touch()
    (root / "data" / "file").write_text("text")
    (outside / "file").touch()
    (root / "data" / "state").symlink_to(root / ".workspace")
    (root / "data" / "outside").symlink_to(outside)
    (root / "data" / "nothing").symlink_to(root / "none")
    return KernelContext(root, root, [], root, {}, tmp_path / "exit", "", "secret")


def names(folder: Path) -> set[str]:
    """Return the paths of all that is in a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_the_state_is_not_copied(context: KernelContext) -> None:
    """Neither is what a link out of the root leads to."""
    (context.root / "data" / "nothing").unlink()
    Files(context).cp("/data", "/copy", recurse=True)
    assert names(context.root / "copy") == {"below", "file"}
    with pytest.raises(ValueError, match="cannot be copied into itself"):
        Files(context).cp("/", "/copy", recurse=True)


def test_a_folder_is_not_moved_into_itself(context: KernelContext) -> None:
    """It stays as it is."""
    with pytest.raises(ValueError, match="cannot be copied into itself"):
        Files(context).mv("/data", "/data/below/data", recurse=True)
    assert (context.root / "data" / "file").read_text() == "text"


def test_a_link_to_nothing_is_not_listed(context: KernelContext) -> None:
    """The other entries are."""
    listed = [one.name for one in Files(context).ls("/data")]
    assert listed == ["below/", "file", "outside/", "state/"]


def test_redaction(context: KernelContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a secret that begins with another one, of one with several lines, and in HTML."""
    secrets = {"short": "abc", "long": "abcdef", "key": "line 1\nline 2\n", "html": "<'&'>"}

    def answer(_context: KernelContext, _path: str, body: dict[str, str], _what: str) -> Any:
        return {"value": base64.b64encode(secrets[body["key"]].encode()).decode()}

    monkeypatch.setattr(KernelContext, "_ask", answer)
    assert context.redact("abcdef") == "abcdef"
    for key in secrets:
        context.secret_value("scope", key)
    assert context.redact({"text": ["abcdef", "abc"]}) == {"text": ["[REDACTED]", "[REDACTED]"]}
    key = secrets["key"]
    assert "line" not in context.redact(f"{key!r} {json.dumps(key)} {key.strip()}")
    page = f"<td>{html.escape(secrets['html'])}</td> {html.escape(secrets['html'], quote=False)}"
    assert context.redact(page) == "<td>[REDACTED]</td> [REDACTED]"

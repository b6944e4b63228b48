"""The start page of ``make airflow``."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from scripts.start_page import can_open_browser, write_start_page


def test_start_page(tmp_path: Path) -> None:
    """It leads to both, is escaped, and only this user can read it."""
    file = tmp_path / "index.html"
    file.write_text("an older one")
    file.chmod(0o644)
    write_start_page(
        file,
        airflow="http://127.0.0.1:8080",
        user="admin",
        password="<p&w>",
        pages="http://127.0.0.1:8421/#key=abc",
        root=tmp_path,
        dags={"demo": "a & b"},
    )
    page = file.read_text()
    assert '<a href="http://127.0.0.1:8080">Airflow</a>' in page
    assert '<a href="http://127.0.0.1:8421/#key=abc">Local workspace</a>' in page
    assert '<a href="http://127.0.0.1:8080/dags/demo">demo</a>: a &amp; b' in page
    assert "&lt;p&amp;w&gt;" in page
    assert "<p&w>" not in page
    assert "<script" not in page
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("platform", "environment", "is_terminal", "can_open"),
    [
        ("linux", {"DISPLAY": ":0"}, True, True),
        ("linux", {"WAYLAND_DISPLAY": "wayland-0"}, True, True),
        ("darwin", {}, True, True),
        ("linux", {}, True, False),
        ("linux", {"DISPLAY": ":0"}, False, False),
        ("linux", {"DISPLAY": ":10", "SSH_CONNECTION": "::1"}, True, False),
    ],
)
def test_a_browser_is_opened_on_a_desktop_only(
    platform: str, environment: dict[str, str], is_terminal: bool, can_open: bool
) -> None:
    """Neither in a test or a container, nor on a machine that the user is logged in to."""
    assert can_open_browser(platform, environment, is_terminal=is_terminal) is can_open

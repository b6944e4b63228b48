"""Text from the service in logs and messages."""

from __future__ import annotations

import pytest

from airflow_jobs_provider.api.text import visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("In run", "In run"),
        ("größer 東京 🎉", "größer 東京 🎉"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b[31mred\x00", r"\x1b[31mred\x00"),
        ("\u202eright to left\u2028", r"\u202eright to left\u2028"),
        ("\udc80", r"\udc80"),
        (7, "7"),
    ],
)
def test_control_characters_are_made_visible(text: object, shown: str) -> None:
    """Text stays on one line and is printable; letters of every script stay as they are."""
    assert visible(text) == shown
    assert shown.isprintable()


def test_long_text_is_cut() -> None:
    """The limit counts the characters of the text; three dots tell that there was more."""
    assert visible("x" * 500, 500) == "x" * 500
    assert visible("x" * 501, 500) == "x" * 500 + "..."
    assert visible("\n" * 3, 2) == r"\n\n..."

"""Text from the service in logs and messages."""

from __future__ import annotations

import pytest

from airflow_jobs_provider.api.text import printable, printable_lines, safe_url


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
    assert printable(text) == shown
    assert shown.isprintable()


def test_long_text_is_cut() -> None:
    """The limit counts the characters of the text; three dots tell that there was more."""
    assert printable("x" * 500, 500) == "x" * 500
    assert printable("x" * 501, 500) == "x" * 500 + "..."
    assert printable("\n" * 3, 2) == r"\n\n..."


def test_a_trace_is_no_part_of_the_log() -> None:
    """Each line is indented and shows its control characters; colors are left out."""
    trace = "\x1b[0;31mValueError\x1b[0m: a\r\n2026-01-01 ERROR forged\x07\n  at x"
    assert printable_lines(trace) == (
        "    ValueError: a\n    2026-01-01 ERROR forged\\x07\n      at x"
    )


@pytest.mark.parametrize(
    "text", ["https://w.net/#job/1/run/2", "http://127.0.0.1:8080/", "https://w.net/?o=1#job/1"]
)
def test_an_address_of_the_web(text: str) -> None:
    """The schemes http and https, as the service gives them."""
    assert safe_url(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "javascript:alert(1)",
        "data:text/html,x",
        "file:///etc/passwd",
        "//w.net",
        "w.net",
        "",
        "https://",
        "http://[::1",
        "https://w.net/a\nb",
        "https://w.net/ a",
        " https://w.net",
        "https://w.net/\u202eab",
    ],
)
def test_no_address_of_the_web(text: str) -> None:
    """Nothing that runs in a browser, and nothing that breaks a line of the log."""
    assert safe_url(text) is None

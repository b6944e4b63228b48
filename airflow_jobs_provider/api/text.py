"""Text from the service, made safe for a log line or an error message."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

__all__ = ["printable", "printable_lines", "safe_url"]

_COLORS = re.compile(r"\x1b\[[0-9;]*m")


def printable(text: object, limit: int | None = None) -> str:
    r"""Return text on one line, with control characters and line breaks as escapes such as ``\n``.

    :param text: the text; anything else is converted with ``str``.
    :param limit: characters of the text to keep, followed by ``...`` where more were given; None
        (default) for all.
    """
    shown = str(text)
    is_cut = limit is not None and len(shown) > limit
    shown = shown[:limit] if is_cut else shown
    if not shown.isprintable():
        shown = "".join(
            char if char.isprintable() else char.encode("unicode_escape").decode() for char in shown
        )
    return f"{shown}..." if is_cut else shown


def printable_lines(text: str) -> str:
    """Return text of several lines, such as a trace, indented, with control characters as escapes.

    No line of it can be taken for a line of the log. Colors, as notebooks' traces have them, are
    left out.

    :param text: the text.
    """
    plain = _COLORS.sub("", text)
    return "\n".join(f"    {printable(line)}" for line in re.split(r"\r\n|\n", plain))


def safe_url(text: str) -> str | None:
    """Return text if it is an address that a browser may be sent to, else None.

    :param text: what the service gave as an address; only http and https are good.
    """
    try:
        parts = urlsplit(text)
    except ValueError:
        return None
    is_good = parts.scheme in ("http", "https") and bool(parts.hostname)
    return text if is_good and text.isprintable() and " " not in text else None

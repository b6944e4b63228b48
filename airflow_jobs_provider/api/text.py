"""Text: of the service, made safe for log lines, error messages and links; and of settings."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

__all__ = [
    "duration",
    "error_text",
    "is_lineage_credential",
    "is_true",
    "printable",
    "printable_lines",
    "safe_url",
]

# An API key or a header of a transport, also of one of several; the kind of authentication is none.
# Patterns are compiled at first use: most tasks do not need them.
_LINEAGE_CREDENTIAL = r"spark\.openlineage\.transport\.(.*\.)?(auth\.(?!type$)|headers\.)"
_COLORS = r"\x1b\[[0-9;]*m"


def printable(text: object, limit: int | None = None) -> str:
    r"""Return text on one line, with control characters and line breaks as escapes such as ``\n``.

    :param text: the text; any other value is converted with ``str``.
    :param limit: longest text in characters, after which ``...`` stands; None (default) for all.
    """
    shown = str(text)
    is_cut = limit is not None and len(shown) > limit
    shown = shown[:limit] if is_cut else shown
    if not shown.isprintable():
        shown = "".join(
            char if char.isprintable() else char.encode("unicode_escape").decode() for char in shown
        )
    return f"{shown}..." if is_cut else shown


def duration(seconds: float) -> str:
    """Return a duration as text: 4 s, 3 min 20 s, 2 h 5 min.

    :param seconds: the duration.
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def error_text(error: BaseException) -> str:
    """Return the message of an error; the name of its type if it has none.

    :param error: the error.
    """
    return str(error) or type(error).__name__


def printable_lines(text: str) -> str:
    """Return text of several lines, such as a traceback, with control characters as escapes.

    Lines are indented, so that none can pass for a line of the log. Colors are removed.

    :param text: the text.
    """
    plain = re.sub(_COLORS, "", text)
    return "\n".join(f"    {printable(line)}" for line in re.split(r"\r\n|\n", plain))


def safe_url(text: str) -> str | None:
    """Return a URL if it is safe as a link; else None.

    :param text: the URL; only http and https are safe.
    """
    try:
        parts = urlsplit(text)
    except ValueError:
        return None
    is_good = parts.scheme in ("http", "https") and bool(parts.hostname)
    return text if is_good and text.isprintable() and " " not in text else None


def is_true(value: object) -> bool:
    """Return whether a setting is true; a form may store a boolean as text.

    :param value: the setting.
    """
    if isinstance(value, str):
        return value.strip().lower() in ("true", "1", "yes", "on")
    return bool(value)


def is_lineage_credential(name: str) -> bool:
    """Whether a Spark property authenticates to the receiver of OpenLineage's events.

    :param name: name of the property in ``spark_conf``.
    """
    return re.match(_LINEAGE_CREDENTIAL, name) is not None

"""Text from the service, made safe for a log line or an error message."""

from __future__ import annotations

__all__ = ["visible"]


def visible(text: object, limit: int | None = None) -> str:
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

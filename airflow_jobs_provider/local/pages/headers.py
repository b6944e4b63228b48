"""Headers of the pages' responses.

A notebook may print anything, and its parameters may hold anything. Every text is escaped by the
template engine. Should that fail somewhere, these headers still forbid inline scripts and styles,
foreign content and framing by other sites.

An executed notebook is a document of its own, whose HTML outputs are kept. It runs no script, by
the sandbox and by ``default-src``. It keeps its origin, so that the page around it can measure its
height; without scripts it cannot use that origin.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["FRAME_HEADERS", "NOTEBOOK_HEADERS", "PAGE_HEADERS", "STATIC_HEADERS"]

_COMMON_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
PAGE_HEADERS: Mapping[str, str] = {
    **_COMMON_HEADERS,
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
}
# Of a page in the place of a notebook.
FRAME_HEADERS: Mapping[str, str] = {
    **_COMMON_HEADERS,
    "Content-Security-Policy": (
        "sandbox allow-same-origin; default-src 'none'; style-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'self'"
    ),
}
NOTEBOOK_HEADERS: Mapping[str, str] = {
    **_COMMON_HEADERS,
    "Content-Security-Policy": (
        "sandbox allow-same-origin; default-src 'none'; style-src 'unsafe-inline'; "
        "img-src data:; font-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'self'"
    ),
}
STATIC_HEADERS: Mapping[str, str] = {
    **_COMMON_HEADERS,
    # A newer version of the package has other files under the same names.
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}

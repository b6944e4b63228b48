"""Python's syntax trees, as tests of the source itself read them."""

from __future__ import annotations

import ast
from collections.abc import Iterator

__all__ = ["statements"]

# What statements are in: other nodes are expressions, of which there are ten times as many.
_HAS_STATEMENTS = (ast.mod, ast.stmt, ast.excepthandler, ast.match_case)


def statements(source: ast.AST) -> Iterator[ast.stmt]:
    """Yield all statements of a module or of a statement, at any depth, and itself."""
    waiting = [source]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.stmt):
            yield node
        for field in ("body", "orelse", "handlers", "finalbody", "cases"):
            inner = getattr(node, field, ())
            if isinstance(inner, list):
                waiting += [one for one in inner if isinstance(one, _HAS_STATEMENTS)]

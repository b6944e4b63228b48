"""Splitting ``from ... import ...`` statements; a comment stays with the name it belongs to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import libcst as cst

__all__ = ["dotted", "full_name", "split_import", "split_line"]

# A comment that a tool reads is kept on each of the lines; any other one on the first.
_PRAGMA = re.compile(
    r"#\s*(noqa|type:|pyright|pylint|ruff|isort|fmt|yapf|nosec|pragma)", re.IGNORECASE
)
_LONGEST_LINE = 88


@dataclass(frozen=True)
class _Entry:
    """A name in parentheses, with the comment lines before it and the comment after it."""

    alias: cst.ImportAlias
    lines_before: Sequence[cst.EmptyLine]
    comment: cst.TrailingWhitespace


def full_name(node: cst.CSTNode | None) -> str:
    """Return the text of a dotted name; empty for anything else."""
    if isinstance(node, cst.Name):
        return node.value
    if isinstance(node, cst.Attribute):
        prefix = full_name(node.value)
        return f"{prefix}.{node.attr.value}" if prefix else ""
    return ""


def dotted(name: str) -> cst.Name | cst.Attribute:
    """Return the expression of a dotted name."""
    first, *others = name.split(".")
    expression: cst.Name | cst.Attribute = cst.Name(first)
    for part in others:
        expression = cst.Attribute(expression, cst.Name(part))
    return expression


def split_import(
    statement: cst.ImportFrom,
    targets: Mapping[cst.ImportAlias, str],
    renamed: Mapping[cst.ImportAlias, cst.ImportAlias],
    added: Sequence[cst.ImportFrom],
) -> list[cst.ImportFrom]:
    """Split a statement by the modules that its names are imported from now.

    :param statement: a statement without a star.
    :param targets: the new module of each name that moves.
    :param renamed: what is imported instead, for names that another name replaces.
    :param added: statements to add.
    :returns: the statement for what stays, if anything, and one for each new module. If all names
        move to one module, this is the statement with another module.
    """
    assert not isinstance(statement.names, cst.ImportStar)
    modules = [targets.get(alias) for alias in statement.names]
    names = [renamed.get(alias, alias) for alias in statement.names]
    statement = statement.with_changes(names=names)
    found = sorted(set(modules), key=lambda module: module or "")
    statements = []
    for number, module in enumerate(found):
        indexes = [index for index, one in enumerate(modules) if one == module]
        part = statement if len(found) == 1 else _part(statement, indexes, is_first=number == 0)
        statements.append(part.with_changes(module=dotted(module)) if module else part)
    statements += added
    # The semicolon belongs to the last one.
    return [
        one.with_changes(
            semicolon=statement.semicolon if one is statements[-1] else cst.MaybeSentinel.DEFAULT
        )
        for one in statements
    ]


def _part(statement: cst.ImportFrom, indexes: Sequence[int], *, is_first: bool) -> cst.ImportFrom:
    """Return the statement with some of its names only."""
    assert not isinstance(statement.names, cst.ImportStar)
    whitespace = _whitespace_after_names(statement)
    opening = whitespace[0]
    is_on_lines = any(isinstance(one, cst.ParenthesizedWhitespace) for one in whitespace)
    if not is_on_lines:
        names = [statement.names[index] for index in indexes]
        comma = cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
        kept = [name.with_changes(comma=comma) for name in names[:-1]]
        kept.append(names[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT))
        return statement.with_changes(names=kept)

    entries = [_entry(statement, whitespace, index) for index in indexes]
    after_opening = _first_line(opening)
    if not is_first and not _is_pragma(after_opening):
        after_opening = cst.TrailingWhitespace(newline=after_opening.newline)
    end = whitespace[-1]
    end_lines = _comment_lines(end) if is_first else ()
    has_comment = (
        after_opening.comment is not None
        or end_lines
        or any(entry.lines_before or entry.comment.comment for entry in entries)
    )
    if len(entries) == 1 and not has_comment and _is_short(statement, entries[0].alias):
        alias = entries[0].alias.with_changes(comma=cst.MaybeSentinel.DEFAULT)
        return statement.with_changes(names=[alias], lpar=None, rpar=None)

    indentation = next(
        one for one in whitespace if isinstance(one, cst.ParenthesizedWhitespace)
    ).last_line
    names = []
    for entry, following in zip(entries, [*entries[1:], None], strict=True):
        space = cst.ParenthesizedWhitespace(
            first_line=entry.comment,
            empty_lines=following.lines_before if following else end_lines,
            indent=True,
            last_line=indentation if following else _last_line(end),
        )
        names.append(entry.alias.with_changes(comma=cst.Comma(whitespace_after=space)))
    start = cst.ParenthesizedWhitespace(
        first_line=after_opening,
        empty_lines=entries[0].lines_before,
        indent=True,
        last_line=indentation,
    )
    return statement.with_changes(
        names=names, lpar=cst.LeftParen(whitespace_after=start), rpar=cst.RightParen()
    )


def _whitespace_after_names(
    statement: cst.ImportFrom,
) -> list[cst.BaseParenthesizableWhitespace]:
    """Return the whitespace after the opening parenthesis and after each of the names."""
    assert not isinstance(statement.names, cst.ImportStar)
    found: list[cst.BaseParenthesizableWhitespace] = [
        statement.lpar.whitespace_after if statement.lpar else cst.SimpleWhitespace("")
    ]
    found += [_around_comma(alias.comma) for alias in statement.names]
    if statement.rpar and not isinstance(statement.names[-1].comma, cst.Comma):
        found[-1] = statement.rpar.whitespace_before
    return found


def _around_comma(
    comma: cst.Comma | cst.MaybeSentinel,
) -> cst.BaseParenthesizableWhitespace:
    if not isinstance(comma, cst.Comma):
        return cst.SimpleWhitespace("")
    # A line may begin with the comma.
    spaces = (comma.whitespace_after, comma.whitespace_before)
    lines = [one for one in spaces if isinstance(one, cst.ParenthesizedWhitespace)]
    return lines[0] if lines else comma.whitespace_after


def _entry(
    statement: cst.ImportFrom, whitespace: Sequence[cst.BaseParenthesizableWhitespace], index: int
) -> _Entry:
    assert not isinstance(statement.names, cst.ImportStar)
    return _Entry(
        statement.names[index],
        _comment_lines(whitespace[index]),
        _first_line(whitespace[index + 1]),
    )


def _comment_lines(space: cst.BaseParenthesizableWhitespace) -> Sequence[cst.EmptyLine]:
    return space.empty_lines if isinstance(space, cst.ParenthesizedWhitespace) else ()


def _first_line(space: cst.BaseParenthesizableWhitespace) -> cst.TrailingWhitespace:
    if isinstance(space, cst.ParenthesizedWhitespace):
        return space.first_line
    return cst.TrailingWhitespace()


def _last_line(space: cst.BaseParenthesizableWhitespace) -> cst.SimpleWhitespace:
    if isinstance(space, cst.ParenthesizedWhitespace):
        return space.last_line
    return cst.SimpleWhitespace("")


def _is_pragma(space: cst.TrailingWhitespace) -> bool:
    return space.comment is not None and _PRAGMA.match(space.comment.value) is not None


def _is_short(statement: cst.ImportFrom, alias: cst.ImportAlias) -> bool:
    names = full_name(alias.name)
    if alias.asname:
        names += f" as {alias.evaluated_alias}"
    return len(f"from {full_name(statement.module)} import {names}") <= _LONGEST_LINE


def split_line(line: cst.SimpleStatementLine) -> list[cst.SimpleStatementLine]:
    """Return a line for each of the statements that a line's only statement became."""
    lines = []
    for number, statement in enumerate(line.body):
        one = line.with_changes(body=[statement])
        if number > 0:
            one = one.with_changes(leading_lines=())
            if not _is_pragma(line.trailing_whitespace):
                space = cst.TrailingWhitespace(newline=line.trailing_whitespace.newline)
                one = one.with_changes(trailing_whitespace=space)
        lines.append(one)
    return lines

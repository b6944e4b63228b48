"""Docstrings as Markdown, for the pages of classes in docs/reference/."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Docstring", "parse", "signature_types"]

_FIELD = re.compile(r"^:(param|ivar|raises|returns?)\s*([\w.]*):\s*(.*)$")
_ROLE = re.compile(r":\w+:`~?\.?([\w.]+)`")
_REFERENCE = re.compile(r'((?i:reference:))((?:,?\s*"[^"]+")+)')
# Annotations as a reader knows them; the others stay.
_TYPES = (
    (r"\bUnpack\[.*\]|\bRequired\[(.*)\]", r"\1"),
    (r"\bStructureOf\[(?:\w+|Mapping\[str, Any\])\]", "dict"),
    (r"\bListOf\[(?:\w+|Mapping\[str, Any\])\]", "list"),
    (r"\b(?:Mapping|dict)\[str, Any\]", "dict"),
    (r"\b(?:Sequence|Iterable)\[", "list["),
    (r"\bText\b", "str"),
    (r"\bSeconds\b", "int | timedelta"),
    (r"\b(?:Number|Id)\b", "int"),
    (r"\bFlag\b", "bool"),
    (r"(?: \| )?\bNone\b(?: \| (?=\w))?", ""),
    (r"^Any$", ""),
)

Links = Callable[[str], str | None]
"""The link to the page of a class, or to a section of the reference; None where there is none."""


@dataclass
class Docstring:
    """A docstring as Markdown.

    :ivar summary: the first sentence or paragraph.
    :ivar body: what follows it, up to the fields.
    :ivar lead: the words before the example; mostly empty.
    :ivar example: the first code block; empty if there is none.
    :ivar params: the descriptions of the parameters by name.
    :ivar attributes: those of the attributes.
    :ivar raises: exceptions and when they are raised.
    :ivar returns: what is returned; empty if the summary says it.
    """

    summary: str = ""
    body: str = ""
    lead: str = ""
    example: str = ""
    params: dict[str, str] = field(default_factory=dict)
    attributes: dict[str, str] = field(default_factory=dict)
    raises: list[tuple[str, str]] = field(default_factory=list)
    returns: str = ""


def parse(documented: Any, links: Links) -> Docstring:
    """Read the docstring of a class or a function.

    :param documented: the class or function.
    :param links: where the names that it mentions lead to.
    """
    text = inspect.getdoc(documented) or ""
    found = Docstring()
    paragraphs: list[str] = []
    # The field that is being read, or None in the text before the fields.
    lines: list[str] | None = None
    fields: list[tuple[str, str, list[str]]] = []
    for line in text.splitlines():
        if match := _FIELD.match(line):
            lines = [match[3]]
            fields.append((match[1], match[2], lines))
        elif lines is not None:
            lines.append(line.strip())
        else:
            paragraphs.append(line)
    for kind, name, words in fields:
        content = _inline(" ".join(filter(None, words)), links)
        if kind == "param":
            found.params[name] = content
        elif kind == "ivar":
            found.attributes[name] = content
        elif kind == "raises":
            found.raises.append((name, content))
        else:
            found.returns = content
    _read_text("\n".join(paragraphs), found, links)
    return found


def _read_text(text: str, found: Docstring, links: Links) -> None:
    rest = []
    blocks = re.split(r"\n{2,}(?=\S)", text.strip())
    for number, block in enumerate(blocks):
        lead, colons, code = block.partition("::\n")
        if colons and not found.example:
            found.lead = f"{_inline(' '.join(lead.split()), links)}:" if lead else ""
            found.example = textwrap.dedent(code).strip("\n")
        elif number == 0:
            found.summary = _inline(" ".join(block.split()), links)
        elif block.startswith("* "):
            items = re.split(r"^\* ", block, flags=re.MULTILINE)[1:]
            rest.append("\n".join(f"- {_inline(' '.join(i.split()), links)}" for i in items))
        else:
            rest.append(_inline(block, links))
    found.body = "\n\n".join(rest)


def _inline(text: str, links: Links) -> str:
    def role(match: re.Match[str]) -> str:
        name = match[1].rpartition(".")[2]
        if page := links(match[1]):
            return page if page.startswith("[") else f"[`{name}`]({page})"
        target = links(name)
        return f"[`{name}`]({target})" if target else f"``{match[1]}``"

    def section(match: re.Match[str]) -> str:
        quoted = re.sub(
            r'"([^"]+)"',
            lambda name: f"[{name[1]}]({target})" if (target := links(f'"{name[1]}"')) else name[0],
            match[2],
        )
        return f"{match[1]}{quoted}"

    text = _REFERENCE.sub(section, re.sub(r"\s+(?=\")", " ", text))
    return _ROLE.sub(role, text).replace("``", "`")


def signature_types(function: Any) -> dict[str, str]:
    """Return the types of parameters, or of a TypedDict's keys, in short.

    :param function: a function, a class with a constructor, or a TypedDict.
    """
    is_constructed = inspect.isclass(function) and not hasattr(function, "__total__")
    annotations = getattr(function.__init__ if is_constructed else function, "__annotations__", {})
    return {name: _short(_text(hint)) for name, hint in annotations.items()}


def _text(hint: Any) -> str:
    return str(getattr(hint, "__forward_arg__", hint))


def _short(hint: str) -> str:
    for pattern, replacement in _TYPES:
        hint = re.sub(pattern, replacement, hint)
    return hint

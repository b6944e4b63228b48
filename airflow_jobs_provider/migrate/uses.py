"""How a file uses what moves: what differs for these uses, and what else names the provider."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import libcst as cst
from libcst.metadata import MetadataWrapper, ParentNodeProvider, PositionProvider

from airflow_jobs_provider.migrate.differences import argument_differences
from airflow_jobs_provider.migrate.findings import Finding, Kind
from airflow_jobs_provider.migrate.names import OFFICIAL

__all__ = ["Uses", "find_uses"]


@dataclass
class Uses:
    """The expressions of a file that mean names that move."""

    _names: list[tuple[str, cst.CSTNode]] = field(default_factory=list)

    def add(self, name: str, expressions: Iterable[cst.CSTNode]) -> None:
        """Add dotted expressions that begin with a name, whatever the file calls it."""
        self._names += [(name, expression) for expression in expressions]

    def __iter__(self) -> Iterator[tuple[str, cst.CSTNode]]:
        return iter(self._names)


def find_uses(wrapper: MetadataWrapper, uses: Uses) -> Iterator[Finding]:
    """Return what differs for the uses, subclasses of what moves, and texts that name modules."""
    positions = wrapper.resolve(PositionProvider)
    parents = wrapper.resolve(ParentNodeProvider)

    def line(node: cst.CSTNode) -> int:
        return int(positions[node].start.line)

    for name, expression in uses:
        parent = parents.get(expression)
        if isinstance(parent, cst.Call) and parent.func is expression:
            given = {
                argument.keyword.value: argument
                for call in _calls(parent, parents)
                for argument in call.args
                if argument.keyword is not None
            }
            for argument, text in argument_differences(name).items():
                if argument in given:
                    where = line(given[argument])
                    yield Finding(where, Kind.DIFFERS, f"{name}({argument}=): {text}")
        elif isinstance(parent, cst.Arg) and isinstance(
            definition := parents.get(parent), cst.ClassDef
        ):
            text = f"class {definition.name.value}({name}): check the methods that it overrides"
            yield Finding(line(definition), Kind.CHECK, text)
    texts = _Texts()
    wrapper.module.visit(texts)
    for node in texts.found:
        text = f"a text names {OFFICIAL}: change it by hand if it means what moves"
        yield Finding(line(node), Kind.CHECK, text)


def _calls(call: cst.Call, parents: Mapping[cst.CSTNode, cst.CSTNode]) -> Iterator[cst.Call]:
    """Return a call and those on its result, as ``Operator.partial(...).expand(...)``."""
    yield call
    attribute = parents.get(call)
    if isinstance(attribute, cst.Attribute) and attribute.value is call:
        following = parents.get(attribute)
        if isinstance(following, cst.Call) and following.func is attribute:
            yield from _calls(following, parents)


class _Texts(cst.CSTVisitor):
    """Finds string literals that name modules of the official provider."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[cst.CSTNode] = []

    def visit_SimpleString(self, node: cst.SimpleString) -> None:
        if OFFICIAL in node.value:
            self.found.append(node)

    def visit_FormattedStringText(self, node: cst.FormattedStringText) -> None:
        if OFFICIAL in node.value:
            self.found.append(node)

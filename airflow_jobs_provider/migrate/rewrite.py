"""Rewriting the import statements of one file, and finding what else a reader should know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import libcst as cst
from libcst import matchers
from libcst.metadata import (
    MetadataWrapper,
    ParentNodeProvider,
    PositionProvider,
    Scope,
    ScopeProvider,
)

from airflow_jobs_provider.migrate.findings import FileResult, Finding, Kind
from airflow_jobs_provider.migrate.names import (
    MODULES_THAT_STAY,
    MOVED,
    OFFICIAL,
    reason_to_stay,
)
from airflow_jobs_provider.migrate.statements import dotted, full_name, split_import, split_line
from airflow_jobs_provider.migrate.uses import Uses, find_uses
from airflow_jobs_provider.official_names import HOOK_METHODS_OUTSIDE

__all__ = ["rewrite"]

_PROVIDERS = OFFICIAL.rpartition(".")[0]
_MODULES = MOVED.keys() | MODULES_THAT_STAY
S = TypeVar("S", cst.Import, cst.ImportFrom)


@dataclass(frozen=True)
class _ModuleMove:
    """What becomes of the import of a module.

    :ivar keeps_import: whether the file still needs it.
    :ivar imports: the modules to import instead or beside it, each with its name in the file.
    """

    keeps_import: bool = True
    imports: tuple[tuple[str, str], ...] = ()


def rewrite(source: bytes) -> FileResult:
    """Rewrite the import statements of a file, and report what stays and what differs.

    :param source: the file's content, in any encoding that it declares.
    """
    try:
        module = cst.parse_module(source)
    except (cst.ParserSyntaxError, SyntaxError, UnicodeDecodeError, LookupError) as error:
        line = getattr(error, "raw_line", 0)
        reason = getattr(error, "message", None) or error
        return _failed(source, line, f"the file cannot be parsed: {reason}")
    if module.bytes != source:
        return _failed(source, 0, "libcst would change other lines of the file too")
    wrapper = MetadataWrapper(module, unsafe_skip_copy=True)
    plan = _Plan(wrapper)
    wrapper.module.visit(plan)
    plan.finish()
    after = wrapper.module.visit(_Rewriter(plan))
    if _comments(module) - _comments(cst.parse_module(after.bytes)):
        return _failed(source, 0, "a comment would be lost: change the imports by hand")
    findings = [*plan.findings, *find_uses(wrapper, plan.uses)]
    return FileResult(source, after.bytes, tuple(sorted(set(findings))))


def _comments(module: cst.Module) -> Counter[str]:
    found = matchers.findall(module, matchers.Comment())
    return Counter(cst.ensure_type(comment, cst.Comment).value for comment in found)


def _failed(source: bytes, line: int, reason: str) -> FileResult:
    return FileResult(source, source, (Finding(line, Kind.ERROR, reason),))


class _Plan(cst.CSTVisitor):
    """Decides what each import statement becomes, and which attributes get another module."""

    def __init__(self, wrapper: MetadataWrapper) -> None:
        super().__init__()
        self._scopes = wrapper.resolve(ScopeProvider)
        self._parents = wrapper.resolve(ParentNodeProvider)
        self._positions = wrapper.resolve(PositionProvider)
        self.statements: dict[cst.CSTNode, Sequence[cst.ImportFrom | cst.Import]] = {}
        self.attributes: dict[cst.CSTNode, str] = {}
        self.findings: list[Finding] = []
        self.uses = Uses()
        self._words: set[str] = set()
        self._keeps_hook = False
        self._from_imports: list[cst.ImportFrom] = []
        self._imports: list[cst.Import] = []

    def visit_Name(self, node: cst.Name) -> None:
        self._words.add(node.value)

    def visit_Attribute(self, node: cst.Attribute) -> None:
        if node.attr.value in HOOK_METHODS_OUTSIDE:
            self._keeps_hook = True

    def visit_ImportFrom(self, node: cst.ImportFrom) -> None:
        if not node.relative:
            self._from_imports.append(node)

    def visit_Import(self, node: cst.Import) -> None:
        self._imports.append(node)

    def finish(self) -> None:
        """Decide; called when all names of the file are known."""
        for node in self._from_imports:
            self._plan_from_import(node)
        for statement in self._imports:
            self._plan_import(statement)

    def _report(self, node: cst.CSTNode, kind: Kind, text: str) -> None:
        self.findings.append(Finding(self._line(node), kind, text))

    def _line(self, node: cst.CSTNode) -> int:
        return self._positions[node].start.line

    def _target(self, module: str, name: str) -> str | None:
        """Return the module of this package that a name moves to."""
        if name == "DatabricksHook" and self._keeps_hook:
            return None
        return MOVED.get(module, {}).get(name)

    def _reason(self, name: str) -> str:
        if name == "DatabricksHook" and self._keeps_hook:
            return "the file calls methods for clusters, libraries, SQL or repos"
        return reason_to_stay(name)

    # Statements such as: from M import A, B as C

    def _plan_from_import(self, node: cst.ImportFrom) -> None:
        module = full_name(node.module)
        if module != _PROVIDERS and not _is_official(module):
            return
        if isinstance(node.names, cst.ImportStar):
            if module != _PROVIDERS:
                text = f"from {module} import *: name what is imported, then run this again"
                self._report(node, Kind.CHECK, text)
            return
        targets: dict[cst.ImportAlias, str] = {}
        renamed: dict[cst.ImportAlias, cst.ImportAlias] = {}
        added: list[cst.ImportFrom] = []
        for alias in node.names:
            name = full_name(alias.name)
            bound = alias.evaluated_alias or name
            if f"{module}.{name}" in _MODULES:
                move = self._plan_module(node, alias, f"{module}.{name}", bound)
                for new_module, new_name in move.imports:
                    package, _, last = new_module.rpartition(".")
                    new_alias = _import_alias(last, new_name)
                    if move.keeps_import:
                        added.append(cst.ImportFrom(dotted(package), [new_alias]))
                    else:
                        targets[alias] = package
                        renamed[alias] = new_alias.with_changes(comma=alias.comma)
            elif target := self._target(module, name):
                targets[alias] = target
                self._report(alias, Kind.MOVES, f"{name} to {target}")
                self.uses.add(name, self._chains(node, bound))
            elif _is_package(f"{module}.{name}"):
                text = f"{module}.{name} is imported as a package: import its classes instead"
                self._report(node, Kind.CHECK, text)
            elif module != _PROVIDERS:
                self._report(alias, Kind.STAYS, f"{module}.{name}: {self._reason(name)}")
        if targets or added:
            self.statements[node] = split_import(node, targets, renamed, added)

    # Statements such as: import M, import M as m

    def _plan_import(self, node: cst.Import) -> None:
        aliases: list[cst.ImportAlias] = []
        for alias in node.names:
            module = full_name(alias.name)
            move = _ModuleMove()
            if module in _MODULES:
                move = self._plan_module(node, alias, module, alias.evaluated_alias or module)
            elif _is_official(module):
                text = f"import {module}: import its classes instead"
                self._report(node, Kind.CHECK, text)
            new = [_import_alias(name, bound) for name, bound in move.imports]
            aliases += [*([alias] if move.keeps_import else []), *new]
        if len(aliases) != len(node.names) or any(
            one is not other for one, other in zip(aliases, node.names, strict=True)
        ):
            comma = cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
            aliases = [alias.with_changes(comma=comma) for alias in aliases]
            aliases[-1] = aliases[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)
            self.statements[node] = [node.with_changes(names=aliases)]

    # What a module is used for: db.A, db.B

    def _plan_module(
        self, node: cst.Import | cst.ImportFrom, alias: cst.ImportAlias, module: str, bound: str
    ) -> _ModuleMove:
        """Decide what becomes of the import of a module, by its uses in the file.

        :param node: the statement.
        :param alias: the part of the statement that imports the module.
        :param module: the module.
        :param bound: what the file calls it; with dots if ``import a.b`` has no ``as``.
        """
        if module in MODULES_THAT_STAY:
            self._report(node, Kind.STAYS, f"{module}: nothing of it is in this package")
            return _ModuleMove()
        moving: list[tuple[cst.Attribute, str]] = []
        is_needed = has_members = False
        for chain in self._chains(node, bound):
            use = _member(chain, bound)
            if use is None:
                # As airflow.DAG through "import airflow.providers...", or the module as a value.
                is_needed |= not self._is_imported_elsewhere(full_name(chain), alias)
                if full_name(chain) == bound:
                    text = f"{module}: the module is used as a value, such as in getattr"
                    self._report(chain, Kind.CHECK, text)
                continue
            has_members = True
            member = use.attr.value
            target = self._target(module, member)
            if target is None:
                is_needed = True
                self._report(use, Kind.STAYS, f"{module}.{member}: {self._reason(member)}")
                continue
            moving.append((use, target))
            self._report(use, Kind.MOVES, f"{member} to {target}")
            self.uses.add(member, [chain])
        if not moving:
            if not has_members:
                text = f"{module}: no use of it was found that this tool could change"
                self._report(node, Kind.CHECK, text)
            return _ModuleMove()
        targets = sorted({target for _, target in moving})
        if "." in bound:
            new = {target: target for target in targets}
        elif len(targets) == 1 and not is_needed:
            # The module keeps its name in the file: nothing but the import changes.
            new = {targets[0]: bound}
        else:
            new = {one: self._free_name(f"{bound}_{one.rpartition('.')[2]}") for one in targets}
        for use, target in moving:
            if new[target] != bound:
                self.attributes[use] = new[target]
        return _ModuleMove(keeps_import=is_needed, imports=tuple(new.items()))

    def _chains(self, node: cst.CSTNode, bound: str) -> Iterator[cst.CSTNode]:
        """Return the longest dotted expressions that begin with the name that an import binds."""
        scope = self._scopes.get(node)
        if not isinstance(scope, Scope):
            return
        root = bound.partition(".")[0]
        seen: set[cst.CSTNode] = set()
        for assignment in scope.assignments:
            if getattr(assignment, "node", None) is not node:
                continue
            for access in assignment.references:
                end: cst.CSTNode = access.node
                while isinstance(end, cst.Attribute):
                    end = end.value
                if isinstance(end, cst.Name) and end.value != root:
                    continue
                while (
                    isinstance(parent := self._parents.get(end), cst.Attribute)
                    and parent.value is end
                ):
                    end = parent
                if end not in seen:
                    seen.add(end)
                    yield end

    def _is_imported_elsewhere(self, name: str, alias: cst.ImportAlias) -> bool:
        """Whether a dotted name is that of another import without ``as``."""
        return any(
            f"{name}.".startswith(f"{full_name(one.name)}.")
            for statement in self._imports
            for one in statement.names
            if one is not alias and one.asname is None
        )

    def _free_name(self, name: str) -> str:
        while name in self._words:
            name += "_"
        self._words.add(name)
        return name


def _is_official(module: str) -> bool:
    return f"{module}.".startswith(f"{OFFICIAL}.")


def _is_package(module: str) -> bool:
    return any(one.startswith(f"{module}.") for one in _MODULES)


def _import_alias(name: str, bound: str) -> cst.ImportAlias:
    asname = None if name == bound else cst.AsName(cst.Name(bound))
    return cst.ImportAlias(dotted(name), asname)


def _member(chain: cst.CSTNode, bound: str) -> cst.Attribute | None:
    """Return the part of a dotted expression that is a member of the module."""
    while isinstance(chain, cst.Attribute):
        if full_name(chain.value) == bound:
            return chain
        chain = chain.value
    return None


class _Rewriter(cst.CSTTransformer):
    """Puts the planned statements and attributes into their places."""

    def __init__(self, plan: _Plan) -> None:
        super().__init__()
        self._plan = plan

    def leave_Attribute(
        self, original_node: cst.Attribute, updated_node: cst.Attribute
    ) -> cst.Attribute:
        prefix = self._plan.attributes.get(original_node)
        return updated_node if prefix is None else updated_node.with_changes(value=dotted(prefix))

    def leave_Import(
        self, original_node: cst.Import, updated_node: cst.Import
    ) -> cst.Import | cst.FlattenSentinel[cst.BaseSmallStatement]:
        return self._planned(original_node, updated_node)

    def leave_ImportFrom(
        self, original_node: cst.ImportFrom, updated_node: cst.ImportFrom
    ) -> cst.ImportFrom | cst.FlattenSentinel[cst.BaseSmallStatement]:
        return self._planned(original_node, updated_node)

    def _planned(self, original: S, updated: S) -> S | cst.FlattenSentinel[cst.BaseSmallStatement]:
        planned = self._plan.statements.get(original)
        return updated if planned is None else cst.FlattenSentinel(planned)

    def leave_SimpleStatementLine(
        self, original_node: cst.SimpleStatementLine, updated_node: cst.SimpleStatementLine
    ) -> cst.SimpleStatementLine | cst.FlattenSentinel[cst.SimpleStatementLine]:
        if len(original_node.body) > 1 or len(updated_node.body) == 1:
            return updated_node
        return cst.FlattenSentinel(split_line(updated_node))

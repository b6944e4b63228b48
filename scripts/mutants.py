"""Mutation testing: change the code in one place and see whether a test fails.

    make mutants                          all modules of scripts/mutants.toml
    make mutants MUTANTS=api/retry.py     only modules whose path ends so

The changes are those of cosmic-ray, and two of our own: a statement is dropped, a returned value is
None. Cosmic-ray's own runner starts a new Python with Airflow for each mutant; here each mutant is
a fork of one process that has loaded Airflow, and runs first the tests that execute the changed
line, quickest first. Annotations, decorators, and lines of the log are not changed.

A mutant that no test can tell from the code is listed in scripts/mutants.toml, with the reason, and
with its function where the same change elsewhere in the module can be told.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType
from typing import Any

import coverage
import pytest

from scripts.airflow_env import ROOT

__all__ = ["main"]

LIST = ROOT / "scripts" / "mutants.toml"
PACKAGE = "airflow_jobs_provider"
AIM = 0.95
BINARY = ("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "Mod_Mul", "Pow_Mul", "BitOr_BitAnd")
COMPARISON = ("Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt", "Lt_GtE", "Gt_LtE", "LtE_Gt", "GtE_Lt")
OPERATORS = (
    *(f"core/ReplaceBinaryOperator_{pair}" for pair in BINARY),
    *(f"core/ReplaceComparisonOperator_{pair}" for pair in COMPARISON),
    *(f"core/ReplaceComparisonOperator_{a}_{b}" for a, b in (("Eq", "NotEq"), ("NotEq", "Eq"))),
    *(f"core/ReplaceComparisonOperator_{a}_{b}" for a, b in (("Is", "IsNot"), ("IsNot", "Is"))),
    "core/ReplaceUnaryOperator_Delete_Not",
    "core/ReplaceUnaryOperator_Delete_USub",
    "core/AddNot",
    "core/ReplaceTrueWithFalse",
    "core/ReplaceFalseWithTrue",
    "core/ReplaceAndWithOr",
    "core/ReplaceOrWithAnd",
    "core/ReplaceBreakWithContinue",
    "core/ReplaceContinueWithBreak",
    "core/ExceptionReplacer",
    "core/NumberReplacer",
    "core/ZeroIterationForLoop",
)
# Loaded once, before any mutant.
PRELOADED = (
    "airflow.models",
    "airflow.providers.common.compat.sdk",
    "airflow.triggers.base",
    "aiohttp.web",
    "hypothesis",
    "pydantic",
    "requests_mock",
    "requests",
    "tenacity",
    "trustme",
)
LOG_METHODS = {"debug", "info", "warning", "error", "exception", "log"}
SLOWEST_FACTOR, START_SECONDS = 5, 20


@dataclass(frozen=True)
class Mutant:
    """A changed module.

    :ivar before: the changed line as it was; ``after``: as it is, both without indentation.
    """

    line: int
    before: str
    after: str
    source: str

    def __str__(self) -> str:
        return f"{self.line}: {self.before}  ->  {self.after}"


@dataclass
class Selection:
    """The tests of a module.

    :ivar by_line: ids of the tests that execute a line; "" if importing the module does.
    :ivar seconds: how long each test takes.
    """

    by_line: dict[int, set[str]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def of(self, lines: range) -> list[str]:
        """Return the tests that execute some of these lines, the quickest first."""
        found = set().union(*(self.by_line.get(line, set()) for line in lines))
        if "" in found:
            found = set(self.seconds)
        return sorted(found & set(self.seconds), key=lambda test: self.seconds[test])

    def limit_seconds(self, tests: Sequence[str]) -> float:
        """Return the seconds after which tests are taken to hang."""
        return START_SECONDS + SLOWEST_FACTOR * sum(self.seconds[test] for test in tests)


class Unchanged(ast.NodeVisitor):
    """Finds what is not to be changed, as ranges of lines and columns."""

    def __init__(self) -> None:
        self.ranges: list[tuple[tuple[int, int], tuple[int, int]]] = []

    def visit(self, node: ast.AST) -> None:
        """Note annotations, decorators, logging calls and ``__all__``."""
        parts: list[ast.AST | None] = []
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            parts += node.decorator_list
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            parts.append(node.returns)
        if isinstance(node, ast.arg | ast.AnnAssign):
            parts.append(node.annotation)
        if is_logging(node) or (
            isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        ):
            parts.append(node)
        for part in parts:
            if isinstance(part, ast.expr | ast.stmt):
                end = (part.end_lineno or part.lineno, part.end_col_offset or 0)
                self.ranges.append(((part.lineno, part.col_offset), end))
        self.generic_visit(node)

    def covers(self, line: int, column: int) -> bool:
        """Whether a place is within one of them."""
        return any(start <= (line, column) <= end for start, end in self.ranges)


def is_logging(node: ast.AST) -> bool:
    """Whether a node is a statement that only writes to a log."""
    if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        return False
    function = node.value.func
    return (
        isinstance(function, ast.Attribute)
        and function.attr in LOG_METHODS
        and "log" in ast.unparse(function.value).lower()
    )


def mutants_of(source: str) -> list[Mutant]:
    """Return all mutants of a module, in the order of their lines."""
    tree = ast.parse(source)
    unchanged = Unchanged()
    unchanged.visit(tree)
    found: dict[str, Mutant] = {}
    for line, mutated in (
        *_of_cosmic_ray(source, unchanged),
        *_of_our_own(source, tree, unchanged),
    ):
        with contextlib.suppress(SyntaxError):
            changed = ast.parse(mutated)
            if ast.dump(changed) == ast.dump(tree) or _signatures(changed) != _signatures(tree):
                continue
            old, new = source.splitlines(), mutated.splitlines()
            first = next(n for n, (a, b) in enumerate(zip(old, new, strict=False)) if a != b)
            found.setdefault(mutated, Mutant(line, old[first].strip(), new[first].strip(), mutated))
    return sorted(found.values(), key=lambda mutant: (mutant.line, mutant.after))


def _signatures(tree: ast.Module) -> list[tuple[int, int]]:
    """Return what a ``*`` between arguments makes of them; cosmic-ray takes it for a product."""
    return [
        (len(node.posonlyargs), len(node.kwonlyargs))
        for node in ast.walk(tree)
        if isinstance(node, ast.arguments)
    ]


def _of_cosmic_ray(source: str, unchanged: Unchanged) -> Iterator[tuple[int, str]]:
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    nodes = list(ast_nodes(get_ast(source)))
    for name in OPERATORS:
        operator = get_operator(name)()
        places = [start for node in nodes for start, _ in operator.mutation_positions(node)]
        for occurrence, (line, column) in enumerate(places):
            if not unchanged.covers(line, column):
                yield line, mutate_code(source, operator, occurrence)


def _of_our_own(source: str, tree: ast.Module, unchanged: Unchanged) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.stmt) or unchanged.covers(node.lineno, node.col_offset):
            continue
        replacement = None
        if isinstance(node, ast.Return) and node.value is not None:
            replacement = "return None"
        elif _may_be_dropped(node):
            replacement = "pass"
        if replacement is not None:
            yield node.lineno, _replaced(source, node, replacement)
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and not unchanged.covers(node.lineno, node.col_offset):
            opposite = {ast.In: "not in", ast.NotIn: "in"}.get(type(node.ops[0]))
            if opposite is not None and len(node.ops) == 1:
                left, right = (
                    ast.get_source_segment(source, part)
                    for part in (node.left, node.comparators[0])
                )
                yield node.lineno, _replaced(source, node, f"{left} {opposite} {right}")


def _may_be_dropped(node: ast.stmt) -> bool:
    if isinstance(node, ast.Expr):
        return not isinstance(node.value, ast.Constant)
    if isinstance(node, ast.Assign):
        return not all(isinstance(target, ast.Name) for target in node.targets)
    return isinstance(node, ast.Raise | ast.AugAssign | ast.Delete)


def _replaced(source: str, node: ast.stmt | ast.expr, text: str) -> str:
    lines = source.splitlines(keepends=True)
    last = (node.end_lineno or node.lineno) - 1
    head = lines[node.lineno - 1].encode()[: node.col_offset].decode()
    tail = lines[last].encode()[node.end_col_offset :].decode()
    return "".join([*lines[: node.lineno - 1], head + text + tail, *lines[last + 1 :]])


def statement_lines(source: str) -> Callable[[int], range]:
    """Return what finds the lines of the innermost statement, or head of one, at a line."""
    spans = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            last = body[0].lineno - 1 if body else node.end_lineno or node.lineno
            spans.append(range(node.lineno, max(last, node.lineno) + 1))

    def find(line: int) -> range:
        return min((span for span in spans if line in span), key=len, default=range(line, line + 1))

    return find


def function_names(source: str) -> Callable[[int], str | None]:
    """Return what finds the name of the innermost function at a line."""
    functions = [
        (range(node.lineno, (node.end_lineno or node.lineno) + 1), node.name)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]

    def find(line: int) -> str | None:
        around = [(len(span), name) for span, name in functions if line in span]
        return min(around)[1] if around else None

    return find


class _Recorder:
    """A pytest plugin that notes how long each test takes."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Add the time of a part of a test."""
        self.seconds[report.nodeid] += report.duration


class _Selector:
    """A pytest plugin that runs only the given tests, in their order."""

    def __init__(self, tests: Sequence[str]) -> None:
        self.order = {test: number for number, test in enumerate(tests)}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Keep and sort the items."""
        items[:] = sorted(
            (item for item in items if item.nodeid in self.order),
            key=lambda item: self.order[item.nodeid],
        )


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads a module from a text instead of its file."""

    source = ""

    def get_code(self, fullname: str) -> CodeType:
        """Compile the text."""
        return compile(self.source, self.get_filename(fullname), "exec", dont_inherit=True)


class _Finder(importlib.abc.MetaPathFinder):
    """Gives a mutated module to whoever imports it."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        self.name = name
        loader = _Loader(name, str(path))
        loader.source = source
        self.spec = importlib.util.spec_from_file_location(name, path, loader=loader)

    def find_spec(self, fullname: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        """Find the one module."""
        return self.spec if fullname == self.name else None


PYTEST = ["-q", "-x", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist"]
PYTEST += ["-W", "ignore::pytest.PytestAssertRewriteWarning", "--hypothesis-seed=0"]
# pytest rewrites the assertions of this package, too, since it has a pytest plugin: it would load
# the file, and not the mutant.
PYTEST += ["--assert=plain"]


def select(path: Path, tests: Sequence[str]) -> Selection:
    """Run the tests of a module as they are, and record which lines each one executes."""
    with tempfile.TemporaryDirectory() as folder:
        record, data = Path(folder) / "seconds.json", Path(folder) / "coverage"
        code = (
            "import json, sys, pytest\n"
            "from scripts.mutants import PYTEST, _Recorder\n"
            "plugin = _Recorder()\n"
            "status = pytest.main([*PYTEST, *sys.argv[2:]], plugins=[plugin])\n"
            "open(sys.argv[1], 'w').write(json.dumps(plugin.seconds))\n"
            "sys.exit(status)\n"
        )
        command = [sys.executable, "-c", code, str(record), *tests]
        command += [
            f"--cov={_module_name(path)}",
            "--cov-context=test",
            "--cov-report=",
            "--cov-fail-under=0",
        ]
        environment = {**os.environ, "COVERAGE_FILE": str(data), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"the tests of {path} fail as it is:\n{done.stdout}{done.stderr}")
        selection = Selection(seconds=json.loads(record.read_text()))
        found = coverage.CoverageData(str(data))
        found.read()
        for line, contexts in found.contexts_by_lineno(str(path)).items():
            selection.by_line[line] = {context.partition("|")[0] for context in contexts}
    return selection


def _module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def survives(path: Path, mutant: Mutant | None, tests: Sequence[str], seconds: float) -> bool:
    """Run tests in a fork of this process, with a mutant or with the code as it is."""
    folder = tempfile.mkdtemp(prefix="mutant-")
    child = os.fork()
    if not child:
        status = 3
        try:
            os.setsid()
            if mutant is not None:
                _be_quiet()
            tempfile.tempdir = folder
            name = _module_name(path)
            if mutant is not None:
                sys.meta_path.insert(0, _Finder(name, path, mutant.source))
            files = sorted({test.partition("::")[0] for test in tests})
            status = int(pytest.main([*PYTEST, *files], plugins=[_Selector(tests)]))
        except BaseException:  # noqa: BLE001 - the parent must not go on twice
            traceback.print_exc()
        finally:
            os._exit(status)
    deadline = time.monotonic() + seconds
    try:
        while time.monotonic() < deadline:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status) == 0
            time.sleep(0.01)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return False
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def _be_quiet() -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    sys.stdout = sys.stderr = io.TextIOWrapper(io.FileIO(nowhere, "w", closefd=False))


def examine(path: Path, tests: Sequence[str], equivalents: list[dict[str, str]]) -> Counter[str]:
    """Test all mutants of a module; return how many are killed, equivalent and alive."""
    source = path.read_text(encoding="utf-8")
    selection, lines_of = select(path, tests), statement_lines(source)
    name = str(path.relative_to(ROOT))
    known = {
        (e["before"], e["after"], e.get("function")) for e in equivalents if e["module"] == name
    }
    function_at = function_names(source)
    used: set[tuple[str, str, str | None]] = set()
    result = Counter[str]()
    everything = selection.of(range(1, len(source.splitlines()) + 1))
    if not survives(path, None, everything, 600):
        raise SystemExit(f"in a fork, the tests of {path} fail as it is")
    for mutant in mutants_of(source):
        places = (function_at(mutant.line), None)
        if keys := known & {(mutant.before, mutant.after, place) for place in places}:
            used |= keys
            result["equivalent"] += 1
            continue
        selected = selection.of(lines_of(mutant.line))
        # Coverage misses some lines that the tasks of an event loop execute.
        others = [test for test in everything if test not in selected]
        if any(
            not survives(path, mutant, part, selection.limit_seconds(part))
            for part in (selected, others)
            if part
        ):
            result["killed"] += 1
            continue
        result["survived"] += 1
        print(f"{name}:{mutant}" + ("" if selected else "  (no test)"), flush=True)
    for before, after, _ in known - used:
        result["stale"] += 1
        print(f"{name}: no such mutant any more: {before}  ->  {after}", flush=True)
    return result


def score(result: Counter[str]) -> float:
    """Return the part of the mutants that tests kill, of those that could be killed."""
    tested = result["killed"] + result["survived"]
    return result["killed"] / tested if tested else 1.0


def main() -> None:
    """Examine the modules that are listed, and print the score."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("modules", nargs="*", help="ends of paths; all modules if none is given")
    wanted = parser.parse_args().modules
    listed = tomllib.loads(LIST.read_text(encoding="utf-8"))
    home = tempfile.mkdtemp(prefix="mutants-airflow-")
    for name in [name for name in os.environ if name.startswith(("AIRFLOW_", "DATABRICKS_"))]:
        del os.environ[name]
    os.environ |= {"AIRFLOW_HOME": home, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    os.chdir(ROOT)
    total = Counter[str]()
    try:
        for name in PRELOADED:
            importlib.import_module(name)
        # Airflow has asked the package what it brings; each mutant imports it anew.
        for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
            del sys.modules[name]
        for module, tests in listed["modules"].items():
            if wanted and not module.endswith(tuple(wanted)):
                continue
            started = time.monotonic()
            result = examine(ROOT / module, tests, listed.get("equivalent", []))
            seconds = time.monotonic() - started
            print(f"{module}: {score(result):.1%} {dict(result)} in {seconds:.0f} s", flush=True)
            total += result
    finally:
        shutil.rmtree(home, ignore_errors=True)
    print(f"All: {score(total):.1%} {dict(total)}")
    if score(total) < AIM or total["stale"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()

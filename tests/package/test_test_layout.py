"""How the tests themselves are arranged."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.helpers.syntax import statements

TESTS = Path(__file__).parents[1]
FILES = sorted(TESTS.rglob("*.py"))


def imported_modules(file: Path) -> set[str]:
    """Return the absolute names of the modules that a file imports from, also inside functions."""
    package = (TESTS.name, *file.relative_to(TESTS).parts[:-1])
    found: set[str] = set()
    for node in statements(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return found


def test_nothing_is_imported_from_a_test_module() -> None:
    """What tests share stands in helpers, fakes and fixtures; the benchmarks are not part of it."""
    for file in FILES:
        for name in imported_modules(file):
            first, *others = name.split(".")
            assert first != "benchmarks", f"{file} imports {name}"
            if first == TESTS.name:
                shared = [one for one in others if one.startswith("test_") or one == "conftest"]
                assert not shared, f"{file} imports {name}"


def test_there_are_three_fakes_of_the_service() -> None:
    """A new behaviour of the service goes into one of them, so that they cannot drift apart."""
    names = {path.stem for path in (TESTS / "fakes").iterdir() if not path.stem.startswith("__")}
    fakes = {name for name in names if not name.startswith("test_")}
    # The services of identity stand beside the service.
    assert fakes == {"fake_service", "identity", "many_runs", "scripted_server"}

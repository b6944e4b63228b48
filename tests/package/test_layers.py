"""Which module imports which, what of Airflow they name, and what an import loads."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.helpers.syntax import statements

NAME = "airflow_jobs_provider"
PACKAGE = Path(__file__).parents[2] / NAME
# From the bottom to the top. A module belongs to the longest of these names that its own begins
# with, and imports modules of that one and of lower layers only.
LAYERS = (
    ("_version", "official_names"),
    ("api",),
    ("api.endpoints",),
    ("api.workflows.events",),
    ("api.pagination", "api.base_client", "api.workflows.base"),
    ("api.async_client", "api.blocking_client", "api.workflows"),
    ("api.auth.sdk", "api.client"),
    ("local",),
    ("xcom", "exceptions"),
    ("airflow_compat",),
    ("metrics",),
    ("links", "run_result", "hooks"),
    ("ui",),
    ("triggers",),
    ("operators",),
    ("decorators",),
    ("sensors",),
    ("preload",),
    ("plugin",),
    ("testing",),
    ("migrate",),
    ("",),
)
# What those modules import of Airflow that are not in airflow_compat: public in all its lines.
PUBLIC_AIRFLOW = (
    "airflow.providers.amazon",
    "airflow.providers.common.compat.connection",
    "airflow.providers.common.compat.sdk",
    "airflow.triggers.base",
)
# Likewise, for type annotations: Airflow 2 does not have it.
TYPES_OF_AIRFLOW = "airflow.sdk"


def module_name(file: Path) -> str:
    """Return a module's name below the package; empty for the package itself."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MAX_LINES = 500
# Longer modules, which are tables of data.
TABLES = {"api.schema.request_types"}

FILES = {module_name(file): file for file in sorted(PACKAGE.rglob("*.py"))}


@cache
def tree(name: str) -> ast.Module:
    """Return a module's syntax tree. Every test process imports this file; few need the trees."""
    return ast.parse(FILES[name].read_text())


def imports(source: ast.AST) -> set[str]:
    """Return what a module imports anywhere: also in functions and under TYPE_CHECKING."""
    found: set[str] = set()
    for node in statements(source):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@cache
def own_imports(name: str) -> frozenset[str]:
    """Return the modules of this package that a module imports, by their names below it."""
    found: set[str] = set()
    for imported in imports(tree(name)):
        package, _, below = imported.partition(".")
        if package == NAME:
            # What is imported from a module is no module.
            found.add(below if below in FILES else below.rpartition(".")[0])
    return frozenset(found)


def is_in(name: str, part: str) -> bool:
    """Return whether a module is a part, or in it."""
    return not part or name == part or name.startswith(f"{part}.")


def place(name: str) -> tuple[int, str]:
    """Return a module's layer, and which part of it the module is in."""
    _, layer, part = max(
        (len(part), layer, part)
        for layer, parts in enumerate(LAYERS)
        for part in parts
        if is_in(name, part)
    )
    return layer, part


def test_every_module_has_a_layer() -> None:
    """The topmost one is for the package itself only, and no part is a leftover."""
    assert [name for name in FILES if place(name)[1] == ""] == [""]
    parts = {part for parts in LAYERS for part in parts}
    assert parts == {place(name)[1] for name in FILES}


def test_no_module_is_too_long_but_tables_of_data() -> None:
    """A module that grows is split; a table that has become short is no exception any more."""
    long = {name for name, file in FILES.items() if len(file.read_text().splitlines()) > MAX_LINES}
    assert long == TABLES


def test_imports_run_downwards() -> None:
    """A module imports its own part and lower layers."""
    upwards = []
    for name in FILES:
        layer, part = place(name)
        for imported in own_imports(name):
            other_layer, other_part = place(imported)
            if other_part != part and other_layer >= layer:
                upwards.append(f"{name} imports {imported}")
    assert upwards == []


def test_no_imports_are_circular() -> None:
    """Not even those in functions, or for types only. A cycle raises CycleError with its names."""
    graph = {name: own_imports(name) - {name} for name in FILES}
    assert len(list(TopologicalSorter(graph).static_order())) == len(FILES)


def test_migrate_stands_alone() -> None:
    """It reads DAG files as text: nothing of the provider itself is loaded."""
    names = [name for name in FILES if is_in(name, "migrate")]
    others = {other for name in names for other in own_imports(name)} - {"official_names"}
    assert names
    assert {other for other in others if not is_in(other, "migrate")} == set()


def test_only_tests_import_the_local_workspace() -> None:
    """What runs in Airflow knows nothing of it."""
    names = [name for name in FILES if place(name)[1] not in ("local", "testing")]
    assert [name for name in names if any(is_in(one, "local") for one in own_imports(name))] == []


def test_the_api_the_local_workspace_and_migrate_know_no_airflow() -> None:
    """They work where it is not installed."""
    names = [n for n in FILES if place(n)[0] <= place("local")[0] or is_in(n, "migrate")]
    assert names
    for name in names:
        roots = {other.partition(".")[0] for other in imports(tree(name))}
        assert "airflow" not in roots, name


def private_uses(source: ast.AST) -> list[str]:
    """Return what in a module depends on Airflow's version or internals."""
    typing_only: set[ast.AST] = set()
    from_airflow: set[str] = set()
    found: list[str] = []
    for statement in statements(source):
        if isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
            typing_only |= {inner for one in statement.body for inner in statements(one)}
    for node in ast.walk(source):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for imported in imports(node):
                if imported.partition(".")[0] != "airflow":
                    continue
                from_airflow.add(imported.rpartition(".")[2])
                public = (*PUBLIC_AIRFLOW, *([TYPES_OF_AIRFLOW] if node in typing_only else []))
                if not any(is_in(imported, part) for part in public):
                    found.append(imported)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # As in import_module("airflow.models"), or an attribute of a private name.
            is_module = re.fullmatch(r"airflow(\.\w+)+", node.value)
            if (is_module and node.value not in PUBLIC_AIRFLOW) or re.match(
                r"_[A-Z]\w+__\w", node.value
            ):
                found.append(node.value)
        elif isinstance(node, (ast.Name, ast.Attribute)):
            word = node.id if isinstance(node, ast.Name) else node.attr
            if word in ("SUPERVISOR_COMMS", "_getframe", "airflow_line", "airflow_version"):
                found.append(word)
            elif word == "modules" and ast.unparse(node) == "sys.modules":
                found.append("sys.modules")
    for node in ast.walk(source):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("hasattr", "getattr"):
            if ast.unparse(node.args[0]) in from_airflow:
                found.append(ast.unparse(node))
        elif isinstance(node, ast.Try) and "ImportError" in "".join(
            ast.unparse(handler.type) for handler in node.handlers if handler.type
        ):
            found += [name for name in imports(node) if name.partition(".")[0] == "airflow"]
    return found


def test_only_airflow_compat_knows_airflows_versions_and_internals() -> None:
    """A new version of Airflow is a change there, and nowhere else."""
    free = ("airflow_compat", "local", "migrate", "official_names")
    uses = {name: private_uses(tree(name)) for name in FILES if place(name)[1] not in free}
    assert {name: found for name, found in uses.items() if found} == {}


@pytest.mark.parametrize(
    "code",
    [
        "from airflow import __version__",
        "import airflow.models",
        "def f():\n    from airflow.sdk.execution_time.comms import GetTaskStates",
        "from airflow.sdk import Context",
        "if TYPE_CHECKING:\n    from airflow.models import TaskInstance",
        "import_module('airflow.sdk.execution_time.comms')",
        "from airflow.triggers.base import BaseTrigger\nhasattr(BaseTrigger, 'on_kill')",
        "try:\n    from airflow.triggers.base import TaskFailedEvent\nexcept ImportError: ...",
        "task_runner.SUPERVISOR_COMMS.send(1)",
        "sys._getframe()",
        "sys.modules.get('x')",
        "airflow_version() >= (3, 0)",
        "getattr(task, '_BaseOperator__from_mapped', False)",
    ],
)
def test_a_version_check_and_a_private_import_are_found(code: str) -> None:
    """The test above is not blind."""
    assert private_uses(ast.parse(code))


@pytest.mark.parametrize(
    "code",
    [
        "from airflow.providers.common.compat.sdk import BaseOperator",
        "from airflow.triggers.base import BaseTrigger",
        "if TYPE_CHECKING:\n    from airflow.sdk import Context",
        "hasattr(value, 'resolve')",
        "try:\n    import resource\nexcept ImportError: ...",
    ],
)
def test_public_names_are_no_private_use(code: str) -> None:
    """All lines of Airflow have them."""
    assert private_uses(ast.parse(code)) == []


def loaded_by(statement: str, after: str = "") -> set[str]:
    """Return the modules that a statement loads in a fresh interpreter, after another one."""
    code = f"import sys\n{after}\nb = set(sys.modules)\n{statement}\nprint(*(set(sys.modules) - b))"
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=PACKAGE.parent
    )
    return set(result.stdout.splitlines()[-1].split())


@pytest.mark.slow
def test_the_operators_are_imported_within_100_ms() -> None:
    """Of processor time, after Airflow itself: every DAG file that uses them pays it."""
    code = (
        "import time\n"
        "from airflow.providers.common.compat.sdk import "
        "BaseHook, BaseOperator, BaseOperatorLink, BaseSensorOperator, XCom, conf\n"
        "before = time.process_time()\n"
        "import airflow_jobs_provider.operators.jobs\n"
        "print(time.process_time() - before)"
    )

    def measure() -> float:
        result = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        )
        return float(result.stdout.splitlines()[-1])

    # The first one may have to compile. One process is enough where it has not.
    assert any(measure() < 0.1 for _ in range(3))


def test_the_package_itself_loads_nothing_else() -> None:
    """Airflow imports the package at every start, to ask what it brings."""
    loaded = loaded_by("import airflow_jobs_provider; airflow_jobs_provider.get_provider_info()")
    assert {name for name in loaded if name.partition(".")[0] == NAME} == {
        NAME,
        f"{NAME}._version",
        f"{NAME}.airflow_compat",
        f"{NAME}.airflow_compat.forking_processes",
        f"{NAME}.hooks",
        f"{NAME}.hooks.form",
        f"{NAME}.preload",
    }
    assert {name.partition(".")[0] for name in loaded} <= {NAME, *sys.stdlib_module_names}


def test_the_api_works_without_airflow() -> None:
    """The client can be imported where Airflow is not installed."""
    loaded = loaded_by(
        "import airflow_jobs_provider.api.client, airflow_jobs_provider.api.endpoints",
        after="sys.modules['airflow'] = None",
    )
    assert "airflow_jobs_provider.api.client" in loaded

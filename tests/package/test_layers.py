"""Who imports whom, and what an import costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "airflow_jobs_provider"
# What a part may import of this package; imports run downwards only.
MAY_IMPORT = {
    "api": {"api"},
    "local": {"local", "api"},
    "exceptions": {"api"},
    "xcom": set(),
    "links": set(),
    "run_result": {"exceptions", "xcom", "api"},
    "connection_form": set(),
    "__init__": {"connection_form"},
    "hooks": {"hooks", "connection_form", "api"},
    "airflow_compat": {"airflow_compat", "xcom", "api"},
    "triggers": {"triggers", "airflow_compat", "run_result", "xcom", "hooks", "api"},
    "operators": {
        "operators",
        "triggers",
        "airflow_compat",
        "run_result",
        "exceptions",
        "links",
        "hooks",
        "api",
    },
    "sensors": {
        "sensors",
        "operators",
        "triggers",
        "airflow_compat",
        "exceptions",
        "links",
        "hooks",
        "api",
    },
}


def imports(file: Path) -> set[str]:
    """Return the modules that a file imports anywhere, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize(
    "file", sorted(PACKAGE.rglob("*.py")), ids=lambda f: str(f.relative_to(PACKAGE))
)
def test_imports_run_downwards(file: Path) -> None:
    """A part imports only parts below it; api and local never import Airflow."""
    part = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for name in imports(file):
        first, _, rest = name.partition(".")
        if first == "airflow":
            assert part not in ("api", "local"), f"{file} imports {name}"
        elif first == "airflow_jobs_provider":
            imported = rest.split(".")[0]
            if imported != "__version__":
                assert imported in MAY_IMPORT[part], f"{file} imports {name}"


def loaded_by(statement: str, after: str = "") -> set[str]:
    """Return the modules that a statement loads in a fresh interpreter, after another one."""
    code = f"import sys\n{after}\nb = set(sys.modules)\n{statement}\nprint(*(set(sys.modules) - b))"
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=PACKAGE.parent
    )
    return set(result.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("module", ["operators.jobs", "sensors.jobs"])
def test_parsing_a_dag_loads_nothing_heavy(module: str) -> None:
    """Importing the operators or the sensor loads no HTTP library, no models, no workspace."""
    loaded = loaded_by(
        f"import airflow_jobs_provider.{module}",
        after="import airflow.models\nfrom airflow.providers.common.compat.sdk import "
        "AirflowException, BaseOperator, BaseOperatorLink, BaseSensorOperator, PokeReturnValue, "
        "XCom, conf",
    )
    heavy = {"requests", "aiohttp", "pydantic", "tenacity", "nbclient", "pandas", "urllib3"}
    assert not {name.split(".")[0] for name in loaded} & heavy
    ours = {name for name in loaded if name.startswith("airflow_jobs_provider.")}
    assert not {
        n
        for n in ours
        if n.startswith(("airflow_jobs_provider.local", "airflow_jobs_provider.hooks"))
    }
    assert "airflow_jobs_provider.api.client" not in ours


def test_the_package_itself_loads_nothing_else() -> None:
    """Airflow imports the package at every start, to ask what it brings."""
    loaded = loaded_by("import airflow_jobs_provider; airflow_jobs_provider.get_provider_info()")
    ours = {"airflow_jobs_provider", "airflow_jobs_provider.connection_form"}
    assert loaded - {"__future__"} == ours


def test_the_api_works_without_airflow() -> None:
    """The client can be imported where Airflow is not installed."""
    loaded = loaded_by(
        "import airflow_jobs_provider.api.client, airflow_jobs_provider.api.endpoints",
        after="sys.modules['airflow'] = None",
    )
    assert "airflow_jobs_provider.api.client" in loaded

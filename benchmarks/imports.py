"""What it costs to have each provider: time to import its operators, and megabytes installed.

Import time is what an operator adds once Airflow itself is imported, which every DAG file that uses
it pays; the median of several fresh processes. Installed size is what the provider adds to an
environment that has Airflow alone: its own files and those of the packages that nothing else there
needs, with their compiled modules.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from typing import Any

OPERATORS = {
    "this one": "airflow_jobs_provider.operators.jobs",
    "official": "airflow.providers.databricks.operators.databricks",
}
DISTRIBUTION = {
    "this one": "airflow-jobs-provider",
    "official": "apache-airflow-providers-databricks",
}
_IMPORT = """
import sys, time
from importlib import import_module
from airflow.providers.common.compat.sdk import (
    DAG, BaseHook, BaseOperator, BaseOperatorLink, BaseSensorOperator, XCom, conf)
before = time.perf_counter()
getattr(import_module(sys.argv[1]), "DatabricksSubmitRunOperator")
print(time.perf_counter() - before)
"""
_SIZE = """
import json, py_compile, re, sys, tempfile
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import cache_from_source, find_spec
from pathlib import Path

def needed(name, extra=""):
    seen, todo = set(), [name]
    while todo:
        one = re.sub("[-_.]+", "-", todo.pop()).lower()
        if one in seen:
            continue
        try:
            found = distribution(one)
        except PackageNotFoundError:
            continue
        seen.add(one)
        for line in found.requires or ():
            if "extra ==" not in line:
                todo.append(re.match(r"[A-Za-z0-9._-]+", line)[0])
    return seen

def size(name):
    found = distribution(name)
    files = {Path(file.locate()) for file in found.files or ()}
    if '"editable": true' in (found.read_text("direct_url.json") or ""):
        folder = Path(find_spec(name.replace("-", "_")).origin).parent
        files |= {file for file in folder.rglob("*") if file.suffix != ".pyc"}
    files = {file for file in files if file.is_file()}
    # pip compiles what it installs; uv, and pip with --no-compile, do not.
    missing = [
        file
        for file in files
        if file.suffix == ".py" and Path(cache_from_source(str(file))) not in files
    ]
    return sum(file.stat().st_size for file in files) + sum(map(compiled_size, missing))

def compiled_size(file):
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder, "compiled")
        py_compile.compile(str(file), cfile=str(compiled), quiet=2)
        return compiled.stat().st_size if compiled.is_file() else 0

added = needed(sys.argv[1]) - needed("apache-airflow")
print(json.dumps({name: size(name) for name in sorted(added)}))
"""


def measure(python: str, provider: str, repeats: int = 7) -> dict[str, Any]:
    """Measure one provider in its environment."""

    def output(code: str, argument: str) -> str:
        result = subprocess.run(
            [python, "-c", code, argument], check=True, capture_output=True, text=True
        )
        return result.stdout.splitlines()[-1]

    seconds = [float(output(_IMPORT, OPERATORS[provider])) for _ in range(repeats)]
    sizes = json.loads(output(_SIZE, DISTRIBUTION[provider]))
    return {
        "provider": provider,
        "import_seconds": statistics.median(seconds),
        "installed_megabytes": sum(sizes.values()) / 1e6,
        "packages": sorted(sizes),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Write the measures as a Markdown table."""
    lines = [
        "| provider | import of the operators, after Airflow | installed size, without Airflow |",
        "| --- | --- | --- |",
    ]
    lines += [
        f"| {row['provider']} | {1000 * row['import_seconds']:.0f} ms "
        f"| {row['installed_megabytes']:.1f} MB in {len(row['packages'])} packages |"
        for row in rows
    ]
    return "\n".join(lines)


def section(rows: list[dict[str, Any]], date: str) -> str:
    """Return the section of docs/benchmarks.md, without its title.

    :param rows: the measures.
    :param date: the day on which they were taken.
    """
    return f"""{table(rows)}

The installed size includes the compiled modules. Measured on {date} by
`python -m benchmarks.imports PYTHON`, where PYTHON is one with the official provider. Under load
the times are longer."""


if __name__ == "__main__":
    measured = [measure(sys.executable, "this one")]
    if len(sys.argv) > 1:
        measured.append(measure(sys.argv[1], "official"))
    print(table(measured))

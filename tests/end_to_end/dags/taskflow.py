"""Functions and notebooks of decorated tasks; see test_taskflow.py."""

# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

FAST: dict[str, Any] = {"polling_period_seconds": 0.2}
CLUSTER: dict[str, Any] = {"existing_cluster_id": "local", **FAST}


def build() -> None:
    """Make the tasks inside a function, as a DAG function does."""

    @task.databricks_python(deferrable=True, requirements=["any"], **FAST)
    def serverless(rows: list[Any], ds: str | None = None, *, scale: float = 1.0) -> Any:
        """Return what came in, and where it ran."""
        from pathlib import Path

        text = """
    indented as it was
"""
        return {
            "rows": [[row, scale] for row in rows],
            "ds": ds,
            "text": text,
            "folder": Path.cwd().name,
            "braces": "{{job.id}}",
        }

    @task.databricks_python(**CLUSTER)
    def raising(rows: Any) -> None:
        def inner(number: int) -> int:
            return 1 // number

        inner(len(rows) - len(rows))

    @task.databricks_python(**CLUSTER)
    def large() -> str:
        return "x" * 6_000_000

    @task.databricks_python(**CLUSTER)
    def no_json() -> Any:
        return {"a": [{1, 2}]}

    @task
    def rows() -> list[Any]:
        return ["100 % {}", {"a": None}]

    given: Any = rows()
    serverless(given, scale=0.5)
    raising(given)
    large()
    no_json()


with DAG("taskflow", schedule=None):
    build()

"""The fields of a task of which exactly one says what it runs (reference: "JobTask")."""

from __future__ import annotations

__all__ = ["TASK_KINDS"]

TASK_KINDS = (
    "notebook_task",
    "spark_jar_task",
    "spark_python_task",
    "spark_submit_task",
    "pipeline_task",
    "run_job_task",
)

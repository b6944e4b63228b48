"""What a spark-submit task may be given ("SparkSubmitTask")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow_jobs_provider.local.checks.field_types import at
from airflow_jobs_provider.local.errors import invalid

__all__ = ["check_options", "check_spark_submit"]

_SET_BY_SERVICE = ("--master", "--deploy-mode", "--executor-cores")
# spark-submit's options that stand alone; each of the others is followed by its value.
_ALONE = ("--help", "-h", "--supervise", "--usage-error", "--verbose", "-v", "--version")


def check_spark_submit(settings: Mapping[str, Any], where: str) -> None:
    """It runs on a new cluster only, and takes its libraries and Spark settings as parameters."""
    if settings.get("existing_cluster_id"):
        place = at(where, "existing_cluster_id")
        raise invalid(f"spark_submit_task can run on a new_cluster only, not on an {place}")
    cluster = settings.get("new_cluster") or {}
    for place, holder, name, instead in (
        (where, settings, "libraries", "--jars and --py-files"),
        (at(where, "new_cluster"), cluster, "libraries", "--jars and --py-files"),
        (at(where, "new_cluster"), cluster, "spark_conf", "--conf"),
    ):
        if holder.get(name):
            raise invalid(
                f"{at(place, name)} is not supported with spark_submit_task; use {instead}"
            )
    parameters = settings["spark_submit_task"].get("parameters") or []
    check_options(at(where, "spark_submit_task.parameters"), parameters)


def check_options(place: str, parameters: Sequence[str]) -> None:
    """Refuse the options that the service sets itself.

    Only those before the program's own file: what comes after it is the program's.
    """
    index = 0
    while index < len(parameters) and parameters[index].startswith("-"):
        option, has_value, _ = parameters[index].partition("=")
        if option in _SET_BY_SERVICE:
            raise invalid(f"{place}[{index}] must not be {option}, which is set automatically")
        index += 1 if has_value or option in _ALONE else 2

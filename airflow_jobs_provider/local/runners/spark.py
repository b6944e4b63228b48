"""Running through pyspark's spark-submit (reference: "SparkSubmitTask", "SparkJarTask")."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from typing import Any

from airflow_jobs_provider.local.engine.parameters import list_parameters
from airflow_jobs_provider.local.engine.runner import CannotRunError, Outcome
from airflow_jobs_provider.local.paths import PathRefusedError, data_file_in_root
from airflow_jobs_provider.local.runners.python import ProcessRunner, file_missing

__all__ = ["SparkJarRunner", "SparkSubmitRunner"]


class SparkSubmitRunner(ProcessRunner):
    """Runs the parameters of a ``spark_submit_task``."""

    async def setup(self) -> None:
        """Check that pyspark is installed."""
        self._spark_submit = _spark_submit(next(iter(self._run.task)))

    def command(self) -> tuple[list[str], Path] | Outcome:
        """Return the spark-submit command; DBFS paths are mapped to files below the root."""
        try:
            parameters = [self._local(text) for text in list_parameters(self._run)]
        except PathRefusedError as error:
            return file_missing("of spark_submit_task", str(error))
        return [*self._start(), *parameters], self._workspace.root

    def _start(self) -> list[str]:
        warehouse = f"spark.sql.warehouse.dir={self._spark_warehouse}"
        return [self._spark_submit, "--master", "local[*]", "--conf", warehouse]

    def _local(self, parameter: str) -> str:
        # --jars and its like take several paths, joined with commas.
        return ",".join(
            str(data_file_in_root(self._workspace.root, part)) if part.startswith("dbfs:") else part
            for part in parameter.split(",")
        )


class SparkJarRunner(SparkSubmitRunner):
    """Runs the main class of a ``spark_jar_task``, out of the JARs among the libraries."""

    def command(self) -> tuple[list[str], Path] | Outcome:
        """Return spark-submit with the main class, its JARs and its parameters."""
        task: dict[str, Any] = self._run.task["spark_jar_task"]
        libraries: list[dict[str, Any]] = self._run.cluster_spec.get("libraries") or []
        uris = [library["jar"] for library in libraries if "jar" in library]
        if task.get("jar_uri"):
            uris.insert(0, task["jar_uri"])
        if not uris:
            return Outcome.failure("spark_jar_task needs a JAR among the run's libraries")
        files = []
        for uri in uris:
            try:
                files.append(data_file_in_root(self._workspace.root, uri))
            except PathRefusedError as error:
                return file_missing(uri, str(error))
            if not files[-1].is_file():
                return file_missing(uri, f"there is no file {files[-1]}")
        command = [*self._start(), "--class", task["main_class_name"]]
        if files[1:]:
            command += ["--jars", ",".join(map(str, files[1:]))]
        command += [str(files[0]), *list_parameters(self._run)]
        return command, self._workspace.root


def _spark_submit(kind: str) -> str:
    spec = importlib.util.find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise CannotRunError(
            f"{kind} needs pyspark and Java on this machine: pip install pyspark, "
            "and install a Java runtime."
        )
    java = Path(os.environ["JAVA_HOME"], "bin", "java") if "JAVA_HOME" in os.environ else None
    if not (java and java.exists()) and shutil.which("java") is None:
        raise CannotRunError(f"{kind} needs Java on this machine: install a Java runtime.")
    return str(Path(spec.origin).with_name("bin") / "spark-submit")

"""What a notebook imports: files of the workspace, but no notebooks; and Databricks' own modules.

On Databricks a notebook is no module. So a notebook named ``statistics`` hides nothing from code
that imports the module of the standard library.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from airflow_jobs_provider.local.notebook_files import SOURCE_HEADER

__all__ = ["NotebookSkipper", "provide_modules"]

_RUNTIME_NAMES = ("dbutils", "spark", "sc", "display", "displayHTML", "getArgument")


class NotebookSkipper:
    """A finder for ``sys.meta_path`` that passes over the notebooks below the given folders."""

    def __init__(self, *roots: Path) -> None:
        self._roots = {os.path.realpath(root) for root in roots}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the module that a notebook of the same name would hide; None if there is none.

        :raises ModuleNotFoundError: only a notebook has that name.
        """
        entries = sys.path if path is None else path
        file_name = f"{name.rpartition('.')[2]}.py"
        hiding = [entry for entry in entries if self._is_notebook(entry, file_name)]
        if not hiding:
            return None
        spec = PathFinder.find_spec(name, [one for one in entries if one not in hiding], target)
        if spec is None:
            file = os.path.join(hiding[0], file_name)  # noqa: PTH118  (may be relative)
            raise ModuleNotFoundError(
                f"No module named {name!r}: {file} is a notebook, which cannot be imported. "
                "Use %run, or remove its first line to make it a file",
                name=name,
            )
        return spec

    def _is_notebook(self, entry: object, file_name: str) -> bool:
        if not isinstance(entry, str) or not self._is_below_root(entry):
            return False
        try:
            with (Path(entry) / file_name).open("rb") as file:
                line = file.readline(len(SOURCE_HEADER) + 8)
        except OSError:
            return False
        return line.removeprefix(b"\xef\xbb\xbf").strip() == SOURCE_HEADER.encode()

    def _is_below_root(self, entry: str) -> bool:
        folder = os.path.realpath(entry)
        return any(folder == root or folder.startswith(root + os.sep) for root in self._roots)


def provide_modules(names: Mapping[str, Any]) -> None:
    """Provide ``pyspark.dbutils`` and ``databricks.sdk.runtime``, as on Databricks.

    :param names: what a notebook finds defined.
    """

    def of_session(*_: object) -> Any:
        """Return the notebook's ``dbutils``; ``DBUtils(spark)`` is how modules get it."""
        return names["dbutils"]

    of_spark: Any = ModuleType("pyspark.dbutils", "dbutils of the local workspace.")
    of_spark.DBUtils = of_session
    runtime: Any = ModuleType("databricks.sdk.runtime", "The names of a notebook.")
    vars(runtime).update({name: names[name] for name in _RUNTIME_NAMES})
    runtime.__all__ = [*_RUNTIME_NAMES]
    # Found here, a module needs no parent package, so neither pyspark nor databricks-sdk.
    sys.modules.update({"pyspark.dbutils": of_spark, "databricks.sdk.runtime": runtime})

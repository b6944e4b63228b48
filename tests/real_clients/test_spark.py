"""Notebooks and SQL cells with the real pyspark."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest

from tests.local.api import Api
from tests.real_clients.client import WORKSPACE, Client

# It installs the whole of Spark, which takes minutes.
pytestmark = [
    pytest.mark.real_clients,
    pytest.mark.thorough,
    pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java"),
]

WRITES = (
    "dbutils.widgets.text('least', '1')",
    """
    from pyspark.sql import SparkSession
    from pyspark.sql.functions import udf

    assert isinstance(spark, SparkSession)
    assert SparkSession.getActiveSession() is spark
    double = udf(lambda value: value * 2, "int")
    spark.range(3).withColumn("double", double("id")).write.saveAsTable("numbers")
    """,
    """
    %sql
    CREATE OR REPLACE TEMPORARY VIEW large AS SELECT * FROM numbers WHERE double > :least;
    SELECT count(*) AS count FROM large
    """,
    """
    display(_sqldf)
    dbutils.notebook.exit(str(_sqldf.first()["count"]))
    """,
)


def test_spark(client_of: Callable[..., Client], workspace_of: Callable[[Client], Api]) -> None:
    """A notebook writes a table with a function of its own, and reads it in a cell of SQL."""
    api = workspace_of(client_of("spark", "pyspark==4.3.0", *WORKSPACE))
    assert result_of(api, api.notebook(*WRITES)) == "2"


def result_of(api: Api, path: str) -> Any:
    """Run a notebook; return its result, or how it failed."""
    run_id = api.submit(notebook_task={"notebook_path": path})
    api.wait(run_id, seconds=120)
    output = api.output(run_id)
    return output["notebook_output"].get("result", output)

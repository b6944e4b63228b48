"""An Airflow home of the tests' own, set before anything imports Airflow."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

_HOME = tempfile.mkdtemp(prefix="airflow-jobs-provider-tests-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
for name in list(os.environ):
    if name.startswith(("AIRFLOW_", "DATABRICKS_")) or name == "NETRC":
        del os.environ[name]
os.environ["AIRFLOW_HOME"] = _HOME
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
# No .netrc of the person who runs the tests is read.
os.environ["NETRC"] = f"{_HOME}/netrc"

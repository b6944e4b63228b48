"""The local workspace as a program of its own, for tests."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.local.api import Address, Api

REPOSITORY = Path(__file__).parents[2]


class Program:
    """A running ``python -m airflow_jobs_provider.local``.

    :param environment: a virtual environment whose Python runs it, in place of this one.
    """

    def __init__(self, root: Path, *arguments: str, environment: Path | None = None) -> None:
        self.root = root
        env = {**os.environ}
        if environment is None:
            command = [sys.executable, "-W", "error"]
        else:
            # Other versions of libraries may warn.
            command = [str(environment / "bin" / "python")]
            env["PATH"] = f"{environment / 'bin'}{os.pathsep}{env['PATH']}"
        command += ["-m", "airflow_jobs_provider.local"]
        self.process = subprocess.Popen(
            [*command, "--root", str(root), *arguments],
            cwd=REPOSITORY,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def connection(self) -> dict[str, str]:
        """Read the printed lines up to the connection, and return that."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            found = re.match(r"export AIRFLOW_CONN_DATABRICKS_DEFAULT=(.*)", line)
            if found:
                [text] = shlex.split(found[1])
                connection: dict[str, str] = json.loads(text)
                return connection
        raise AssertionError(self.process.communicate())

    def api(self) -> Api:
        """Read the printed lines up to the connection, and return a client of the workspace."""
        connection = self.connection()
        return Api(Address(connection["host"], connection["password"], self.root))

    def end(self) -> tuple[str, str]:
        """Wait for its end, and return what else it printed."""
        return self.process.communicate(timeout=20)

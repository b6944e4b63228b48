"""A client of the Jobs API in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_jobs_provider.local.workspace import LocalWorkspace

# What a workspace needs that runs in a client's environment.
WORKSPACE = ("aiohttp", "ipykernel", "nbclient", "nbconvert", "nbformat", "packaging", "psutil")


@dataclass(frozen=True)
class Client:
    """A client's environment, and where it is to go.

    :param folder: the virtual environment.
    :param home: the home folder of its programs.
    :param proxy_url: the proxy for plain HTTP, if there is one.
    :param variables: more variables of its programs' environment.
    """

    folder: Path
    workspace: LocalWorkspace
    home: Path
    proxy_url: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)

    def run(self, *command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment, with nothing of ours but the connection."""
        program = self.folder / "bin" / command[0]
        return subprocess.run(
            [str(program), *command[1:]],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.home),
                "DATABRICKS_HOST": self.workspace.url,
                "DATABRICKS_TOKEN": self.workspace.token,
                **({"http_proxy": self.proxy_url} if self.proxy_url else {}),
                **self.variables,
            },
            cwd=cwd,
            capture_output=True,
            text=True,
            # The first command compiles the modules of a new environment.
            timeout=300,
            check=False,
        )

    def json(self, *command: str) -> Any:
        """Run a program that prints JSON, and return that."""
        done = self.run(*command)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

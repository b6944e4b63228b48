"""The workspace stays small: it may be one of many processes on a laptop, or on a CI machine."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.local.program import REPOSITORY

MOST_MEGABYTES = 60


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="measured on Linux")
def test_memory_of_the_server() -> None:
    """With a thousand runs kept, a notebook executed and pages opened; the benchmark has 10,000."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.workspace_memory", "1000"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split("|") for line in done.stdout.splitlines() if line.startswith("|")][2:]
    assert len(rows) == 6
    proportional = {row[1].strip(): float(row[2]) for row in rows}
    assert max(proportional.values()) < MOST_MEGABYTES, done.stdout

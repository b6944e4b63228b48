"""The workspace stays small: it may be one of many processes on a laptop, or on a CI machine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.workspace_memory import measure

MOST_MEGABYTES = 60


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="measured on Linux")
def test_memory_of_the_server(tmp_path: Path) -> None:
    """With a thousand runs kept, a notebook executed and pages opened; the benchmark has 10,000."""
    found = measure(tmp_path, 1000)
    assert max(one.proportional for one in found.memory.values()) < MOST_MEGABYTES, found

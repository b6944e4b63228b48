"""How many examples a test with random input has."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings

__all__ = ["examples"]

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))


def examples(quick: int) -> Callable[[Any], Any]:
    """Give a test so many examples with a fixed seed, or FUZZ_EXAMPLES random ones."""
    return settings(
        max_examples=EXAMPLES or quick,
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )

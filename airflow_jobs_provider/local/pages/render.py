"""The template engine of the pages: escaping, and how times and states are written."""

from __future__ import annotations

import json
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_jobs_provider.local.pages.states import attempt_of, kind_of

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["SHOWN_CHARS", "render"]

SHOWN_CHARS = 100_000
_SECOND, _MINUTE, _HOUR, _DAY = 1000, 60_000, 3_600_000, 86_400_000


def render(template: str, **values: Any) -> str:
    """Return a page."""
    return _templates().get_template(template).render(**values)


def moment(millis: int) -> str:
    """Return a time in the time zone of this machine."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(millis / 1000))


def span(millis: int) -> str:
    """Return a duration in its two largest units."""
    if millis < _MINUTE:
        return f"{millis / _SECOND:.1f} s"
    if millis < _HOUR:
        return f"{millis // _MINUTE} min {millis % _MINUTE // _SECOND} s"
    if millis < _DAY:
        return f"{millis // _HOUR} h {millis % _HOUR // _MINUTE} min"
    return f"{millis // _DAY} d {millis % _DAY // _HOUR} h"


def pretty(data: Any) -> str:
    """Return JSON to be read."""
    return json.dumps(data, indent=2, ensure_ascii=False)


@cache
def _templates() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"attempt": attempt_of, "kind": kind_of}
    environment.filters |= {"moment": moment, "pretty": pretty, "span": span}
    environment.globals["shown"] = SHOWN_CHARS
    return environment

"""What the official provider offers for jobs is here, or stands in docs/migrating.md.

``tests/data/official_provider.json`` is what its classes offer; ``tests/real_clients`` checks the
record against the package itself.
"""

from __future__ import annotations

import copy
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from airflow_jobs_provider import exceptions, links, xcom
from airflow_jobs_provider.hooks import jobs as hooks
from airflow_jobs_provider.operators import jobs as operators
from airflow_jobs_provider.sensors import jobs as sensors
from airflow_jobs_provider.triggers import jobs as triggers
from tests.helpers.surface import differences, surface

ROOT = Path(__file__).parents[2]
OFFICIAL: dict[str, Any] = json.loads((ROOT / "tests/data/official_provider.json").read_text())
PAGE = ROOT / "docs" / "migrating.md"
# Here None stands for Airflow's setting, which the official provider reads when it is imported.
AIRFLOWS_SETTING = (
    "deferrable",
    "openlineage_inject_parent_job_info",
    "openlineage_inject_transport_info",
)


@cache
def ours() -> dict[str, Any]:
    """Return what this package offers."""
    modules = (operators, sensors, hooks, triggers, links, exceptions)
    found = surface("airflow_jobs_provider", modules, with_airflows=True)
    found["xcoms"] = sorted(xcom.RESERVED_KEYS)
    for facts in found["classes"].values():
        for name in AIRFLOWS_SETTING:
            if facts["arguments"].get(name, "") is None:
                facts["arguments"][name] = False
    return found


def listed(page: str) -> list[str]:
    """Return what the tables under "What differs" name in their first column."""
    _, _, section = page.partition("\n## What differs\n")
    section, _, _ = section.partition("\n## ")
    cells = re.findall(r"^\| *(`[^|]*?) *\|", section, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


@cache
def found_differences() -> list[str]:
    """Return what differs now."""
    return differences(OFFICIAL, ours())


def test_the_page_lists_what_is_missing_or_different() -> None:
    """Each difference stands in one of the page's tables, and nothing that is no difference."""
    names = listed(PAGE.read_text())
    found = set(found_differences())
    assert sorted(names) == sorted(set(names))
    assert sorted(found - set(names)) == [], "not in docs/migrating.md"
    assert sorted(set(names) - found) == [], "in docs/migrating.md, but no difference"


@pytest.mark.parametrize(
    ("path", "value", "name"),
    [
        (
            ("classes", "DatabricksSubmitRunOperator", "arguments", "of_tomorrow"),
            None,
            "DatabricksSubmitRunOperator(of_tomorrow)",
        ),
        (
            ("classes", "DatabricksRunNowOperator", "arguments", "repair_run"),
            True,
            "DatabricksRunNowOperator(repair_run=true)",
        ),
        (
            ("classes", "DatabricksRunNowOperator", "arguments", "polling_period_seconds"),
            60,
            "DatabricksRunNowOperator(polling_period_seconds=60)",
        ),
        (
            ("classes", "DatabricksRunNowOperator", "template_fields"),
            ["max_repairs"],
            "DatabricksRunNowOperator.template_fields.max_repairs",
        ),
        (
            ("classes", "DatabricksRunNowOperator", "attributes"),
            ["cluster_id"],
            "DatabricksRunNowOperator.cluster_id",
        ),
        (
            ("classes", "DatabricksSubmitRunOperator", "links"),
            ["See Spark"],
            "DatabricksSubmitRunOperator.links.See Spark",
        ),
        (
            ("classes", "DatabricksTomorrowOperator"),
            {"arguments": {}, "attributes": []},
            "DatabricksTomorrowOperator",
        ),
        (("xcoms",), ["cluster_id"], "XCom cluster_id"),
    ],
)
def test_a_new_release_is_noticed(path: tuple[str, ...], value: Any, name: str) -> None:
    """What it adds or changes is found by its name."""
    newer = copy.deepcopy(OFFICIAL)
    *parents, last = path
    place = newer
    for parent in parents:
        place = place[parent]
    place[last] = value
    known = found_differences()
    assert [one for one in differences(newer, ours()) if one not in known] == [name]


def test_methods_are_compared() -> None:
    """Their names, arguments, places and defaults."""
    theirs = {"Hook": method({"json": "(required)", "limit": 5, "offset": 0})}
    for here, name in (
        ({}, "Hook.list()"),
        ({"list": {"json": "(required)", "limit": 5}}, "Hook.list(offset)"),
        ({"list": {"json": "(required)", "limit": 5, "offset": None}}, "Hook.list(offset=0)"),
        ({"list": {"json": "(required)", "all": 1, "limit": 5, "offset": 0}}, "Hook.list(limit)"),
    ):
        found = differences(
            {"classes": theirs, "xcoms": []},
            {"classes": {"Hook": {"arguments": {}, "attributes": [], "methods": here}}},
        )
        assert found[0] == name
    same = {"classes": theirs, "xcoms": []}
    assert differences(same, same) == []


def method(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return a class with one method."""
    return {"arguments": {}, "attributes": [], "methods": {"list": arguments}}


def test_the_tables_are_read() -> None:
    """Each name of a first cell, in the section and nowhere else."""
    page = "| `a` | x |\n## What differs\n### One\n| Official | Why |\n| --- | --- |\n"
    page += "| `b`, `c(d=3)` | `e` |\n\n## After\n| `f` | g |\n"
    assert listed(page) == ["b", "c(d=3)"]

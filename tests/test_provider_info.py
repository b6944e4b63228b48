"""What the package tells Airflow of itself."""

from __future__ import annotations

import inspect
import json
import pkgutil
from importlib import import_module
from pathlib import Path
from typing import Any

import airflow
import jsonschema
import pytest
from airflow.triggers.base import BaseTrigger

from airflow_jobs_provider import get_provider_info
from scripts.airflow_env import ROOT

NAME = "airflow_jobs_provider"
INFO: dict[str, Any] = get_provider_info()
LISTS = ("hooks", "operators", "sensors", "triggers")


def schema(name: str) -> dict[str, Any]:
    """Return a schema that this Airflow brings."""
    return dict(json.loads((Path(airflow.__file__).parent / name).read_text()))


def test_airflow_accepts_it() -> None:
    """A provider whose information does not fit stops every component of Airflow."""
    jsonschema.validate(INFO, schema("provider_info.schema.json"))


def test_each_section_is_as_in_the_providers_of_airflow() -> None:
    """The Airflow project's schema for provider.yaml is stricter, also about how-to guides."""
    strict = schema("provider.yaml.schema.json")
    sections = INFO.keys() & strict["properties"].keys()
    assert {"integrations", "connection-types", "config", "extra-links", *LISTS} <= sections
    for section in sections:
        definitions = {"definitions": strict.get("definitions", {})}
        jsonschema.validate(INFO[section], strict["properties"][section] | definitions)


def test_the_how_to_guides_exist() -> None:
    """Their paths are those of the repository."""
    (integration,) = INFO["integrations"]
    for path in integration["how-to-guide"]:
        assert (ROOT / path.removeprefix("/")).is_file(), path


@pytest.mark.parametrize("section", LISTS)
def test_the_modules_exist(section: str) -> None:
    """Each belongs to the integration."""
    names = {integration["integration-name"] for integration in INFO["integrations"]}
    for entry in INFO[section]:
        assert entry["integration-name"] in names
        for module in entry["python-modules"]:
            assert import_module(module).__all__


def test_all_triggers_are_listed() -> None:
    """``airflow providers triggers`` shows the modules of all class paths that may be stored."""
    for folder in ("operators", "triggers"):
        package = import_module(f"{NAME}.{folder}")
        for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            import_module(found.name)
    waiting: list[type] = [BaseTrigger]
    modules = set()
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if kind.__module__.startswith(f"{NAME}.") and not inspect.isabstract(kind):
            modules.add(kind.__module__)
    assert modules == {name for entry in INFO["triggers"] for name in entry["python-modules"]}

"""The typed structures against the reference's own list of them."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from airflow_jobs_provider.api import endpoints, states
from airflow_jobs_provider.api.schema import types
from airflow_jobs_provider.api.schema.introspection import (
    enum_values,
    fields_of,
    is_open_enum,
    named_types,
    structures,
)
from airflow_jobs_provider.api.schema.request_types import ENDPOINTS
from airflow_jobs_provider.api.schema.response_types import RESPONSES
from airflow_jobs_provider.api.schema.validation import find_problems, find_type_problems
from airflow_jobs_provider.api.schema.version_selection import choose_api_version
from airflow_jobs_provider.local.checks import field_types

DATA = Path(__file__).parents[2] / "data"
# The reference's structures, endpoints, fields and types, and its examples, as data.
REFERENCE = json.loads(
    (Path(field_types.__file__).with_name("reference_2_0.json")).read_text("utf-8")
)
EXAMPLES = json.loads((DATA / "examples.json").read_text())
STRUCTURES = structures()
NAMED = named_types()
# Where the service has outgrown the reference's type.
WIDER = {("RunJobTask", "job_id"): "INT64", ("JobsHealthRule", "value"): "INT64"}
# A place to keep files is nothing without its destination ("Destination must be provided").
STRICTER = {"ABFSSStorageInfo", "DbfsStorageInfo", "FileStorageInfo", "WorkspaceStorageInfo"}
# What the reference asks for elsewhere than in the structure, or forgets to.
REQUIRED_TOO = {
    "Reset": {"new_settings"},
    "Run now": {"job_id"},
    "Runs delete": {"run_id"},
}
# Required unless a cluster policy sets it, so a rule sees to it.
BY_RULE = {("NewCluster", "spark_version")}


def same_fields(name: str, ours: Any, theirs: dict[str, str], required: set[str]) -> None:
    """Compare a structure with the reference's."""
    fields = fields_of(ours)
    assert theirs.keys() <= fields.keys(), f"{name}: missing fields"
    for field_name, type_name in theirs.items():
        field = fields[field_name]
        wanted = WIDER.get((name, field_name), type_name).replace("map of ", "")
        assert field.type_name == wanted, f"{name}.{field_name}"
        assert not field.is_later, f"{name}.{field_name} is in the reference"
    by_rule = {field for structure, field in BY_RULE if structure == name}
    assert {f.name for f in fields.values() if f.required} == required - by_rule, name
    beyond = {f.name for f in fields.values() if not f.is_later} - theirs.keys()
    assert not beyond, f"{name}: not marked as later"


@pytest.mark.parametrize("name", REFERENCE["structures"])
def test_each_structure_of_the_reference_is_typed(name: str) -> None:
    """Each structure has the reference's fields with the reference's types, and no unmarked one."""
    entry = REFERENCE["structures"][name]
    if "values" in entry:
        values, listed = enum_values(NAMED[name]), tuple(entry["values"])
        # An open enumeration has the values, too, that the service is known to add.
        assert values[: len(listed)] == listed
        assert is_open_enum(NAMED[name]) or values == listed
    elif "map" in entry:
        assert name in NAMED
    else:
        required = set(entry["required"]) | ({"destination"} if name in STRICTER else set())
        theirs = dict(entry["fields"])
        if name == "InitScriptInfo":
            theirs["file"] = "FileStorageInfo"  # told in the section's note
        same_fields(name, STRUCTURES[name], theirs, required)


@pytest.mark.parametrize("section", REFERENCE["endpoints"])
def test_each_endpoint_of_the_reference_is_typed(section: str) -> None:
    """Each endpoint takes and gives the reference's fields; verb and path are the reference's."""
    entry = REFERENCE["endpoints"][section]
    endpoint = ENDPOINTS[entry["path"]]
    assert (endpoint.section, endpoint.verb) == (section, entry["verb"])
    required = set(entry["required"]) | REQUIRED_TOO.get(section, set())
    if section == "Create":
        # The section leaves out what "JobSettings" has.
        entry["request"]["health"] = "JobsHealthRules"
    same_fields(section, endpoint.request, entry["request"], required)
    if entry["response"]:
        theirs = dict(entry["response"])
        if section == "Runs get":
            # The section leaves out what "Run" has.
            theirs = {**REFERENCE["structures"]["Run"]["fields"], **theirs}
        same_fields(section, RESPONSES[endpoint.path], theirs, set())
    else:
        assert endpoint.path not in RESPONSES


def test_the_calls_are_the_endpoints() -> None:
    """The calls' verbs and paths are those of the typed endpoints."""
    made = {}
    for name in endpoints.__all__:
        function = getattr(endpoints, name)
        if inspect.isfunction(function):
            needed = [
                {"job_id": 1} if "settings" in p.name or p.name == "request" else 1
                for p in inspect.signature(function).parameters.values()
                if p.default is p.empty
            ]
            call = function(*needed)
            made[call.path] = call.verb
    known = {path: endpoint.verb for path, endpoint in ENDPOINTS.items()}
    assert {path: verb for path, verb in made.items() if path in known} == known


def test_the_states_are_the_references() -> None:
    """The table of states knows each state of the reference, and enumerations of it stay open."""
    known = {"RunLifeCycleState": states.RunLifeCycleState, "RunResultState": states.RunResultState}
    for name, enumeration in known.items():
        assert set(enum_values(NAMED[name])) <= {str(state) for state in enumeration}
        assert is_open_enum(NAMED[name])


def test_everything_public_is_exported() -> None:
    """The module's list names each structure, map and enumeration, and nothing else."""
    ours = {*STRUCTURES, *NAMED, "RunType"}
    assert set(types.__all__) == ours
    assert set(REFERENCE["structures"]) <= ours


REQUESTS = [example for example in EXAMPLES if example["kind"] == "request"]
RESPONSE_EXAMPLES = [example for example in EXAMPLES if example["kind"] == "response"]
PARTS = [example for example in EXAMPLES if example["kind"] == "part"]
BY_SECTION = {endpoint.section: endpoint for endpoint in ENDPOINTS.values()}


@pytest.mark.parametrize("example", REQUESTS, ids=lambda e: e["section"])
def test_each_example_request_is_accepted(example: dict[str, Any]) -> None:
    """Nothing is wrong with what the reference shows."""
    assert find_problems(BY_SECTION[example["section"]].path, example["payload"]) == []


@pytest.mark.parametrize("example", RESPONSE_EXAMPLES, ids=lambda e: e["section"])
def test_each_example_response_is_read(example: dict[str, Any]) -> None:
    """What the reference shows of an answer has the structure's types."""
    structure = RESPONSES[BY_SECTION[example["section"]].path]
    assert find_type_problems(structure, example["payload"]) == []


@pytest.mark.parametrize("example", PARTS, ids=lambda e: e["section"])
def test_each_example_of_a_part_is_accepted(example: dict[str, Any]) -> None:
    """What the reference shows beside a field has the structure's types."""
    assert find_type_problems(STRUCTURES[example["section"]], example["payload"]) == []


def test_a_number_that_no_float_can_hold() -> None:
    """It is refused like any other that is none, and not with an error of Python's."""
    attributes = {"spot_bid_max_price": 10**400}
    (problem,) = find_type_problems(types.AzureAttributes, attributes)
    assert problem.rule == "must be a number"
    assert choose_api_version("runs/submit", {"new_cluster": {"azure_attributes": attributes}})

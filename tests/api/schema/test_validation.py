"""A payload checked as a whole: types and rules, all problems together."""

from __future__ import annotations

import datetime as dt
import json
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_jobs_provider.api.errors import InvalidRequestError, JobsAPIError
from airflow_jobs_provider.api.schema import validation
from airflow_jobs_provider.api.schema.introspection import fields_of, structures
from airflow_jobs_provider.api.schema.request_types import ENDPOINTS
from airflow_jobs_provider.api.schema.validation import find_problems, find_type_problems, validate
from tests.helpers.random_payloads import CALL_OF, Payloads
from tests.helpers.rule_cases import CASES

STRUCTURES = structures()
RELAXED = settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.large_base_example,
    ],
)
sources = st.randoms(use_true_random=False)


@RELAXED
@given(source=sources, call=st.sampled_from(sorted(ENDPOINTS)))
def test_what_is_built_from_the_structures_passes(source: random.Random, call: str) -> None:
    """Every request made of the reference's structures within its rules is accepted."""
    for version in ("2.0", "2.1", "2.2"):
        request = Payloads(source, version).request(call)
        assert find_problems(call, request, api_version=version) == []
        assert find_problems(call, request) == []
        json.dumps(request)


@pytest.mark.exhaustive
@RELAXED
@given(source=sources, case=st.sampled_from(CASES))
def test_any_single_broken_rule_is_named(source: random.Random, case: Any) -> None:
    """A request that breaks one rule is refused with the field's name."""
    version = source.choice(case.versions)
    payloads = Payloads(source, version)
    call, request = payloads.around(case.structure, case.make(payloads, True))
    with pytest.raises(InvalidRequestError) as caught:
        validate(call, request, api_version=version, is_azure=True)
    assert all(case.field in problem.field for problem in caught.value.problems)
    assert case.field in str(caught.value)


@pytest.mark.exhaustive
def test_a_thousand_requests() -> None:
    """A thousand good requests pass; a thousand with one broken rule are refused by its field."""
    for seed in range(1000):
        payloads = Payloads(random.Random(seed))
        call = payloads.random.choice(sorted(ENDPOINTS))
        assert find_problems(call, payloads.request(call)) == []
        case = payloads.random.choice(CASES)
        version = payloads.random.choice(case.versions)
        payloads = Payloads(payloads.random, version)
        call, request = payloads.around(case.structure, case.make(payloads, True))
        problems = find_problems(call, request, api_version=version, is_azure=True)
        assert problems
        assert all(case.field in str(problem) for problem in problems)


WRONG: dict[str, tuple[Any, ...]] = {
    "STRING": (5, True, [], {}),
    "BOOL": (1, "yes", [], {}),
    "INT32": (True, "x", 0.5, 2**31, -(2**31) - 1, "9" * 30, []),
    "INT64": (True, "", 1.5, 2**63, -(2**63) - 1, {}),
    "DOUBLE": (True, "x", []),
    "AzureAvailability": ("SPOT", 5),
    "ViewsToExport": ("EVERYTHING", 5),
    "array": ("x", {}, 5),
    "map": ("x", [], 5, {"a": []}),
}
RIGHT: dict[str, tuple[Any, ...]] = {
    "STRING": ("", "x"),
    "BOOL": (True, False, "true", "False"),
    "INT32": (0, 2**31 - 1, -(2**31), "12", 5.0),
    "INT64": (2**63 - 1, -(2**63), " -7 "),
    "DOUBLE": (0.5, -1, "0.5"),
    "array": ([], ()),
    "map": ({},),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_each_field_has_its_type(name: str) -> None:
    """A value of the wrong type is told by the field; one of the right type is not."""
    for field in fields_of(STRUCTURES[name]).values():
        kind = field.type_name
        if kind.startswith("array"):
            kind = "array"
        elif field.structure is not None or kind.endswith("Pair") or kind == "ClusterTag":
            kind = "map"
        if field.name in ("pause_status", "run_type", "operator"):
            kind = "closed"
        is_map_of_anything = kind == "map" and field.structure is not None
        for wrong in WRONG.get(kind, WRONG["STRING"]):
            if is_map_of_anything and wrong == {"a": []}:
                continue
            problems = find_type_problems(STRUCTURES[name], {field.name: wrong})
            told = [problem.field for problem in problems]
            assert any(t == field.name or t.startswith(f"{field.name}.") for t in told), (
                field,
                wrong,
            )
        if kind in RIGHT:
            for right in RIGHT[kind]:
                problems = find_type_problems(STRUCTURES[name], {field.name: right})
                assert field.name not in [problem.field for problem in problems], (field, right)


@pytest.mark.parametrize("name", STRUCTURES)
def test_null_counts_as_absent(name: str) -> None:
    """A null is no problem where the field may be missing, and a missing field where it may not."""
    fields = fields_of(STRUCTURES[name])
    problems = find_type_problems(STRUCTURES[name], dict.fromkeys(fields))
    assert {(p.field, p.found) for p in problems} == {
        (f.name, "it is missing") for f in fields.values() if f.required
    }


def test_null_in_a_list_or_map_is_told() -> None:
    """An element or a parameter's value cannot be absent."""
    problems = find_problems(
        "run-now", {"job_id": 1, "notebook_params": {"a": None}}
    ) + find_problems("create", {"tasks": [None]})
    fields = [problem.field for problem in problems]
    assert fields[:2] == ["notebook_params.a", "tasks[0]"]


def test_what_the_reference_does_not_know_passes_untouched() -> None:
    """Unknown fields of any type, and unknown endpoints, are not checked; nothing is changed."""
    request: dict[str, Any] = {
        "run_job_task": {"job_id": "7", "tomorrow": [1]},
        "tomorrow": {"deep": [None, {"x": 1.5}]},
        "libraries": [],
    }
    before = json.dumps(request)
    validate("runs/submit", request)
    validate("runs/tomorrow", {"x": object()})
    assert json.dumps(request) == before


def test_all_problems_are_told_together() -> None:
    """The exception has them as data, its text one sentence for each."""
    request = {
        "notebook_task": {"notebook_path": "etl"},
        "existing_cluster_id": 5,
        "timeout_seconds": "soon",
        "idempotency_token": "x" * 65,
    }
    with pytest.raises(InvalidRequestError) as caught:
        validate("runs/submit", request)
    error = caught.value
    assert isinstance(error, JobsAPIError)
    assert isinstance(error, ValueError)
    assert str(error).splitlines() == [
        "runs/submit: 4 problems",
        "- existing_cluster_id must be text; it is the number 5",
        (
            "- timeout_seconds must be a whole number from -2147483648 to 2147483647; "
            "it is text of 4 characters"
        ),
        "- idempotency_token must have at most 64 characters; it has 65",
        (
            "- notebook_task.notebook_path must be an absolute path that begins with a slash; "
            "it begins with 'e'"
        ),
    ]
    assert [problem.field for problem in error.problems] == [
        "existing_cluster_id",
        "timeout_seconds",
        "idempotency_token",
        "notebook_task.notebook_path",
    ]


def test_only_what_is_given_gets_a_validator() -> None:
    """Those of all fields of a request take longer to build than all else that a task does."""
    validation._validator.cache_clear()
    validate(
        "runs/submit", {"existing_cluster_id": "a", "notebook_task": {"notebook_path": "/etl"}}
    )
    built = validation._validator.cache_info().currsize
    assert built == 2
    validation.build_validators()
    assert validation._validator.cache_info().currsize > 10 * built


def test_a_key_that_is_no_text() -> None:
    """Wherever it stands, it is named."""
    for payload, path in (
        ({5: 1}, "[5]"),
        ({None: 1}, "None"),
        ({"notebook_task": {"notebook_path": "/etl", 5: 1}}, "notebook_task[5]"),
    ):
        problems = find_problems("runs/submit", payload)
        assert (path, "must have text as keys") in [(one.field, one.rule) for one in problems]


def test_one_problem_is_one_sentence() -> None:
    """No list is made of one."""
    with pytest.raises(InvalidRequestError) as caught:
        validate("runs/get", {})
    assert str(caught.value) == "runs/get: run_id must be given; it is missing"


def test_no_value_is_quoted_that_may_be_secret() -> None:
    """Parameters, environment variables and tokens never stand in a message."""
    secret = "hunter2-é"
    request = {
        "spark_python_task": {"python_file": "a.py", "parameters": [{"password": secret}]},
        "new_cluster": {"spark_env_vars": {"PASSWORD": secret, "P2": [secret]}},
        "idempotency_token": secret * 20,
    }
    with pytest.raises(InvalidRequestError) as caught:
        validate("runs/submit", request, api_version="2.0")
    assert "hunter2" not in str(caught.value)
    assert "new_cluster.spark_env_vars.PASSWORD" in str(caught.value)


def test_numbers_among_the_parameters_are_text_when_sent() -> None:
    """What is sent as text counts as text: numbers and booleans in parameters are no problem."""
    validate("run-now", {"job_id": 1, "notebook_params": {"n": 1, "dry": True}})
    task = {"notebook_path": "/a", "base_parameters": {"n": 1}}
    settings_ = {"existing_cluster_id": "c", "notebook_task": task}
    validate("reset", {"job_id": 1, "new_settings": settings_})
    validate("create", {"tasks": [{"notebook_task": task}]})


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({1, 2}, "it is a set"),
        (dt.date(2026, 1, 1), "it is a date"),
        (b"x", "it is a bytes"),
        (float("nan"), "it is nan"),
        (10**5000, "it is a very long number"),
    ],
    ids=["set", "date", "bytes", "nan", "long"],
)
def test_what_json_cannot_hold(value: Any, found: str) -> None:
    """It is told by its path, once, in known fields and in unknown ones."""
    request = {"pipeline_task": {"pipeline_id": "p", "later": [value]}, "run_name": value}
    problems = find_problems("runs/submit", request)
    assert [(p.field, p.found) for p in problems] == [
        ("pipeline_task.later[0]", found),
        ("run_name", found),
    ]


def test_keys_that_are_no_text() -> None:
    """A map's keys are text, as in JSON; wherever it stands, no crash."""
    fields = {
        problem.field
        for request in (
            {"job_id": 1, "notebook_params": {1: "a"}},
            {"job_id": 1, "notebook_params": {(1, 2): "a"}},
        )
        for problem in find_problems("run-now", request)
    }
    assert fields == {"notebook_params"}
    assert find_problems("run-now", {"job_id": 1, 5: "x"})


def test_a_payload_that_holds_itself() -> None:
    """It is refused, not followed for ever."""
    request: dict[str, Any] = {}
    request["again"] = request
    (problem,) = find_problems("create", request)
    assert "contains itself" in problem.found
    (problem,) = find_problems("create", ["no map"])
    assert problem.found == "it is a list of 1 element"


def test_each_request_structure_has_a_call() -> None:
    """The random payloads reach every endpoint."""
    assert set(CALL_OF.values()) == set(ENDPOINTS)

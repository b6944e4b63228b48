"""The client and the local workspace, each with checks of its own, agree on what is a good request.

Requests come from the reference's examples and from chance; they go over HTTP to a workspace whose
runs end at once.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from airflow_jobs_provider.api.calls import Call
from airflow_jobs_provider.api.errors import BadRequestError, InvalidRequestError
from airflow_jobs_provider.api.schema.introspection import fields_of
from airflow_jobs_provider.api.schema.request_types import ENDPOINTS
from airflow_jobs_provider.api.versions import API_VERSIONS
from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
from tests.helpers.random_payloads import AROUND, CALL_OF, Payloads
from tests.helpers.rule_cases import CASES
from tests.local.api import CLUSTER, Api, until

# The rules for tags are Azure's: this machine has none.
CASES_HERE = [case for case in CASES if not case.of_rule.only_azure]
MANY = 400
how_many = pytest.mark.parametrize("many", [60, pytest.param(MANY, marks=pytest.mark.exhaustive)])
# Enough for each version of the API to have its turn.
TRIES = 4
EXAMPLES = json.loads((Path(__file__).parents[1] / "data/examples.json").read_text())
REQUESTS = [example for example in EXAMPLES if example["kind"] == "request"]
PARTS = [example for example in EXAMPLES if example["kind"] == "part"]
RESPONSES = [example for example in EXAMPLES if example["kind"] == "response"]
BY_SECTION = {endpoint.section: endpoint for endpoint in ENDPOINTS.values()}
NOTEBOOK = {"notebook_task": {"notebook_path": "/n"}, **CLUSTER, "max_concurrent_runs": 1000}
# An executed notebook is what a dry run does not leave.
WITHOUT_NOTEBOOK = sorted(ENDPOINTS.keys() - {"runs/export"})


@pytest.fixture
def connected(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connect hooks to the workspace that runs notebooks."""
    _connect(api, monkeypatch)


@pytest.fixture
def dryly_connected(dry: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connect hooks to the workspace whose runs end at once."""
    _connect(dry, monkeypatch)


def _connect(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = api.workspace
    connection = {"conn_type": "databricks_jobs", "host": workspace.url}
    connection["password"] = workspace.token
    monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", json.dumps(connection))
    for version in API_VERSIONS:
        pinned = {**connection, "extra": {"api_version": version}}
        monkeypatch.setenv(f"AIRFLOW_CONN_{version}", json.dumps(pinned))


def _hooks() -> dict[str, tuple[DatabricksJobsHook, DatabricksJobsHook]]:
    """Return a hook that validates and one that does not, for each version of the API."""
    return {
        version: (DatabricksJobsHook(version), DatabricksJobsHook(version, validate=False))
        for version in API_VERSIONS
    }


def _call(path: str, payload: dict[str, Any]) -> Call[Any]:
    return Call(ENDPOINTS[path].verb, path, payload, False, lambda answer: answer)


class Things:
    """Jobs and runs of a workspace, for requests to be about."""

    def __init__(self, api: Api, spare_runs: int = 1) -> None:
        self.api = api
        self.job_id = api.create(**NOTEBOOK)
        self.runs = iter([api.submit(**NOTEBOOK) for _ in range(1 + spare_runs)])
        self.run_id = next(self.runs)
        until(lambda: "runs" not in api.get("runs/list", active_only="true").json(), "all ends")

    def put_into(self, path: str, request: dict[str, Any]) -> dict[str, Any]:
        """Let a request be about a job or a run that is there, and may be used up."""
        ids = {"job_id": self.job_id, "run_id": self.run_id}
        if path in ("delete", "reset", "update"):
            ids["job_id"] = self.api.create(**NOTEBOOK)
        if path == "runs/delete":
            ids["run_id"] = next(self.runs)
        request = {**request, **{name: ids[name] for name in ids if name in request}}
        request.pop("page_token", None)  # only the service makes them
        return request


@how_many
@pytest.mark.usefixtures("dryly_connected")
def test_bad_requests_are_refused_on_both_sides(dry: Api, many: int) -> None:
    """Of hundreds of random requests with one broken rule the client sends none, the service takes
    none; both name the field.
    """
    things = Things(dry)
    before = _all_there_is(dry)
    hooks = _hooks()
    for seed in range(many):
        source = random.Random(seed)
        case = source.choice(CASES_HERE)
        version = source.choice(case.versions)
        payloads = Payloads(source, version)
        checking, blind = hooks[version]
        path, request = payloads.around(case.structure, case.make(payloads, True))
        if "job_id" in request:
            request["job_id"] = things.job_id
        with pytest.raises(InvalidRequestError) as unsent:
            checking.send(_call(path, request))
        assert case.field in str(unsent.value)
        with pytest.raises(BadRequestError) as refused:
            blind.send(_call(path, request))
        assert refused.value.status == 400, (case.rule, request)
        assert refused.value.error_code in ("INVALID_PARAMETER_VALUE", "MALFORMED_REQUEST")
        assert case.field in str(refused.value), (case.rule, request)
    assert _all_there_is(dry) == before


@how_many
@pytest.mark.usefixtures("dryly_connected")
def test_good_requests_are_accepted_on_both_sides(dry: Api, many: int) -> None:
    """Hundreds of random requests that obey every rule are sent, and accepted."""
    hook = DatabricksJobsHook()
    things = Things(dry, spare_runs=many // 10)
    launched: list[int] = []
    for seed in range(many):
        payloads = Payloads(random.Random(seed))
        path = payloads.random.choice(WITHOUT_NOTEBOOK)
        request = things.put_into(path, payloads.request(path))
        answer = hook.send(_call(path, request))
        if path in ("run-now", "runs/submit"):
            launched.append(answer["run_id"])
        elif path == "create":
            assert dry.get("get", job_id=answer["job_id"]).status_code == 200
    assert len(launched) > many // 20
    until(lambda: "runs" not in dry.get("runs/list", active_only="true").json(), "all ends")


@pytest.mark.usefixtures("dryly_connected")
@pytest.mark.slow
def test_both_sides_of_each_bound(dry: Api) -> None:
    """At the bound of each rule the service accepts as the client does; past it, it refuses."""
    things = Things(dry)
    hooks = _hooks()
    for case in CASES_HERE:
        for seed in range(TRIES):
            version = case.versions[seed % len(case.versions)]
            hook, blind = hooks[version]
            payloads = Payloads(random.Random(seed), version)
            path, request = payloads.around(case.structure, case.make(payloads, False))
            hook.send(_call(path, things.put_into(path, request)))
            path, request = payloads.around(case.structure, case.make(payloads, True))
            with pytest.raises(BadRequestError) as refused:
                blind.send(_call(path, things.put_into(path, request)))
            assert case.field in str(refused.value), (case.rule, request)


WRONG: dict[str, tuple[Any, ...]] = {
    "STRING": (5, True, [], {}),
    "INT32": ("x", 1.5, True, [], 2**31),
    "INT64": ("x", 1.5, True, {}, 2**63),
    "BOOL": ("maybe", 5, []),
    "DOUBLE": ("x", [], True),
}


def _spoil(payloads: Payloads, part: dict[str, Any], structure: Any) -> str | None:
    """Give one field, somewhere below, a value of another type; return its name."""
    known = fields_of(structure)
    names = [name for name in sorted(part) if name in known]
    payloads.random.shuffle(names)
    for name in names:
        field, value = known[name], part[name]
        if field.structure is not None and payloads.chance(0.8):
            below = value[0] if field.is_list and value else value
            found = _spoil(payloads, below, field.structure) if isinstance(below, dict) else None
            if found is not None:
                return found
        if field.is_list:
            # An element, or the array itself.
            plain = value and field.structure is None and payloads.chance(0.5)
            part[name] = [{}] if plain else {}
        elif field.structure is not None or field.type_name not in WRONG:
            part[name] = payloads.random.choice((5, "x", []))
        else:
            part[name] = payloads.random.choice(WRONG[field.type_name])
        return name
    return None


@how_many
@pytest.mark.usefixtures("dryly_connected")
def test_wrong_types_are_refused_on_both_sides(dry: Api, many: int) -> None:
    """A field of another type, anywhere in a request, is named by the client and by the service."""
    checking, blind = DatabricksJobsHook(), DatabricksJobsHook(validate=False)
    things = Things(dry)
    before = _all_there_is(dry)
    spoiled: set[str] = set()
    for seed in range(many):
        payloads = Payloads(random.Random(seed))
        path = payloads.random.choice(("create", "reset", "run-now", "runs/submit"))
        request = payloads.request(path)
        if "job_id" in request:
            request["job_id"] = things.job_id
        name = _spoil(payloads, request, ENDPOINTS[path].request)
        if name is None:
            continue
        spoiled.add(name)
        with pytest.raises(InvalidRequestError) as unsent:
            checking.send(_call(path, request))
        assert name in str(unsent.value)
        with pytest.raises(BadRequestError) as refused:
            blind.send(_call(path, request))
        assert name in str(refused.value), request
    assert len(spoiled) > min(50, many // 2), sorted(spoiled)
    assert _all_there_is(dry) == before


def _all_there_is(api: Api) -> list[Any]:
    return [api.get("list").json(), api.get("runs/list", limit=1000).json()]


@pytest.mark.usefixtures("dryly_connected")
@pytest.mark.parametrize("example", REQUESTS, ids=lambda e: e["section"])
def test_example_requests(example: dict[str, Any], api: Api, dry: Api) -> None:
    """Each request that the reference shows is sent and answered."""
    endpoint = BY_SECTION[example["section"]]
    hook = DatabricksJobsHook()
    if endpoint.path == "runs/export":
        run, _ = api.run_notebook("1")
        answer = api.get("runs/export", **{**example["payload"], "run_id": run["run_id"]})
        assert answer.json()["views"][0]["type"] == "NOTEBOOK"
        return
    request = Things(dry).put_into(endpoint.path, example["payload"])
    answer = hook.send(_call(endpoint.path, request))
    if endpoint.path == "create":
        job = dry.get("get", **answer).json()
        schedule = {"schedule": {**request["schedule"], "pause_status": "UNPAUSED"}}
        assert job["settings"] == {**request, **schedule, "queue": {"enabled": True}}
    elif endpoint.path in ("reset", "update"):
        settings = dry.get("get", job_id=request["job_id"]).json()["settings"]
        for name, value in request.get("new_settings", {}).items():
            assert settings[name] == value
    elif endpoint.path in ("run-now", "runs/submit"):
        assert dry.wait(answer["run_id"])["state"]["result_state"] == "SUCCESS"


@pytest.mark.usefixtures("dryly_connected")
@pytest.mark.parametrize("part", PARTS, ids=lambda e: e["section"])
def test_example_parts(part: dict[str, Any], dry: Api) -> None:
    """Each part of a request that the reference shows is accepted in its place."""
    name, value = part["section"], part["payload"]
    things = Things(dry)
    payloads = Payloads(random.Random(0))
    if name in ("FileStorageInfo", "DbfsStorageInfo"):
        field = "file" if name == "FileStorageInfo" else "dbfs"
        name, value = "InitScriptInfo", {field: value}
    if name == "RunParameters":
        path, request = "run-now", {"job_id": 1, **value}
    else:
        assert name in AROUND or name in CALL_OF
        path, request = payloads.around(name, value)
    DatabricksJobsHook().send(_call(path, things.put_into(path, request)))


@pytest.fixture(scope="module")
def answered(api: Api) -> dict[str, Any]:
    """Return what the workspace answers to what the reference's answers are about."""
    task = {"notebook_task": {"notebook_path": api.notebook("dbutils.notebook.exit('x')")}}
    [example] = [e["payload"] for e in RESPONSES if e["section"] == "Get"]
    settings = example["settings"]
    job_id = api.create(**CLUSTER, **task)
    run_id = api.run_now(job_id, jar_params=["param1", "param2"])
    api.wait(run_id)
    created = api.post("create", settings)
    return {
        "Create": created.json(),
        "List": api.get("list").json(),
        "Get": api.get("get", **created.json()).json(),
        "Runs submit": api.post("runs/submit", {**CLUSTER, **task}).json(),
        "Runs list": api.get("runs/list", job_id=job_id).json(),
        "Runs get": api.get("runs/get", run_id=run_id).json(),
        "Runs export": api.get("runs/export", run_id=run_id).json(),
        "Runs get output": api.get("runs/get-output", run_id=run_id).json(),
    }


@pytest.mark.parametrize("example", RESPONSES, ids=lambda e: e["section"])
def test_example_answers(example: dict[str, Any], answered: dict[str, Any]) -> None:
    """Whatever the reference shows in an answer is in the workspace's, with the same type."""
    _assert_like(answered[example["section"]], example["payload"], example["section"])


def _assert_like(answer: Any, shown: Any, where: str) -> None:
    assert type(answer) is type(shown), where
    if isinstance(shown, dict):
        for name, value in shown.items():
            assert name in answer, f"{where}.{name}"
            _assert_like(answer[name], value, f"{where}.{name}")
    elif isinstance(shown, list) and shown:
        assert answer, where
        _assert_like(answer[0], shown[0], f"{where}[0]")

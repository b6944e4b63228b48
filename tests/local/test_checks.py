"""What the workspace refuses beyond what the client refuses, on both sides of each bound.

The limits that the client knows, too, are tested on both sides in ``test_payloads.py``.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_jobs_provider.local.workspace import LocalWorkspace, Quotas
from tests.local.api import CLUSTER, Api, until

NOTEBOOK_TASK = {"notebook_task": {"notebook_path": "/n"}}
NOTEBOOK = {**NOTEBOOK_TASK, **CLUSTER}
NEW = {"spark_version": "v", "node_type_id": "n", "num_workers": 1}


def _schedule(expression: str, zone: str = "UTC") -> dict[str, Any]:
    return {"schedule": {"quartz_cron_expression": expression, "timezone_id": zone}}


@pytest.mark.parametrize(
    "expression",
    [
        "0 15 22 * * ?",
        "0/5 14,18,3-39,52 * ? JAN,MAR,SEP MON-FRI 2002-2010",
        "0 0 12 L * ?",
        "0 0 12 L-3 * ?",
        "0 0 12 LW * ?",
        "0 0 12 15W * ?",
        "0 0 12 ? * 6L",
        "0 0 12 ? * fri#3",
        "59 59 23 31 12 ? 2199",
        "*/15 * * ? * 7",
    ],
)
def test_good_cron_expressions(dry: Api, expression: str) -> None:
    """Quartz's own forms are taken."""
    assert dry.create(**NOTEBOOK, **_schedule(expression))


@pytest.mark.parametrize(
    ("expression", "field"),
    [
        ("60 * * * * ?", "seconds"),
        ("* 60 * * * ?", "minutes"),
        ("* * 24 * * ?", "hours"),
        ("* * * 32 * ?", "day of month"),
        ("* * * 0 * ?", "day of month"),
        ("* * * * 13 ?", "month"),
        ("* * * ? * 8", "day of week"),
        ("* * * ? * FOO", "day of week"),
        ("* * * ? * 2#6", "day of week"),
        ("* * * * * ? 2200", "year"),
        ("? * * * * ?", "seconds"),
        ("*/0 * * * * ?", "seconds"),
        ("1-2-3 * * * * ?", "seconds"),
        ("1,,2 * * * * ?", "seconds"),
        ("* * * * * *", "exactly one"),
        ("* * * ? * ?", "exactly one"),
        ("0 5 * * 1", "6 fields"),
        ("@daily", "6 fields"),
    ],
)
def test_bad_cron_expressions(dry: Api, expression: str, field: str) -> None:
    """What Quartz could not read is refused, with the field of the expression named."""
    message = dry.refusal("create", {**NOTEBOOK, **_schedule(expression)})
    assert "schedule.quartz_cron_expression" in message
    assert field in message


def test_time_zones(dry: Api) -> None:
    """A schedule's time zone is one that Java knows."""
    for zone in ("America/Los_Angeles", "UTC", "GMT+8", "GMT-03:30", "PST"):
        assert dry.create(**NOTEBOOK, **_schedule("0 0 0 * * ?", zone))
    for zone in ("America/Nowhere", "", "GMT+24", "Berlin"):
        message = dry.refusal("create", {**NOTEBOOK, **_schedule("0 0 0 * * ?", zone)})
        assert "timezone_id" in message


@pytest.mark.parametrize(
    ("good", "bad", "words"),
    [
        ({"timeout_seconds": 0}, {"timeout_seconds": -1}, "timeout_seconds"),
        ({"timeout_seconds": 2**31 - 1}, {"timeout_seconds": 2**31}, "timeout_seconds"),
        ({"queue": {"enabled": True}}, {"queue": {"enabled": "perhaps"}}, "queue.enabled"),
        (
            {"schedule": {**_schedule("0 0 0 * * ?")["schedule"], "pause_status": "PAUSED"}},
            {"schedule": {**_schedule("0 0 0 * * ?")["schedule"], "pause_status": "paused"}},
            "schedule.pause_status",
        ),
        (
            {"schedule": _schedule("0 0 0 * * ?")["schedule"]},
            {"schedule": {"quartz_cron_expression": "0 0 0 * * ?"}},
            "schedule.timezone_id",
        ),
        (
            {"health": {"rules": [{"metric": "RUN_DURATION_SECONDS", "value": 1}]}},
            {"health": {"rules": [{"metric": "RUN_DURATION_SECONDS", "operator": "LESS_THAN"}]}},
            "health.rules[0].operator",
        ),
        (
            {"webhook_notifications": {"on_start": [{"id": "a"}]}},
            {"webhook_notifications": {"on_start": [{}]}},
            "webhook_notifications.on_start[0].id",
        ),
        (
            {"libraries": [{"pypi": {"package": "a"}}]},
            {"libraries": [{"pypi": {}}]},
            "libraries[0].pypi.package",
        ),
        (
            {"libraries": [{"maven": {"coordinates": "a:b:1"}}]},
            {"libraries": [{"maven": {"repo": "r"}}]},
            "libraries[0].maven.coordinates",
        ),
        (
            {"parameters": [{"name": "a", "default": "b"}]},
            {"parameters": [{"default": "b"}]},
            "parameters[0].name",
        ),
        ({"tags": {"a": "b"}}, {"tags": ["a"]}, "tags"),
    ],
)
def test_settings(dry: Api, good: Any, bad: Any, words: str) -> None:
    """Fields of a job's settings are taken up to their bounds, and refused past them by name."""
    assert dry.create(**NOTEBOOK, **good, version="2.1")
    assert words in dry.refusal("create", {**NOTEBOOK, **bad})
    job_id = dry.create(**NOTEBOOK)
    assert words in dry.refusal("reset", {"job_id": job_id, "new_settings": {**NOTEBOOK, **bad}})
    assert words in dry.refusal("update", {"job_id": job_id, "new_settings": bad})
    assert dry.get("get", job_id=job_id).json()["settings"] == {"name": "Untitled", **NOTEBOOK}


@pytest.mark.parametrize("version", ["2.0", "2.1", "2.2"])
def test_tags(dry: Api, version: str) -> None:
    """What a tag may be called is a matter of the cloud; their number is not."""

    def settings(tags: dict[str, str]) -> dict[str, Any]:
        return {**NOTEBOOK_TASK, "new_cluster": {**NEW, "custom_tags": tags}}

    tags = {"azure": "v", "team/cost+center": "v"}
    assert dry.post("create", settings(tags), version=version).status_code == 200
    many = {f"t{number}": "v" for number in range(46)}
    assert "new_cluster.custom_tags" in dry.refusal("create", settings(many), version)


LATER = [
    {"tasks": [{"task_key": "t", "pipeline_task": {"pipeline_id": "p"}}]},
    {"job_clusters": [{"job_cluster_key": "c", "new_cluster": {}}]},
    {"git_source": {"git_url": "u", "git_provider": "gitHub"}},
    {"environments": [{"environment_key": "e"}]},
    {"queue": {"enabled": True}},
    {"performance_target": "STANDARD"},
    {"python_wheel_task": {"package_name": "p"}},
    {"a_field_of_tomorrow": 1},
]


@pytest.mark.parametrize("later", LATER, ids=lambda later: next(iter(later)))
@pytest.mark.parametrize("path", ["create", "runs/submit", "reset", "update"])
def test_2_0_refuses_what_came_later(dry: Api, path: str, later: dict[str, Any]) -> None:
    """A field that the reference of 2.0 does not list is named, and nothing is changed."""
    job_id = dry.create(**NOTEBOOK)
    body: dict[str, Any] = {**NOTEBOOK, **later}
    if path in ("reset", "update"):
        body = {"job_id": job_id, "new_settings": body}
    assert f"{next(iter(later))} is not supported in version 2.0" in dry.refusal(path, body, "2.0")
    assert dry.get("get", job_id=job_id).json()["settings"] == {"name": "Untitled", **NOTEBOOK}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"notebook_task": {"notebook_path": "n", "source": "GIT"}}, "notebook_task.source"),
        ({"run_job_task": {"job_id": 1, "job_parameters": {}}}, "run_job_task.job_parameters"),
        (
            {
                **NOTEBOOK,
                "webhook_notifications": {"on_streaming_backlog_exceeded": [{"id": "a"}]},
            },
            "webhook_notifications.on_streaming_backlog_exceeded",
        ),
    ],
)
def test_2_0_refuses_later_fields_at_any_depth(dry: Api, body: Any, field: str) -> None:
    """Also where the structure around the field is one of 2.0."""
    assert f"{field} is not supported" in dry.refusal("runs/submit", body, "2.0")


@pytest.mark.parametrize(
    "name", ["job_parameters", "python_named_params", "pipeline_params", "queue", "only"]
)
def test_2_0_refuses_later_fields_of_run_now(dry: Api, name: str) -> None:
    """A run is not started with less than was asked for."""
    job_id = dry.create(**NOTEBOOK)
    assert f"{name} is not" in dry.refusal("run-now", {"job_id": job_id, name: {}}, "2.0")


def test_fields_of_a_cluster_are_of_no_version(dry: Api) -> None:
    """A cluster is described alike in all versions, with fields of other clouds, too."""
    cluster = {**NEW, "aws_attributes": {"first_on_demand": 1}, "data_security_mode": "NONE"}
    for version in ("2.0", "2.1", "2.2"):
        body = {**NOTEBOOK_TASK, "new_cluster": cluster}
        assert dry.post("runs/submit", body, version=version).status_code == 200


@pytest.mark.parametrize("version", ["2.1", "2.2"])
def test_a_notebook_without_a_cluster_is_serverless(dry: Api, version: str) -> None:
    """From 2.1 on; 2.0 wants to know the cluster."""
    assert dry.post("runs/submit", NOTEBOOK_TASK, version=version).status_code == 200
    assert "new_cluster" in dry.refusal("runs/submit", NOTEBOOK_TASK, "2.0")


@pytest.mark.parametrize(("version", "most"), [("2.1", 100), ("2.2", 1000)])
def test_number_of_tasks(dry: Api, version: str, most: int) -> None:
    """2.2 takes ten times as many as 2.1."""
    task = {"pipeline_task": {"pipeline_id": "p"}}
    tasks = [{"task_key": f"t{number}", **task} for number in range(most + 1)]
    assert dry.post("create", {"tasks": tasks[:most]}, version=version).status_code == 200
    assert f"at most {most}" in dry.refusal("create", {"tasks": tasks}, version)


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ({"notebook_task": {}, **CLUSTER}, "tasks[0].notebook_task.notebook_path"),
        ({"spark_python_task": {}, **CLUSTER}, "tasks[0].spark_python_task.python_file"),
        ({"spark_jar_task": {"main_class_name": "M"}}, "tasks[0].new_cluster"),
        ({"spark_python_task": {"python_file": "f"}}, "tasks[0].existing_cluster_id"),
        ({"run_job_task": {"job_id": 2**63}}, "tasks[0].run_job_task.job_id"),
        ({**NOTEBOOK, "run_if": "NEVER"}, "tasks[0].run_if"),
        ({**NOTEBOOK, "job_cluster_key": "nowhere"}, "tasks[0].job_cluster_key"),
        ({**NOTEBOOK, "depends_on": [{}]}, "tasks[0].depends_on[0].task_key"),
        ({**NOTEBOOK, "max_retries": -2}, "tasks[0].max_retries"),
        ({"for_each_task": {"inputs": "[]"}}, "tasks[0].for_each_task.task"),
        (
            {"for_each_task": {"inputs": "[]", "task": {"notebook_task": {"notebook_path": "n"}}}},
            "tasks[0].for_each_task.task.notebook_task.notebook_path",
        ),
    ],
)
@pytest.mark.parametrize("version", ["2.1", "2.2"])
def test_bad_tasks(dry: Api, task: Any, words: str, version: str) -> None:
    """Each of several tasks is checked as a single one is, in every version that takes them."""
    body = {"tasks": [{"task_key": "t", **task}]}
    assert words in dry.refusal("runs/submit", body, version)
    assert words in dry.refusal("create", body, version)


@pytest.mark.parametrize("version", ["2.1", "2.2"])
def test_good_tasks(dry: Api, version: str) -> None:
    """Several tasks are taken from 2.1 on: serverless, on shared clusters, out of Git."""
    tasks = [
        {"task_key": "serverless", "notebook_task": {"notebook_path": "/n"}},
        {"task_key": "shared", "job_cluster_key": "c", "spark_jar_task": {"main_class_name": "M"}},
        {"task_key": "e", "environment_key": "e", "spark_python_task": {"python_file": "f"}},
        {
            "task_key": "git",
            "notebook_task": {"notebook_path": "relative", "source": "GIT"},
            "depends_on": [{"task_key": "e"}],
            "run_if": "ALL_DONE",
        },
    ]
    body = {
        "tasks": tasks,
        "job_clusters": [{"job_cluster_key": "c", "new_cluster": NEW}],
        "environments": [{"environment_key": "e", "spec": {"client": "1"}}],
    }
    run_id = dry.post("runs/submit", body, version=version).json()["run_id"]
    assert dry.wait(run_id)["state"]["result_state"] == "SUCCESS"
    run = dry.run(run_id, version=version)
    assert [task["task_key"] for task in run["tasks"]] == ["serverless", "shared", "e", "git"]


def test_one_kind_of_parameters(dry: Api) -> None:
    """A run takes one kind of parameters; later than 2.0, one for each kind of task."""
    job_id = dry.create(**NOTEBOOK, max_concurrent_runs=1000)
    both = {"job_id": job_id, "python_params": ["a"], "notebook_params": {"a": "b"}}
    assert "python_params" in dry.refusal("run-now", both, "2.0")
    assert dry.post("run-now", both, version="2.1").status_code == 200
    never = {"job_id": job_id, "jar_params": ["a"], "notebook_params": {"a": "b"}}
    for version in ("2.0", "2.1", "2.2"):
        assert "jar_params" in dry.refusal("run-now", never, version)


@pytest.mark.parametrize(
    "name", ["job_parameters", "python_named_params", "sql_params", "dbt_commands"]
)
def test_size_of_later_parameters(dry: Api, name: str) -> None:
    """The parameters of later versions have at most 10,000 bytes, too, and are text."""
    job_id = dry.create(**NOTEBOOK, max_concurrent_runs=1000)

    def given(text: Any) -> dict[str, Any]:
        return {"job_id": job_id, name: [text] if name == "dbt_commands" else {"é": text}}

    def size(text: str) -> int:
        value = json.dumps({name: given(text)[name]}, separators=(",", ":"), ensure_ascii=False)
        return len(value.encode())

    room = 10_000 - size("")
    assert dry.post("run-now", given("x" * room), version="2.2").status_code == 200
    assert name in dry.refusal("run-now", given("x" * (room + 1)))
    assert name in dry.refusal("run-now", given(5))


def test_ten_megabytes(dry: Api) -> None:
    """A body of just 10 MB is read; one byte more is not."""
    url = f"{dry.workspace.url}/api/2.0/jobs/create"
    body = json.dumps(NOTEBOOK).encode()
    full = body + b" " * (10 * 1024 * 1024 - len(body))
    assert dry.session.post(url, data=full, timeout=30).status_code == 200
    answer = dry.session.post(url, data=full + b" ", timeout=30)
    assert answer.status_code == 400
    assert "10 MB" in answer.json()["message"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"timeout_seconds": NaN}',
        b'{"name": "\\ud800"}',
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_what_is_no_json(dry: Api, body: bytes) -> None:
    """JSON that is none, cannot be UTF-8 or never ends is refused, not stumbled over."""
    url = f"{dry.workspace.url}/api/2.0/jobs/create"
    answer = dry.session.post(url, data=body, timeout=30)
    assert answer.status_code == 400
    assert answer.json()["error_code"] == "MALFORMED_REQUEST"


@pytest.mark.parametrize(("version", "most"), [("2.0", 1000), ("2.1", 25), ("2.2", 25)])
def test_runs_on_a_page(dry: Api, version: str, most: int) -> None:
    """The largest page of runs is that of the version; none is larger."""
    assert dry.get("runs/list", version=version, limit=most).status_code == 200
    assert dry.get("runs/list", version=version, limit=0).status_code == 200
    for limit in (most + 1, -1):
        answer = dry.get("runs/list", version=version, limit=limit)
        assert answer.status_code == 400
        assert "limit" in answer.json()["message"]


def test_offset(dry: Api) -> None:
    """Runs are skipped up to 10,000 of them."""
    assert dry.get("runs/list", offset=10_000).status_code == 200
    answer = dry.get("runs/list", offset=10_001)
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert "offset" in answer.json()["message"]


def test_limit_of_active_task_runs(tmp_path: Any) -> None:
    """Beyond so many active task runs a launch is a 429, unless it may wait or is known."""
    quotas = Quotas(active_task_runs=3)
    with LocalWorkspace(tmp_path, max_concurrent_runs=1, quotas=quotas) as workspace:
        api = Api(workspace)
        sleep = {"spark_python_task": {"python_file": api.python("import time; time.sleep(600)")}}
        task = {"task_key": "a", **sleep, **CLUSTER}
        two = {"tasks": [task, {**task, "task_key": "b"}], "idempotency_token": "two"}
        first = api.post("runs/submit", two, version="2.1")
        assert first.status_code == 200
        more = {**two, "idempotency_token": "more"}
        answer = api.post("runs/submit", more, version="2.1")
        assert answer.status_code == 429
        assert answer.json()["error_code"] == "REQUEST_LIMIT_EXCEEDED"
        assert api.post("runs/submit", two, version="2.1").json() == first.json()
        last = api.submit(**sleep)
        job_id = api.create(**sleep)
        assert api.post("run-now", {"job_id": job_id}).status_code == 429
        queue = {"job_id": job_id, "queue": {"enabled": True}}
        queued = api.post("run-now", queue, version="2.2").json()["run_id"]
        assert api.run(queued)["state"]["life_cycle_state"] == "QUEUED"
        api.post("runs/cancel", {"run_id": last})
        api.wait(last)
        api.post("runs/cancel", {"run_id": queued})
        api.wait(queued)
        assert api.post("run-now", {"job_id": job_id}).status_code == 200


def test_limits_of_jobs(tmp_path: Any) -> None:
    """A workspace keeps so many jobs, and creates so many in an hour, one-time runs included."""
    quotas = Quotas(saved_jobs=2, jobs_an_hour=4)
    with LocalWorkspace(tmp_path, dry_run=True, quotas=quotas) as workspace:
        api = Api(workspace)
        first = api.create(**NOTEBOOK)
        api.create(**NOTEBOOK)
        answer = api.post("create", NOTEBOOK)
        assert (answer.status_code, answer.json()["error_code"]) == (400, "QUOTA_EXCEEDED")
        api.post("delete", {"job_id": first})
        api.create(**NOTEBOOK)
        api.submit(**NOTEBOOK)
        for path in ("create", "runs/submit"):
            api.post("delete", {"job_id": first + 1})
            assert api.post(path, NOTEBOOK).status_code == 429


def test_run_now_may_queue(api: Api) -> None:
    """A run-now request says whether its run waits where the job's other runs leave no room."""
    sleep = {"spark_python_task": {"python_file": api.python("import time; time.sleep(600)")}}
    job_id = api.create(**sleep)
    first = api.run_now(job_id)
    answer = api.post("run-now", {"job_id": job_id, "queue": {"enabled": True}}, version="2.1")
    second = answer.json()["run_id"]
    assert api.run(second)["state"]["life_cycle_state"] == "QUEUED"
    assert api.run(api.run_now(job_id))["state"]["life_cycle_state"] == "SKIPPED"
    api.post("runs/cancel", {"run_id": first})
    api.wait(second, "RUNNING")
    api.post("runs/cancel", {"run_id": second})
    api.wait(second)
    queueing = api.create(**sleep, queue={"enabled": True}, version="2.1")
    first = api.run_now(queueing)
    refused = api.post("run-now", {"job_id": queueing, "queue": {"enabled": False}}, version="2.2")
    assert api.run(refused.json()["run_id"])["state"]["life_cycle_state"] == "SKIPPED"
    api.post("runs/cancel", {"run_id": first})
    api.wait(first)
    body = {"job_id": queueing, "queue": {"enabled": "x"}}
    assert "queue.enabled" in api.refusal("run-now", body)


def test_dry_run_does_nothing(dry: Api) -> None:
    """In a dry run a notebook that is not there succeeds, without output; several tasks do, too."""
    run_id = dry.submit(notebook_task={"notebook_path": "/nowhere"})
    assert dry.wait(run_id)["state"]["result_state"] == "SUCCESS"
    assert dry.output(run_id)["notebook_output"] == {}
    until(lambda: "runs" not in dry.get("runs/list", active_only="true").json(), "all ends")

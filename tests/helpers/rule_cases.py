"""Both sides of each rule of the reference: what just obeys it, and what just breaks it."""

from __future__ import annotations

import json
from typing import Any

from tests.helpers.random_payloads import CASES, LAUNCHED, PARAMETERS, Payloads, case

__all__ = ["CASES"]

Made = dict[str, Any]
EVENTS = ("on_start", "on_success", "on_failure", "on_duration_warning_threshold_exceeded")


@case("idempotency_token", "RunNowRequest", "idempotency_token")
def _(p: Payloads, broken: bool) -> Made:
    made = p.structure("RunNowRequest")
    made["idempotency_token"] = p.text(64, 64) + ("x" if broken else "")
    return made


@case("idempotency_token", "RunsSubmitRequest", "idempotency_token")
def _(p: Payloads, broken: bool) -> Made:
    made = p.structure("RunsSubmitRequest")
    made["idempotency_token"] = p.text(64, 64) + ("x" if broken else "")
    return made


@case("name_size", "RunsSubmitRequest", "run_name")
def _(p: Payloads, broken: bool) -> Made:
    made = p.structure("RunsSubmitRequest")
    made["run_name"] = "ä" * 2048 + ("x" if broken else "")
    return made


@case("name_size", "JobSettings", "name")
def _(p: Payloads, broken: bool) -> Made:
    made = p.structure("JobSettings")
    made["name"] = "🙂" * 1024 + ("x" if broken else "")
    return made


def launched(p: Payloads, kind: str, name: str = "RunsSubmitRequest") -> Made:
    """Make good settings with this kind of task."""
    made = p.structure(name, 1)
    p.give_task(made, kind)
    return made


for _name in LAUNCHED:

    @case("one_task", _name, "_task")
    def _(p: Payloads, broken: bool, name: str = _name) -> Made:
        made = launched(p, "notebook_task", name)
        if broken:
            made["pipeline_task"] = {"pipeline_id": "p"}
        return made

    @case("one_cluster", _name, "new_cluster")
    def _(p: Payloads, broken: bool, name: str = _name) -> Made:
        made = launched(p, "notebook_task", name)
        if broken:
            made["existing_cluster_id"] = "1201-my-cluster"
            made["new_cluster"] = p.structure("NewCluster", 2)
        return made

    @case("spark_submit_on_new_cluster", _name, "existing_cluster_id")
    def _(p: Payloads, broken: bool, name: str = _name) -> Made:
        made = launched(p, "spark_submit_task", name)
        if broken:
            del made["new_cluster"]
            made["existing_cluster_id"] = "1201-my-cluster"
        return made

    @case("spark_submit_without_libraries", _name, "libraries")
    def _(p: Payloads, broken: bool, name: str = _name) -> Made:
        made = launched(p, "spark_submit_task", name)
        library = {"jar": "dbfs:/a.jar"}
        if broken and p.chance(0.5):
            made["new_cluster"]["libraries"] = [library]
        else:
            made["libraries"] = [library] if broken else []
        return made

    @case("spark_submit_without_spark_conf", _name, "spark_conf")
    def _(p: Payloads, broken: bool, name: str = _name) -> Made:
        made = launched(p, "spark_submit_task", name)
        made["new_cluster"]["spark_conf"] = {"spark.speculation": True} if broken else {}
        return made


for _rule, _name in (
    ("some_task", "RunsSubmitRequest"),
    ("some_task", "TaskSettings"),
    ("some_task_of_a_job", "CreateRequest"),
    ("some_task_of_a_job", "JobSettings"),
):

    @case(_rule, _name, "_task")
    def _(p: Payloads, broken: bool, name: str = _name) -> Made:
        made = launched(p, "notebook_task", name)
        if broken:
            del made["notebook_task"]
        return made


@case("one_task", "RunsSubmitRequest", "tasks")
def _(p: Payloads, broken: bool) -> Made:
    made = launched(p, "notebook_task")
    if broken:
        made["tasks"] = [p.structure("TaskSettings", 2)]
    return made


@case("number_of_tasks", "CreateRequest", "tasks")
def _(p: Payloads, broken: bool) -> Made:
    return {"tasks": tasks(101 if broken else 100)}


@case("number_of_tasks_in_2_2", "CreateRequest", "tasks")
def _(p: Payloads, broken: bool) -> Made:
    return {"tasks": tasks(1001 if broken else 1000)}


def tasks(count: int) -> list[Made]:
    """Make so many small tasks."""
    task = {"notebook_task": {"notebook_path": "/a"}}
    return [{"task_key": f"{number}", **task} for number in range(count)]


@case("some_cluster", "RunsSubmitRequest", "new_cluster")
def _(p: Payloads, broken: bool) -> Made:
    on_cluster = ("spark_jar_task", "spark_python_task")
    kind = p.random.choice(on_cluster if broken else ("pipeline_task", "run_job_task"))
    made = launched(p, kind)
    made.pop("existing_cluster_id", None)
    made.pop("new_cluster", None)
    return made


@case("some_cluster_for_a_notebook", "RunsSubmitRequest", "new_cluster")
def _(p: Payloads, broken: bool) -> Made:
    made = launched(p, "notebook_task")
    made.pop("existing_cluster_id", None)
    made.pop("new_cluster", None)
    return made if broken else {**made, "existing_cluster_id": "c"}


@case("some_cluster", "TaskSettings", "new_cluster")
def _(p: Payloads, broken: bool) -> Made:
    made = launched(p, "spark_jar_task" if broken else "notebook_task", "TaskSettings")
    made.pop("existing_cluster_id", None)
    made.pop("new_cluster", None)
    return made


@case("absolute_notebook_path", "NotebookTask", "notebook_path")
def _(p: Payloads, broken: bool) -> Made:
    return {"notebook_path": p.random.choice(("etl", "", "./etl")) if broken else "/"}


@case("spark_submit_options", "SparkSubmitTask", "parameters[2]")
def _(p: Payloads, broken: bool) -> Made:
    option = p.random.choice(("--master", "--deploy-mode", "--executor-cores"))
    words = ["--class", "Main", option, "x", "a.jar"]
    return {"parameters": words if broken else [*words[:2], "--driver-memory", "1g", "a.jar"]}


@case("one_kind_of_parameters", "RunNowRequest", "_params")
def _(p: Payloads, broken: bool) -> Made:
    made = p.structure("RunNowRequest")
    for name in PARAMETERS:
        made.pop(name, None)
    values: Made = {name: ["x"] for name in PARAMETERS[1:]} | {"notebook_params": {"a": "x"}}
    one, other = p.random.sample(PARAMETERS, 2)
    if {one, other} == {"notebook_params", "jar_params"}:
        other = "python_params"
    for name in (one, other) if broken else (one,):
        made[name] = values[name]
    return made


@case("notebook_or_jar_parameters", "RunNowRequest", "_params")
def _(p: Payloads, broken: bool) -> Made:
    made: Made = {"job_id": 1, "notebook_params": {"a": "x"}, "python_params": ["x"]}
    return {**made, "jar_params": ["x"]} if broken else made


@case("parameters_size", "RunNowRequest", "_params")
def _(p: Payloads, broken: bool) -> Made:
    name = p.random.choice(PARAMETERS)
    value: Any = {"a": ""} if name == "notebook_params" else [""]
    room = 10_000 - len(json.dumps({name: value}, separators=(",", ":")))
    filler = "x" * (room + broken)
    return {"job_id": 1, name: {"a": filler} if name == "notebook_params" else [filler]}


@case("ascii_parameters", "RunNowRequest", "_params")
def _(p: Payloads, broken: bool) -> Made:
    name = p.random.choice(("python_params", "spark_submit_params"))
    return {"job_id": 1, name: ["a", "\x80" if broken else "\x7f"]}


@case("ascii_notebook_parameters", "RunNowRequest", "notebook_params")
def _(p: Payloads, broken: bool) -> Made:
    character = "\x80" if broken else "\x7f"
    pair = p.random.choice(({"a": character}, {character: "a"}))
    return {"job_id": 1, "notebook_params": pair}


@case("ascii_base_parameters", "NotebookTask", "base_parameters")
def _(p: Payloads, broken: bool) -> Made:
    character = "漢" if broken else "~"
    pair = p.random.choice(({"a": character}, {character: "a"}))
    return {"notebook_path": "/a", "base_parameters": pair}


@case("spark_submit_params_options", "RunNowRequest", "spark_submit_params")
def _(p: Payloads, broken: bool) -> Made:
    words = ["--verbose", "--conf=a=b", "--master=x"] if broken else ["a.jar", "--master=x"]
    return {"job_id": 1, "spark_submit_params": words}


@case("autoscale_bounds", "AutoScale", "max_workers")
def _(p: Payloads, broken: bool) -> Made:
    least = p.whole(0, 100)
    return {"min_workers": least, "max_workers": least if broken else least + 1}


def cluster(**more: Any) -> Made:
    """Make a small good cluster."""
    return {"spark_version": "v", "node_type_id": "n", "num_workers": 1, **more}


@case("workers", "NewCluster", "num_workers")
def _(p: Payloads, broken: bool) -> Made:
    made = cluster()
    if broken and p.chance(0.5):
        made["autoscale"] = {"min_workers": 1, "max_workers": 2}
    elif broken:
        del made["num_workers"]
    return made


@case("spark_version", "NewCluster", "spark_version")
def _(p: Payloads, broken: bool) -> Made:
    made = cluster()
    del made["spark_version"]
    return made if broken else {**made, "policy_id": "p"}


@case("node_type", "NewCluster", "node_type_id")
def _(p: Payloads, broken: bool) -> Made:
    made = cluster()
    del made["node_type_id"]
    return made if broken else {**made, p.random.choice(("instance_pool_id", "policy_id")): "p"}


@case("driver_pool", "NewCluster", "instance_pool_id")
def _(p: Payloads, broken: bool) -> Made:
    made = cluster(driver_instance_pool_id="d")
    return made if broken else {**made, "instance_pool_id": "p"}


@case("number_of_tags", "NewCluster", "custom_tags")
def _(p: Payloads, broken: bool) -> Made:
    return cluster(custom_tags={f"t{n}": "v" for n in range(46 if broken else 45)})


@case("tag_keys", "NewCluster", "custom_tags")
def _(p: Payloads, broken: bool) -> Made:
    bad = ["", "k" * 513, *(f"a{c}b" for c in "<>%*&+?\\/"), "azure", "microsoft.x", "windows10"]
    good = ["k", "k" * 512, "ä b", "my azure", "a-b_c.d:e"]
    return cluster(custom_tags={p.random.choice(bad if broken else good): "v"})


@case("tag_values", "NewCluster", "custom_tags")
def _(p: Payloads, broken: bool) -> Made:
    return cluster(custom_tags={"k": "ä" * (257 if broken else 256)})


@case("ascii_environment", "NewCluster", "spark_env_vars")
def _(p: Payloads, broken: bool) -> Made:
    character = "é" if broken else "e"
    pair = p.random.choice(({"a": character}, {character: "a"}))
    return cluster(spark_env_vars=pair)


@case("first_on_demand", "AzureAttributes", "first_on_demand")
def _(p: Payloads, broken: bool) -> Made:
    return {"first_on_demand": p.random.choice((0, -1, "0")) if broken else 1}


@case("spot_price", "AzureAttributes", "spot_bid_max_price")
def _(p: Payloads, broken: bool) -> Made:
    bad, good = (0, -0.5, -2, "0"), (-1, "-1", 0.0001, 12)
    return {"spot_bid_max_price": p.random.choice(bad if broken else good)}


@case("one_script_place", "InitScriptInfo", "init_scripts")
def _(p: Payloads, broken: bool) -> Made:
    place = {"destination": "d"}
    good = ({"workspace": place}, {"file": place}, {"volumes": place})
    bad: tuple[Made, ...] = ({}, {"dbfs": place, "abfss": place}, {"workspace": None})
    return p.random.choice(bad if broken else good)


@case("one_log_place", "ClusterLogConf", "cluster_log_conf")
def _(p: Payloads, broken: bool) -> Made:
    place = {"destination": "d"}
    good = ({"dbfs": place}, {"volumes": place}, {"dbfs": place, "s3": None})
    bad: tuple[Made, ...] = ({}, {"dbfs": place, "s3": place})
    return p.random.choice(bad if broken else good)


@case("one_kind_of_library", "Library", "libraries")
def _(p: Payloads, broken: bool) -> Made:
    good = ({"jar": "a"}, {"requirements": "/r.txt"}, {"jar": "a", "egg": None})
    bad: tuple[Made, ...] = ({}, {"jar": "a", "whl": "b"}, {"jar": None})
    return p.random.choice(bad if broken else good)


@case("zipped_wheels", "Library", "whl")
def _(p: Payloads, broken: bool) -> Made:
    return {"whl": "dbfs:/a.zip" if broken else "dbfs:/a.wheelhouse.zip"}


@case("max_retries", "JobSettings", "max_retries")
def _(p: Payloads, broken: bool) -> Made:
    return {**p.structure("JobSettings", 1), "max_retries": -2 if broken else -1}


@case("max_retries", "TaskSettings", "max_retries")
def _(p: Payloads, broken: bool) -> Made:
    return {**p.structure("TaskSettings", 1), "max_retries": -2 if broken else -1}


@case("max_concurrent_runs", "CreateRequest", "max_concurrent_runs")
def _(p: Payloads, broken: bool) -> Made:
    number = p.random.choice((-1, 1001, "1001") if broken else (0, 1000, "1000"))
    return {**p.structure("CreateRequest"), "max_concurrent_runs": number}


@case("quartz_fields", "CronSchedule", "quartz_cron_expression")
def _(p: Payloads, broken: bool) -> Made:
    count = p.random.choice((0, 5, 8) if broken else (6, 7))
    fields = ["*", "*", "*", "*", "*", "?", "*", "*"]
    return {"quartz_cron_expression": " ".join(fields[:count]), "timezone_id": "UTC"}


@case("health_metric", "JobsHealthRule", "metric")
def _(p: Payloads, broken: bool) -> Made:
    bad = ("run_duration", "STREAMING_BACKLOG_BYTES")
    return {"metric": p.random.choice(bad) if broken else "RUN_DURATION_SECONDS", "value": 1}


@case("ascii_addresses", "JobEmailNotifications", "on_")
def _(p: Payloads, broken: bool) -> Made:
    event = p.random.choice(EVENTS[:3])
    return {event: ["a@example.com", "jürgen@example.com" if broken else "j@example.com"]}


@case("number_of_destinations", "WebhookNotifications", "on_")
def _(p: Payloads, broken: bool) -> Made:
    return {p.random.choice(EVENTS): [{"id": "a"}] * (4 if broken else 3)}


@case("fields_to_remove", "UpdateRequest", "fields_to_remove")
def _(p: Payloads, broken: bool) -> Made:
    bad = ("new_cluster/num_workers", "new_cluster.num_workers", "", "tasks/", "a/tasks/b")
    good = ("libraries", "tasks/task_1", "job_clusters/Default", "tasks/a/b")
    return {"job_id": 1, "fields_to_remove": [p.random.choice(bad if broken else good)]}


@case("active_or_completed", "RunsListRequest", "completed_only")
def _(p: Payloads, broken: bool) -> Made:
    return {"active_only": p.random.choice((True, "true")), "completed_only": broken}


@case("runs_on_a_page", "RunsListRequest", "limit")
def _(p: Payloads, broken: bool) -> Made:
    largest = 25 if p.has_tasks else 1000
    return {"limit": p.random.choice((-1, 1001) if broken else (0, 1, largest))}


@case("runs_to_skip", "RunsListRequest", "offset")
def _(p: Payloads, broken: bool) -> Made:
    return {"offset": -1 if broken else 0}

"""Payloads made at random from the API's structures: good ones, and ones that break one rule.

``Payloads(random.Random(7)).request("runs/submit")`` is a request that obeys everything. An entry
of ``CASES`` makes a part that just obeys one rule, or just does not; ``Payloads.around`` puts a
part somewhere into a good request.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from airflow_jobs_provider.api.schema.introspection import Field, fields_of, structures
from airflow_jobs_provider.api.schema.request_types import ENDPOINTS
from airflow_jobs_provider.api.schema.rules import RULES, Rule
from airflow_jobs_provider.api.schema.task_kinds import TASK_KINDS

STRUCTURES = structures()
LAUNCHED = ("CreateRequest", "JobSettings", "RunsSubmitRequest", "TaskSettings")
PARAMETERS = ("notebook_params", "jar_params", "python_params", "spark_submit_params")
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _.-:@{}\"'\n"
WIDE = LETTERS + "äßé漢字🙂"
CHOICES = {
    "pause_status": ("PAUSED", "UNPAUSED"),
    "run_type": ("JOB_RUN", "WORKFLOW_RUN", "SUBMIT_RUN"),
    "operator": ("GREATER_THAN",),
    "metric": ("RUN_DURATION_SECONDS",),
    "AzureAvailability": ("SPOT_AZURE", "ON_DEMAND_AZURE", "SPOT_WITH_FALLBACK_AZURE"),
    "ViewsToExport": ("CODE", "DASHBOARDS", "ALL"),
    "quartz_cron_expression": ("0 15 22 * * ?", "0 0 12 * * ? 2030"),
    "timezone_id": ("UTC", "America/Los_Angeles", "Asia/Shanghai"),
    "python_file": ("dbfs:/main.py",),
    "whl": ("dbfs:/my/whl", "dbfs:/a.whl", "dbfs:/a.wheelhouse.zip"),
}
# Where a structure may stand: the structure around it, and the field.
AROUND: dict[str, tuple[tuple[str, str], ...]] = {
    "AutoScale": (("NewCluster", "autoscale"),),
    "AzureAttributes": (("NewCluster", "azure_attributes"),),
    "ClusterLogConf": (("NewCluster", "cluster_log_conf"),),
    "InitScriptInfo": (("NewCluster", "init_scripts"),),
    "NewCluster": tuple((name, "new_cluster") for name in LAUNCHED),
    "Library": tuple((name, "libraries") for name in LAUNCHED),
    "NotebookTask": tuple((name, "notebook_task") for name in LAUNCHED),
    "SparkSubmitTask": tuple((name, "spark_submit_task") for name in LAUNCHED),
    "WebhookNotifications": tuple((name, "webhook_notifications") for name in LAUNCHED),
    "JobEmailNotifications": (
        ("CreateRequest", "email_notifications"),
        ("JobSettings", "email_notifications"),
    ),
    "CronSchedule": (("CreateRequest", "schedule"), ("JobSettings", "schedule")),
    "JobsHealthRules": (("JobSettings", "health"),),
    "JobsHealthRule": (("JobsHealthRules", "rules"),),
    "JobSettings": (("ResetRequest", "new_settings"),),
    "TaskSettings": (("CreateRequest", "tasks"), ("RunsSubmitRequest", "tasks")),
}
CALL_OF = {endpoint.request.__name__: path for path, endpoint in ENDPOINTS.items()}


class Payloads:
    """Makes payloads from a source of chance.

    :param source: the source.
    :param api_version: version of the API that takes them; fields that it does not know are left
        out.
    """

    def __init__(self, source: random.Random, api_version: str = "2.2") -> None:
        self.random = source
        self.api_version = api_version
        self.has_tasks = api_version != "2.0"

    def chance(self, likelihood: float) -> bool:
        """Decide."""
        return self.random.random() < likelihood

    def whole(self, low: int, high: int) -> int:
        """Choose a number, its bounds often."""
        return self.random.choice((low, high, self.random.randint(low, high)))

    def text(self, low: int = 0, high: int = 12, letters: str = LETTERS) -> str:
        """Make text."""
        return "".join(self.random.choices(letters, k=self.random.randint(low, high)))

    def request(self, call: str) -> dict[str, Any]:
        """Make a good request to an endpoint."""
        return self.structure(ENDPOINTS[call].request.__name__)

    def structure(self, name: str, depth: int = 0) -> dict[str, Any]:
        """Make a good part of a structure."""
        made: dict[str, Any] = {}
        for field in fields_of(STRUCTURES[name]).values():
            if field.min_version > self.api_version:
                continue
            if field.required or self.chance(0.4 if depth < 2 else 0.2):
                made[field.name] = self._value(field, depth)
        if self.has_tasks and self.chance(0.2):
            made["a_field_of_tomorrow"] = self.random.choice((1, "x", [{}], {"deep": [None]}))
        settle = getattr(self, f"_settle_{name.lower()}", None)
        if settle is not None:
            settle(made, depth)
        if name in LAUNCHED:
            self._settle_launched(name, made, depth)
        return made

    def _value(self, field: Field, depth: int) -> Any:
        if field.is_list:
            count = self.random.randint(0, 2)
            if field.structure is not None:
                kind = field.structure.__name__
                return [self.structure(kind, depth + 1) for _ in range(count)]
            return [self.text() for _ in range(count)]
        if field.structure is not None:
            return self.structure(field.structure.__name__, depth + 1)
        for name in (field.name, field.type_name):
            if name in CHOICES:
                return self.random.choice(CHOICES[name])
        return self._plain(field)

    def _plain(self, field: Field) -> Any:
        kind = field.type_name
        if kind in ("INT32", "INT64"):
            number = self.whole(1, 1000 if kind == "INT32" else 2**62)
            return str(number) if self.chance(0.1) else number
        if kind == "BOOL":
            return self.chance(0.5)
        if kind == "DOUBLE":
            return self.random.choice((-1, 0.5, 12))
        if kind == "STRING":
            return "/" + self.text() if field.name == "notebook_path" else self.text(1)
        # A map.
        letters = "abcXYZ0189" if kind == "ClusterTag" else LETTERS
        wide = WIDE if kind == "ClusterTag" else LETTERS
        made: dict[str, Any] = {
            self.text(1, 9, letters): self.text(0, 9, wide)
            for _ in range(self.random.randint(0, 3))
        }
        if kind == "SparkConfPair":
            made["a"] = self.random.choice((True, 5, 0.5))
        return made

    # -- what the rules ask for ----------------------------------------------------------------

    def keep_one(self, made: dict[str, Any], names: tuple[str, ...], structure: str) -> str:
        """Leave one of several fields."""
        kept = self.random.choice(names)
        for name in names:
            if name != kept:
                made.pop(name, None)
        if kept not in made:
            made[kept] = self._value(fields_of(STRUCTURES[structure])[kept], 2)
        return kept

    def _settle_autoscale(self, made: dict[str, Any], _depth: int) -> None:
        made["min_workers"] = self.whole(0, 9)
        made["max_workers"] = made["min_workers"] + self.whole(1, 9)

    def _settle_newcluster(self, made: dict[str, Any], _depth: int) -> None:
        self.keep_one(made, ("num_workers", "autoscale"), "NewCluster")
        made.setdefault("spark_version", "15.4.x-scala2.12")
        if "instance_pool_id" not in made:
            made.setdefault("node_type_id", "Standard_D3_v2")
            made.pop("driver_instance_pool_id", None)

    def _settle_initscriptinfo(self, made: dict[str, Any], _depth: int) -> None:
        made.pop("a_field_of_tomorrow", None)
        self.keep_one(made, ("workspace", "dbfs", "abfss", "file"), "InitScriptInfo")

    def _settle_clusterlogconf(self, made: dict[str, Any], _depth: int) -> None:
        made.pop("a_field_of_tomorrow", None)
        self.keep_one(made, ("dbfs",), "ClusterLogConf")

    def _settle_library(self, made: dict[str, Any], _depth: int) -> None:
        self.keep_one(made, ("jar", "egg", "whl", "pypi", "maven", "cran"), "Library")

    def _settle_sparksubmittask(self, made: dict[str, Any], _depth: int) -> None:
        made["parameters"] = ["--class", "Main", "--conf", "a=b", "dbfs:/a.jar", "--master", "x"]

    # Without these the reference's words are obeyed, but there is nothing to run or to refer to.
    def _settle_sparkjartask(self, made: dict[str, Any], _depth: int) -> None:
        made.setdefault("main_class_name", "com.databricks.ComputeModels")

    def _settle_pipelinetask(self, made: dict[str, Any], _depth: int) -> None:
        made.setdefault("pipeline_id", "a-pipeline")

    def _settle_jobcluster(self, made: dict[str, Any], _depth: int) -> None:
        made.setdefault("job_cluster_key", "shared")

    def _settle_runnowrequest(self, made: dict[str, Any], _depth: int) -> None:
        self.keep_one(made, PARAMETERS, "RunNowRequest")
        if "spark_submit_params" in made:
            made["spark_submit_params"] = ["--class", "org.apache.spark.examples.SparkPi"]

    def _settle_runslistrequest(self, made: dict[str, Any], _depth: int) -> None:
        if made.get("active_only"):
            made["completed_only"] = False
        if "page_token" in made or "a_field_of_tomorrow" in made or self.api_version == "2.1":
            made.pop("limit", None)  # only 2.0 has large pages

    def _settle_listrequest(self, made: dict[str, Any], _depth: int) -> None:
        made.pop("limit", None)

    def _settle_updaterequest(self, made: dict[str, Any], _depth: int) -> None:
        made["fields_to_remove"] = self.random.choices(
            ("libraries", "tasks/a b", "job_clusters/x"), k=self.random.randint(0, 3)
        )

    def _settle_launched(self, name: str, made: dict[str, Any], depth: int) -> None:
        made.pop("tasks", None)
        for kind in (*TASK_KINDS, "for_each_task"):
            made.pop(kind, None)
        if self.has_tasks and name != "TaskSettings" and depth < 1 and self.chance(0.3):
            made["tasks"] = [
                {**self.structure("TaskSettings", 2), "task_key": f"task_{number}"}
                for number in range(self.whole(1, 3))
            ]
            for field in ("existing_cluster_id", "new_cluster"):
                made.pop(field, None)
        else:
            self.give_task(made, self.random.choice(TASK_KINDS), depth)
            if name == "TaskSettings" and depth <= 2 and self.chance(0.1):
                inner = self.structure("TaskSettings", depth + 1)
                self.give_task(made, "for_each_task", depth)
                made["for_each_task"] = {"inputs": "[1, 2]", "task": inner}

    def give_task(self, made: dict[str, Any], kind: str, depth: int = 2) -> None:
        """Let settings have this kind of task, and what it needs."""
        for other in [name for name in made if name.endswith("_task")]:
            del made[other]
        made.pop("tasks", None)
        if kind != "for_each_task":
            made[kind] = self.structure(str(fields_of(STRUCTURES["JobTask"])[kind].type_name), 3)
        made.pop("job_cluster_key", None)
        if kind == "spark_submit_task":
            made.pop("existing_cluster_id", None)
            made.pop("libraries", None)
            made.setdefault("new_cluster", self.structure("NewCluster", depth + 1))
            made["new_cluster"].pop("spark_conf", None)
        else:
            self.keep_one(made, ("existing_cluster_id", "new_cluster"), "ClusterSpec")

    def _is_known(self, outer: str, field: str) -> bool:
        if outer == "TaskSettings" and not self.has_tasks:
            return False
        return fields_of(STRUCTURES[outer])[field].min_version <= self.api_version

    def around(self, name: str, part: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Put a part somewhere into a good request; return the call and the request."""
        while name not in CALL_OF:
            outer, field = self.random.choice(
                [place for place in AROUND[name] if self._is_known(*place)]
            )
            made = self.structure(outer, 1)
            if outer in LAUNCHED and field not in ("webhook_notifications", "schedule"):
                if field == "spark_submit_task":
                    self.give_task(made, field)
                elif field == "tasks":
                    part["task_key"] = "task_0"
                    for gone in ("existing_cluster_id", "new_cluster", *TASK_KINDS):
                        made.pop(gone, None)
                else:
                    self.give_task(made, "notebook_task")
            if field == "new_cluster":
                made.pop("existing_cluster_id", None)
            if field == "autoscale":
                made.pop("num_workers", None)
            is_list = fields_of(STRUCTURES[outer])[field].is_list
            made[field] = [part] if is_list else part
            name, part = outer, made
        return CALL_OF[name], part


@dataclass(frozen=True)
class Case:
    """One rule, on both sides of its bound.

    :ivar rule: the rule's name in ``airflow_jobs_provider.api.schema.rules``.
    :ivar structure: what ``make`` makes.
    :ivar field: what a problem's field ends with, or has in it.
    :ivar make: makes a part that just breaks the rule, or just does not.
    """

    rule: str
    structure: str
    field: str
    make: Callable[[Payloads, bool], dict[str, Any]]

    @property
    def of_rule(self) -> Rule:
        """The rule."""
        return next(rule for rule in RULES if rule.name == self.rule)

    @property
    def versions(self) -> tuple[str, ...]:
        """The versions that the rule binds and that know what the case makes."""
        needs_tasks = self.structure == "TaskSettings" or self.field == "tasks"
        return tuple(
            version for version in self.of_rule.versions if version != "2.0" or not needs_tasks
        )


CASES: list[Case] = []
Make = Callable[[Payloads, bool], dict[str, Any]]


def case(rule: str, structure: str, field: str) -> Callable[[Make], Make]:
    """Add a case."""

    def add(make: Make) -> Make:
        CASES.append(Case(rule, structure, field, make))
        return make

    return add

"""DatabricksTaskBaseOperator: what the operators for one Databricks task share.

Alone, the task is submitted as a one-time run. In a
:class:`~airflow_jobs_provider.operators.workflow.DatabricksWorkflowTaskGroup` it is a task of the
group's job, and the operator follows that task's run.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from airflow_jobs_provider.airflow_compat.default_arguments import applies_defaults_once
from airflow_jobs_provider.airflow_compat.mapped_start import is_prototype
from airflow_jobs_provider.airflow_compat.parsing import requests_are_validated
from airflow_jobs_provider.operators.argument_checks import (
    check_optional_flags,
    check_text,
    openlineage_flag,
)
from airflow_jobs_provider.operators.extra_links import extra_links
from airflow_jobs_provider.operators.payload_validation import (
    check_before_sending,
    fields_over_json,
    has_unrendered,
)
from airflow_jobs_provider.operators.workflow_member import WorkflowMemberOperator

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow.sdk import Context

    from airflow_jobs_provider.api.calls import Call
    from airflow_jobs_provider.api.schema.types import NewCluster
    from airflow_jobs_provider.operators.arguments import (
        Flag,
        Number,
        StructureOf,
        Text,
    )

__all__ = ["RUN_IF", "DatabricksTaskBaseOperator", "default_task_key", "without_empty"]

MAX_TASK_KEY_LENGTH = 100
# What the schema takes for a flag as text; it refuses other text.
_FLAGS = {"": None, "true": True, "True": True, "false": False, "False": False}
# Airflow's trigger rules, with the run condition of Databricks; None is the service's default.
RUN_IF: dict[str, str | None] = {
    "all_success": None,
    "all_failed": "ALL_FAILED",
    "all_done": "ALL_DONE",
    "always": "ALL_DONE",
    "one_success": "AT_LEAST_ONE_SUCCESS",
    "one_failed": "AT_LEAST_ONE_FAILED",
    "none_failed": "NONE_FAILED",
    "none_failed_min_one_success": "NONE_FAILED",
}
# Settings of a job that a one-time run of one of its tasks needs, too.
_OF_ALL_TASKS = ("git_source", "environments")


def default_task_key(dag_id: str, task_id: str) -> str:
    """Return the key of a task that has none of its own, as the official provider makes it.

    :param dag_id: the DAG.
    :param task_id: the task's id in the DAG.
    """
    return hashlib.md5(f"{dag_id}__{task_id}".encode(), usedforsecurity=False).hexdigest()


@applies_defaults_once
class DatabricksTaskBaseOperator(WorkflowMemberOperator):
    """Base class of the operators for one Databricks task.

    A subclass defines the task in :meth:`task_definition`. The arguments are those of
    :class:`~.arguments.TaskArguments`.
    """

    operator_extra_links = extra_links("DatabricksJobLink", "DatabricksWorkflowRunLink")
    call_name: ClassVar[str] = "runs/submit"
    template_fields: Sequence[str] = (
        "databricks_conn_id",
        "existing_cluster_id",
        "new_cluster",
        "job_cluster_key",
        "max_retries",
        "min_retry_interval_millis",
        "retry_on_timeout",
        "workflow_run_metadata",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"new_cluster": "json"}
    # The fields of the task's definition, for the checks when the DAG is parsed.
    definition_fields: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        *,
        databricks_task_key: str = "",
        existing_cluster_id: Text = "",
        new_cluster: StructureOf[NewCluster] | None = None,
        job_cluster_key: Text = "",
        max_retries: Number | None = None,
        min_retry_interval_millis: Number | None = None,
        retry_on_timeout: Flag | None = None,
        workflow_run_metadata: Any = None,
        polling_period_seconds: float | timedelta | None = 5,
        billing_tags: bool | None = None,
        openlineage_inject_parent_job_info: bool | None = None,
        openlineage_inject_transport_info: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(polling_period_seconds=polling_period_seconds, **kwargs)
        check_optional_flags(billing_tags=billing_tags)
        self.billing_tags = billing_tags
        self.openlineage_inject_parent_job_info = openlineage_flag(
            self, "inject_parent_job_info", openlineage_inject_parent_job_info
        )
        self.openlineage_inject_transport_info = openlineage_flag(
            self, "inject_transport_info", openlineage_inject_transport_info
        )
        self.existing_cluster_id = existing_cluster_id
        self.new_cluster = new_cluster
        self.job_cluster_key = job_cluster_key
        self.max_retries = max_retries
        self.min_retry_interval_millis = min_retry_interval_millis
        self.retry_on_timeout = retry_on_timeout
        self.workflow_run_metadata = workflow_run_metadata
        self._task_key = databricks_task_key

    @property
    def databricks_task_key(self) -> str:
        """Key of the task in Databricks."""
        if self._task_key and len(self._task_key) <= MAX_TASK_KEY_LENGTH:
            return self._task_key
        return default_task_key(self.dag_id, self.task_id)

    @property
    def databricks_run_id(self) -> int | None:
        """The same as :attr:`run_id`, under its name in the official provider."""
        return self.run_id

    def task_definition(self) -> dict[str, Any]:
        """Return the task: its kind, libraries and time limit, without key, cluster and retries."""
        raise NotImplementedError

    def service_retries(self) -> int:
        """Return how often the service itself retries the task, -1 for no limit."""
        settings = {**self.task_definition(), **self.retry_settings()}
        return _whole("max_retries", settings.get("max_retries")) or 0

    def known_retries(self) -> int | None:
        """Return the same while the DAG is parsed; None if it is known only when the task runs."""
        given = self.max_retries
        if given is None or given == "":
            given = self._defined_retries()
        return None if has_unrendered(given) else _whole("max_retries", given) or 0

    def _defined_retries(self) -> Any:
        """Return what the task's definition says of retries; None for nothing."""
        return None

    def trigger_rule_name(self) -> str:
        """Return the task's trigger rule as text."""
        return str(getattr(self.trigger_rule, "value", self.trigger_rule))

    # -- a task of a group ---------------------------------------------------------------------

    def workflow_task(self, keys: Mapping[str, str]) -> dict[str, Any]:
        """Return the task as one of a job.

        The group's parameters for all notebooks are sent with the run, so that those of a DAG run
        do not change the job.

        :param keys: the task keys of all tasks of the group, by task id.
        """
        upstream = [keys[task_id] for task_id in sorted(self.upstream_task_ids) if task_id in keys]
        return {
            **self._task_of_group(),
            **without_empty({"job_cluster_key": self.job_cluster_key}),
            **without_empty({"depends_on": [{"task_key": key} for key in upstream]}),
            **without_empty({"run_if": RUN_IF[self.trigger_rule_name()]}),
        }

    def _task_of_group(self, notebook_params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        group = self.workflow_group()
        assert group is not None
        task = {**without_empty(self.task_definition()), **self._cluster()}
        if self.job_cluster_key or self.existing_cluster_id:
            # As in the official group: a new_cluster is for a task outside of a group then.
            task.pop("new_cluster", None)
        if "notebook_task" in task:
            notebook = dict(task["notebook_task"])
            parameters = {
                **_parameters(notebook.get("base_parameters")),
                **_parameters(notebook_params),
            }
            task["notebook_task"] = without_empty({**notebook, "base_parameters": parameters})
            packages = list(task.get("libraries") or ())
            packages += [one for one in group.notebook_packages if one not in packages]
            task = without_empty({**task, "libraries": packages})
        return {**task, "task_key": self.databricks_task_key, **self.retry_settings()}

    def _alone(self) -> dict[str, Any]:
        """Return the one-time run of a task of a group, on a cluster of its own."""
        from airflow_jobs_provider.api.workflows.run_parameters import with_run_parameters

        group = self.workflow_group()
        assert group is not None
        job = group.launch_task.rendered_for(self)
        task = self._task_of_group(job.notebook_params)
        for cluster in job.job_clusters or ():
            if self.job_cluster_key and cluster.get("job_cluster_key") == self.job_cluster_key:
                task["new_cluster"] = cluster.get("new_cluster")
        extra = job.extra_job_params or {}
        task = with_run_parameters(
            task,
            extra.get("parameters") or (),
            jar_params=job.jar_params,
            python_params=job.python_params,
            spark_submit_params=job.spark_submit_params,
        )
        shared = {name: extra[name] for name in _OF_ALL_TASKS if extra.get(name)}
        return {"tasks": [task], **shared}

    # -- the request ---------------------------------------------------------------------------

    def request(self) -> dict[str, Any]:
        """Return the one-time run, without its name."""
        if self.workflow_group() is not None:
            return fields_over_json(self.call_name, None, self._alone())
        task = {**without_empty(self.task_definition()), **self._cluster()}
        retries = self.retry_settings()
        has_cluster = any(task.get(name) for name in ("existing_cluster_id", "new_cluster"))
        if retries or not has_cluster:
            # Retries are a task's. Without a cluster it is serverless, which 2.0 does not have.
            task = {"tasks": [{**task, "task_key": self.databricks_task_key, **retries}]}
        return fields_over_json(self.call_name, None, task)

    def launch_call(self, context: Context) -> Call[int]:
        """Return the ``runs/submit`` call, named after the task."""
        from airflow_jobs_provider.api.endpoints import submit_run
        from airflow_jobs_provider.operators.run_name import default_run_name

        name = self._task_key or default_run_name(context)
        group, billing_tags = self.workflow_group(), self.billing_tags
        if group is not None and billing_tags is None:
            billing_tags = group.billing_tags
        request = {"run_name": name, **self.request()}
        request = self._with_billing_tags(request, context, billing_tags)
        return submit_run(self._with_openlineage(request, context))

    def retry_settings(self) -> dict[str, Any]:
        """Return the settings for the service's own retries of the task, as far as given."""
        retry_on_timeout = self.retry_on_timeout
        if isinstance(retry_on_timeout, str):
            retry_on_timeout = _FLAGS.get(retry_on_timeout, retry_on_timeout)
        settings = {
            "max_retries": _whole("max_retries", self.max_retries),
            "min_retry_interval_millis": _whole(
                "min_retry_interval_millis", self.min_retry_interval_millis
            ),
            "retry_on_timeout": retry_on_timeout,
        }
        return {name: value for name, value in settings.items() if value is not None}

    def timeout_seconds(self) -> int | None:
        """Return the task's ``execution_timeout`` in seconds; None without one."""
        if self.execution_timeout is None:
            return None
        # The service stops the run even if this task does not exist any more by then.
        return math.ceil(self.execution_timeout.total_seconds())

    def _cluster(self) -> dict[str, Any]:
        cluster = {
            "existing_cluster_id": self.existing_cluster_id,
            "new_cluster": self.new_cluster,
        }
        return without_empty(cluster)

    def arguments_without_effect(self) -> dict[str, str]:
        """Return the arguments that were given and have no effect, each with the reason."""
        found = super().arguments_without_effect()
        if self.workflow_group() is None:
            if self.job_cluster_key:
                found["job_cluster_key"] = "the task is in no workflow group"
            return found
        if self.new_cluster and (self.job_cluster_key or self.existing_cluster_id):
            name = "job_cluster_key" if self.job_cluster_key else "existing_cluster_id"
            found["new_cluster"] = f"{name} selects the cluster in a workflow group"
        given = {
            "reattach=False": not self.reattach,
            "queued_timeout_seconds": self.queued_timeout_seconds is not None,
        }
        names = [name for name, is_given in given.items() if is_given]
        return {**dict.fromkeys(names, "the task is in a workflow group"), **found}

    def _operator_arguments(self) -> dict[str, Any]:
        return {
            **super()._operator_arguments(),
            "billing_tags": self.billing_tags,
            "databricks_task_key": self._task_key,
            "openlineage_inject_parent_job_info": False,
            "openlineage_inject_transport_info": False,
        }

    def _check_when_parsed(self) -> None:
        """Check the request at the end of the constructor, as far as it is known."""
        if not is_prototype():  # It lacks what is mapped.
            self._check_definition()
        self._check_start()

    def _check_definition(self) -> None:
        if self.existing_cluster_id and self.new_cluster and self.workflow_group() is None:
            _refuse(
                "new_cluster",
                "must not be given together with existing_cluster_id",
                self.new_cluster,
            )
        if self.execution_timeout is not None and self.timeout_seconds() == 0:
            _refuse("execution_timeout", "must not be 0; None is no limit", 0)
        if self._task_key:
            check_text("databricks_task_key", self._task_key)
        if self.workflow_group() is not None:
            return  # The group checks its tasks when it is complete.
        if not self.validate or not requests_are_validated(self):
            return
        # A user's subclass may set its own template fields after this constructor.
        names = (*self.template_fields, *self.definition_fields)
        if not has_unrendered([getattr(self, name, None) for name in names]):
            check_before_sending(self.call_name, {"run_name": self.task_id, **self.request()})


def _whole(name: str, value: Any) -> int | None:
    if value is None or value == "":
        return None
    try:
        return int(value)
    except (TypeError, ValueError):
        _refuse(name, "must be a whole number", value)


def _parameters(given: Any) -> dict[str, Any]:
    """Return the parameters of a notebook, also where they are text."""
    from airflow_jobs_provider.api.schema.payload_text import read_payload

    return dict(read_payload("notebook_params", given))


def without_empty(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without those that are not given: None, empty text, lists and maps.

    :param settings: the settings by name.
    """
    return {name: value for name, value in settings.items() if value not in (None, "", [], {}, ())}


def _refuse(field: str, rule: str, found: Any) -> NoReturn:
    from airflow_jobs_provider.api.errors import InvalidRequestError
    from airflow_jobs_provider.api.problems import Problem, describe_value

    raise InvalidRequestError("", [Problem(field, rule, describe_value(found))])

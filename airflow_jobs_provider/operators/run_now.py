"""DatabricksRunNowOperator: a run of a job that is there, and what it gave back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_jobs_provider.operators.launching import LaunchRunOperator
from airflow_jobs_provider.operators.parsing import check_when_parsed

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobs_provider.api.calls import Call

__all__ = ["DatabricksRunNowOperator"]


class DatabricksRunNowOperator(LaunchRunOperator):
    """Run a job now, wait for the run, and return what its notebook gave back.

    ::

        DatabricksRunNowOperator(
            task_id="train", job_name="Nightly model training", notebook_params={"day": "{{ ds }}"}
        )

    XComs, launching, waiting and ``json`` are those of :class:`.DatabricksSubmitRunOperator`. The
    DAG's ``params`` are not sent along. Reference: "Run now".

    :param json: the request's fields as one dict.
    :param job_id: the job to run.
    :param job_name: the job's name, in place of its id; exactly one job must have it.
    :param notebook_params: parameters of a notebook job, merged over its base parameters.
    :param jar_params: parameters of a JAR job.
    :param python_params: parameters of a Python job, in place of the job's own.
    :param spark_submit_params: parameters of a spark-submit job, in place of the job's own.
    :param python_named_params: parameters of a wheel job, in later API versions.
    :param job_parameters: parameters of the job, in later API versions.
    :param idempotency_token: token of at most 64 characters; the same token launches nothing new.
    :param databricks_conn_id: Airflow connection; default ``databricks_default``.
    :param polling_period_seconds: seconds between two looks at the run; default 30.
    :param databricks_retry_limit: as for :class:`.DatabricksSubmitRunOperator`.
    :param databricks_retry_delay: likewise.
    :param databricks_retry_args: likewise.
    :param do_xcom_push: likewise.
    :param wait_for_termination: likewise.
    :param reattach: likewise.
    :param cancel_on_kill: likewise.
    :param queued_timeout_seconds: likewise.
    :param max_output_bytes: likewise.
    :param deferrable: likewise.
    :param validate: likewise.
    :raises InvalidRequest: when the DAG is parsed: the reference forbids the request.
    :raises DatabricksRunFailedError: the run failed, timed out, was canceled or skipped.
    :raises AirflowFailException: the reference forbids the rendered request, the service refused
        it, or no job has the name.
    """

    request_fields: ClassVar[tuple[str, ...]] = (
        "job_id",
        "job_name",
        "notebook_params",
        "jar_params",
        "python_params",
        "spark_submit_params",
        "python_named_params",
        "job_parameters",
        "idempotency_token",
    )
    _service_may_retry: ClassVar[bool] = True
    template_fields: Sequence[str] = (*LaunchRunOperator.template_fields, *request_fields)
    template_fields_renderers: ClassVar[dict[str, str]] = dict.fromkeys(
        ("json", "notebook_params", "job_parameters"), "json"
    )

    def __init__(
        self,
        *,
        job_id: int | str | None = None,
        job_name: str | None = None,
        notebook_params: Mapping[str, Any] | None = None,
        jar_params: list[Any] | None = None,
        python_params: list[Any] | None = None,
        spark_submit_params: list[Any] | None = None,
        python_named_params: Mapping[str, Any] | None = None,
        job_parameters: Mapping[str, Any] | None = None,
        idempotency_token: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job_id = job_id
        self.job_name = job_name
        self.notebook_params = notebook_params
        self.jar_params = jar_params
        self.python_params = python_params
        self.spark_submit_params = spark_submit_params
        self.python_named_params = python_named_params
        self.job_parameters = job_parameters
        self.idempotency_token = idempotency_token
        fields = self._fields()
        in_json = self.json if isinstance(self.json, Mapping) else {}
        if fields.pop("job_name") is not None or in_json.get("job_name") is not None:
            fields["job_id"] = fields["job_id"] or 0  # not known yet, but there
        check_when_parsed("run-now", self.json, fields, validate=self.validate)

    def launch_call(self, context: Context) -> Call[int]:
        """Return the ``run-now`` call, with the job's id where its name was given."""
        from airflow_jobs_provider.api.calls import run_now

        request = self.request()
        job_name = request.pop("job_name", None)
        if (job_name is None) == (request.get("job_id") is None):
            raise AirflowFailException("give either job_id or job_name, and not both")
        if job_name is not None:
            try:
                request["job_id"] = self.hook.find_job_id_by_name(job_name)
            except ValueError as error:  # several have the name
                raise AirflowFailException(str(error)) from error
            if request["job_id"] is None:
                raise AirflowFailException(f"no job has the name {job_name!r}")
        # A rendered template is text; the API wants a number.
        request["job_id"] = int(request["job_id"])
        return run_now(request)

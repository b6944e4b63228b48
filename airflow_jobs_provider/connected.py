"""What every task of this package shares: the connection, its hook, and how refusals end a task."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, BaseOperator

if TYPE_CHECKING:
    from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook

__all__ = ["ConnectedOperator", "refusals_are_final"]


class ConnectedOperator(BaseOperator):
    """Base of the tasks that talk to a workspace.

    :param databricks_conn_id: Airflow connection; default ``databricks_default``.
    :param databricks_retry_limit: tries of a request at the most; by default time decides.
    :param databricks_retry_delay: seconds before the second try; by default it depends on what went
        wrong.
    :param databricks_retry_args: arguments for tenacity in place of the policy's own.
    :param validate: check what is sent against the API's reference before it is sent, and already
        when the DAG is parsed if it holds no template; default True.
    """

    def __init__(
        self,
        *,
        databricks_conn_id: str = "databricks_default",
        databricks_retry_limit: int | None = None,
        databricks_retry_delay: float | None = None,
        databricks_retry_args: dict[str, Any] | None = None,
        validate: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.databricks_conn_id = databricks_conn_id
        self.databricks_retry_limit = databricks_retry_limit
        self.databricks_retry_delay = databricks_retry_delay
        self.databricks_retry_args = databricks_retry_args
        self.validate = validate

    @cached_property
    def hook(self) -> DatabricksJobsHook:
        """The hook of this task's connection."""
        return self._new_hook()

    def _new_hook(self) -> DatabricksJobsHook:
        from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook

        return DatabricksJobsHook(
            self.databricks_conn_id, validate=self.validate, **self._hook_arguments
        )

    @property
    def _hook_arguments(self) -> dict[str, Any]:
        return {
            "retry_limit": self.databricks_retry_limit,
            "retry_delay": self.databricks_retry_delay,
            "retry_args": self.databricks_retry_args,
            "caller": type(self).__name__,
        }


@contextmanager
def refusals_are_final() -> Iterator[None]:
    """Let Airflow not retry what was refused, by the service or before it was sent.

    The same request will be refused again: a retry would only delay the news.

    :raises AirflowFailException: in place of a refusal, with its words.
    """
    from airflow_jobs_provider.api.errors import AuthenticationFailed, BadRequest, InvalidRequest

    try:
        yield
    except (AuthenticationFailed, BadRequest, InvalidRequest) as error:
        # Its words are told; its trace, printed above them, would only tell them twice.
        raise AirflowFailException(str(error)) from None

"""The base class of all operators and the sensor: the connection and its hook."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_jobs_provider.airflow_compat.default_arguments import (
    applies_defaults_once,
    set_attribute,
    specially_set_attributes,
)
from airflow_jobs_provider.airflow_compat.mapped_start import is_unmapped
from airflow_jobs_provider.api.errors import JobsAPIError
from airflow_jobs_provider.api.private_names import warn_of_replaced_names
from airflow_jobs_provider.exceptions import airflow_exceptions
from airflow_jobs_provider.operators.argument_checks import (
    check_flags,
    check_retry_args,
    check_text,
    check_whole_number,
    to_seconds,
)

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
    from airflow_jobs_provider.operators.arguments import HookArguments

__all__ = ["DEFAULT_CONNECTION", "DatabricksJobsBaseOperator"]

DEFAULT_CONNECTION = "databricks_default"


@applies_defaults_once
class DatabricksJobsBaseOperator(BaseOperator):
    """Base class of all operators and the sensor.

    Its arguments are those of :class:`~.arguments.ConnectionArguments`.
    """

    __setattr__ = set_attribute

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        warn_of_replaced_names(cls)
        specially_set_attributes(cls)
        if "__init__" in vars(cls):
            # Before Airflow wraps it.
            cls.__init__ = _final_if_unmapped(cls.__init__)  # type: ignore[method-assign]

    def __init__(
        self,
        *,
        databricks_conn_id: str = DEFAULT_CONNECTION,
        databricks_retry_limit: int | None = None,
        databricks_retry_delay: float | timedelta | None = None,
        databricks_retry_args: dict[str, Any] | None = None,
        validate: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_text("databricks_conn_id", databricks_conn_id)
        check_whole_number("databricks_retry_limit", databricks_retry_limit, least=1)
        check_retry_args(databricks_retry_args)
        check_flags(validate=validate)
        self.databricks_conn_id = databricks_conn_id
        self.databricks_retry_limit = databricks_retry_limit
        self.databricks_retry_delay = to_seconds(
            "databricks_retry_delay", databricks_retry_delay, zero=True, optional=True
        )
        self.databricks_retry_args = databricks_retry_args
        self.validate = validate

    @cached_property
    def hook(self) -> DatabricksJobsHook:
        """The hook of the task's connection."""
        return self._new_hook()

    @cached_property
    def workspace_url(self) -> str:
        """The workspace's URL. A trigger that makes the operator sets it."""
        return self.hook.client.base_url

    def arguments_without_effect(self) -> dict[str, str]:
        """Return the arguments that were given and have no effect, each with the reason.

        They are logged when the task is executed. They are no error when the DAG is parsed: a
        default of the DAG may give them to tasks of all kinds.
        """
        in_place_of = {"databricks_retry_limit": "stop", "databricks_retry_delay": "wait"}
        return {
            name: f"databricks_retry_args has {key}"
            for name, key in in_place_of.items()
            if getattr(self, name) is not None and key in (self.databricks_retry_args or {})
        }

    def _log_arguments_without_effect(self) -> None:
        for name, reason in self.arguments_without_effect().items():
            self.log.info("%s has no effect: %s.", name, reason)

    def _new_hook(self) -> DatabricksJobsHook:
        from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook

        check_text("databricks_conn_id", self.databricks_conn_id)
        return DatabricksJobsHook(
            self.databricks_conn_id, validate=self.validate, **self._hook_arguments()
        )

    def _hook_arguments(self) -> HookArguments:
        return {
            "retry_limit": self.databricks_retry_limit,
            "retry_delay": self.databricks_retry_delay,
            "retry_args": self.databricks_retry_args,
            "caller": type(self).__name__,
        }


def _final_if_unmapped(constructor: Callable[..., None]) -> Callable[..., None]:
    """Let a constructor's error fail an instance of a mapped task without a retry.

    Airflow makes the operator of such an instance on the worker. The next try would make it with
    the same arguments.

    :param constructor: of an operator.
    """

    @wraps(constructor)
    def construct(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            constructor(self, *args, **kwargs)
        except JobsAPIError:
            if not is_unmapped(self):
                raise
            with airflow_exceptions():
                raise

    return construct

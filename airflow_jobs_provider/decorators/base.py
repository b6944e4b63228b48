"""What the operators behind the TaskFlow decorators share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import DecoratedOperator

from airflow_jobs_provider.operators.submit_run import DatabricksSubmitRunOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["DecoratedSubmitRunOperator"]


class DecoratedSubmitRunOperator(DecoratedOperator, DatabricksSubmitRunOperator):
    """Base class of the operators of decorated functions that submit a one-time run.

    :param python_callable: the function.
    :param forward_dag_params: send the DAG's ``params``, if the run has no parameters; default
        False, since the function gives the parameters.
    :param kwargs: those of Airflow's decorated operators, and of
        :class:`~airflow_jobs_provider.operators.submit_run.DatabricksSubmitRunOperator`.
    """

    template_fields: Sequence[str] = (
        *DecoratedOperator.template_fields,
        *DatabricksSubmitRunOperator.template_fields,
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        **DatabricksSubmitRunOperator.template_fields_renderers,
    }

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        forward_dag_params: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            python_callable=python_callable, forward_dag_params=forward_dag_params, **kwargs
        )

    def execute(self, context: Context) -> Any:
        """Launch the run, wait for it unless told otherwise, and return its output.

        :param context: the task's context.
        """
        # Not DecoratedOperator's: it fails on Airflow 3.0 for any operator without xcom_push.
        return DatabricksSubmitRunOperator.execute(self, context)

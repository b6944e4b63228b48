"""What the operators share whose request is given as ``json`` or field by field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_jobs_provider.operators.argument_checks import check_flags
from airflow_jobs_provider.operators.base import DatabricksJobsBaseOperator
from airflow_jobs_provider.operators.dag_params import forwardable_params, with_dag_params
from airflow_jobs_provider.operators.validation import check_when_parsed, fields_over_json

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["PayloadOperator"]


class PayloadOperator(DatabricksJobsBaseOperator):
    """Base of the operators that send a request which the user gives.

    A subclass names its endpoint in ``call_name`` and the endpoint's fields in ``request_fields``,
    and keeps each field as an attribute of the same name.

    :param json: the request's fields as one dict, or as text: JSON, or a Python literal.
    :param forward_dag_params: send the DAG's ``params`` where the request takes parameters and has
        none; default True.
    """

    call_name: ClassVar[str] = ""
    request_fields: ClassVar[tuple[str, ...]] = ()
    template_fields: Sequence[str] = ("json", "databricks_conn_id")
    template_ext: Sequence[str] = (".json-tpl",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"json": "json"}
    ui_color = "#1cb1c2"
    ui_fgcolor = "#fff"

    def __init__(
        self, *, json: Any | None = None, forward_dag_params: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        check_flags(forward_dag_params=forward_dag_params)
        self.json = json
        self.forward_dag_params = forward_dag_params
        # Names of what was given: a template may render it to None.
        self._given: tuple[str, ...] = ()

    def request(self) -> dict[str, Any]:
        """Return what is sent: ``json``, overridden by the fields that were given."""
        return fields_over_json(self.call_name, self.json, self._fields())

    def request_with_dag_params(self, context: Context) -> dict[str, Any]:
        """Return what is sent, with the DAG's ``params`` unless told otherwise."""
        for name in self._given:
            if getattr(self, name) is None:
                self.log.warning("%s rendered to None and counts as not given.", name)
        request = self.request()
        if not self.forward_dag_params:
            return request
        params = forwardable_params(self, context)
        whole = with_dag_params(self.call_name, request, params)
        if whole != request:
            # Names only: a value may be a secret.
            self.log.info(
                "The DAG's params are sent as parameters: %s. "
                "forward_dag_params=False turns this off.",
                ", ".join(params),
            )
        return whole

    def _fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.request_fields}

    def _check_when_parsed(self) -> None:
        """Check the request at the end of the constructor, if all of it is known by then."""
        self._given = tuple(
            name for name in ("json", *self.request_fields) if getattr(self, name) is not None
        )
        fields = self._fields_when_parsed()
        check_when_parsed(self.call_name, self.json, fields, validate=self.validate)

    def _fields_when_parsed(self) -> dict[str, Any]:
        return self._fields()

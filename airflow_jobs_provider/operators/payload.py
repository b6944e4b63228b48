"""The base class of the operators that send a request which the user gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowException

from airflow_jobs_provider.airflow_compat.default_arguments import applies_defaults_once
from airflow_jobs_provider.airflow_compat.parsing import requests_are_validated
from airflow_jobs_provider.operators.argument_checks import check_flags
from airflow_jobs_provider.operators.base import DEFAULT_CONNECTION, DatabricksJobsBaseOperator
from airflow_jobs_provider.operators.dag_params import forwardable_params, with_dag_params
from airflow_jobs_provider.operators.payload_validation import check_known_request, fields_over_json

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["GivenFields", "JsonRenderers", "PayloadOperator"]

_CONNECTION = "databricks_conn_id"
# Words of Airflow's errors about an argument that an operator does not have.
_UNKNOWN_ARGUMENT = ("Invalid arguments were passed", "unexpected keyword argument")
_ANY_FIELD = "A field of the API that has no argument here is given in json={...}, which takes any."


class GivenFields:
    """The ``template_fields`` of an operator: of the class all, of an instance those given.

    Airflow looks at each template field of each task for the outputs of other tasks and for files,
    and stores its name and value with the DAG. A request has twenty fields, of which a task gives
    three. A field that is set after the constructor is given, too. The default connection is not.

    :param names: the names of all fields.
    """

    def __init__(self, *names: str) -> None:
        self._names = names
        self._request_names = tuple(name for name in names if name != _CONNECTION)
        # Whether fields are attributes of instances only, by class. In a subclass one may be a
        # property.
        self._are_of_instances: dict[type, bool] = {}

    def __get__(self, task: Any, kind: type) -> tuple[str, ...]:
        """Return the names. While the constructors of Airflow run, no field is set yet."""
        if task is None or "_given" not in (own := vars(task)):
            return self._names
        names = self._request_names
        if kind not in self._are_of_instances:
            self._are_of_instances[kind] = not any(hasattr(kind, name) for name in self._names)
        if self._are_of_instances[kind]:
            given = [name for name in names if own.get(name) is not None]
        else:
            given = [name for name in names if getattr(task, name, None) is not None]
        if getattr(task, _CONNECTION) != DEFAULT_CONNECTION:
            given.append(_CONNECTION)
        return tuple(given)


class JsonRenderers:
    """The ``template_fields_renderers`` of an operator, likewise. Airflow's UI shows JSON.

    :param names: the names of the fields that may be JSON.
    """

    def __init__(self, *names: str) -> None:
        self._names = names

    def __get__(self, task: Any, kind: type) -> dict[str, str]:
        """Return the renderers by the names of the fields."""
        return {
            name: "json"
            for name in self._names
            if task is None or getattr(task, name, None) is not None
        }


@contextmanager
def unknown_arguments_explained() -> Iterator[None]:
    """Let Airflow's error about an unknown argument say how any field of the API is given.

    :raises TypeError: as Airflow 3 does, and each line for mapped tasks.
    :raises AirflowException: as Airflow 2 does.
    """
    try:
        yield
    except (TypeError, AirflowException) as error:
        message = str(error)
        if not any(words in message for words in _UNKNOWN_ARGUMENT):
            raise
        raise type(error)(f"{message}\n{_ANY_FIELD}") from None


@applies_defaults_once
class PayloadOperator(DatabricksJobsBaseOperator):
    """Base class of the operators that send a request which the user gives.

    A subclass names its endpoint in ``call_name`` and the endpoint's fields in ``request_fields``,
    and keeps each field as an attribute of the same name. Its arguments are those of
    :class:`~.arguments.PayloadArguments`.
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
        try:
            super().__init__(**kwargs)
        except (TypeError, AirflowException):
            with unknown_arguments_explained():
                raise
        check_flags(forward_dag_params=forward_dag_params)
        self.json = json
        self.forward_dag_params = forward_dag_params
        # Names of the given fields: a template may render one to None.
        self._given: tuple[str, ...] = ()

    if not TYPE_CHECKING:  # It has the type that Airflow gives it.

        @classmethod
        def partial(cls, **kwargs: Any) -> Any:
            """Map the operator over arguments; see Airflow's ``BaseOperator.partial``."""
            with unknown_arguments_explained():
                return super().partial(**kwargs)

    if not TYPE_CHECKING:  # It has the type that Airflow gives it.

        def prepare_for_execution(self) -> Any:
            """Return the copy that is executed. Its template fields are those that are given.

            Airflow renders, redacts, validates and stores each template field in each of a task's
            processes, also one that is None. A request has twenty fields, of which a task gives
            three.
            """
            task = super().prepare_for_execution()
            names = vars(task).get("template_fields", type(task).template_fields)
            task.template_fields = tuple(
                name for name in names if getattr(task, name, None) is not None
            )
            return task

    def request(self) -> dict[str, Any]:
        """Return the request: ``json``, overridden by the fields that were given."""
        return fields_over_json(self.call_name, self.json, self._fields())

    def request_with_dag_params(self, context: Context) -> dict[str, Any]:
        """Return the request, with the DAG's ``params`` unless told otherwise.

        :param context: the task's context.
        """
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
        """Return the fields that are given by name."""
        return {
            name: value
            for name in self.request_fields
            if (value := getattr(self, name)) is not None
        }

    def _check_when_parsed(self) -> None:
        """Validate the request at the end of the constructor, if all of it is known.

        Not in a process that constructs all operators to execute one, or to call callbacks.
        """
        fields = self._fields()
        self._given = (*(() if self.json is None else ("json",)), *fields)
        if not requests_are_validated(self):
            return  # What is sent is validated then.
        fields = self._fields_when_parsed(fields)
        check_known_request(self.call_name, self.json, fields, validate=self.validate)

    def _fields_when_parsed(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Check what is particular to the operator; return the fields to be validated.

        :param fields: the fields that are given by name.
        """
        return fields

"""The TaskFlow decorators: ``@task.databricks_notebook`` and ``@task.databricks_python``.

Airflow finds both as attributes of ``task``. Imported from here they are the same, and an editor
knows their arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast, overload

from airflow_jobs_provider.airflow_compat.task_decorators import decorate_task
from airflow_jobs_provider.decorators.function_source import read_function_source
from airflow_jobs_provider.decorators.notebook import (
    NOTEBOOK_DECORATOR,
    DatabricksNotebookDecoratedOperator,
)
from airflow_jobs_provider.decorators.python import (
    PYTHON_DECORATOR,
    DatabricksPythonDecoratedOperator,
    check_python_arguments,
)

if TYPE_CHECKING:
    from airflow.sdk.bases.decorator import Task, TaskDecorator

    from airflow_jobs_provider.api.schema.types import Library, NewCluster
    from airflow_jobs_provider.operators.arguments import ListOf, Seconds, StructureOf, Text

__all__ = ["databricks_notebook", "databricks_python"]

P = ParamSpec("P")
R = TypeVar("R")


def databricks_notebook(
    notebook_path: Text | None = None,
    *,
    source: Text | None = None,
    existing_cluster_id: Text | None = None,
    new_cluster: StructureOf[NewCluster] | None = None,
    libraries: ListOf[Library] | None = None,
    git_source: StructureOf[Mapping[str, Any]] | None = None,
    timeout_seconds: Seconds | None = None,
    databricks_conn_id: str | None = None,
    deferrable: bool | None = None,
    **kwargs: Any,
) -> TaskDecorator:
    """Run a notebook once, with the parameters that the function returns.

    ::

        @task.databricks_notebook("/Shared/etl", existing_cluster_id="1201-my-cluster")
        def etl(day: str):
            return {"day": day}

        report(etl("{{ ds }}"))

    The function runs on the worker, each time that the run is launched. It returns the notebook's
    parameters as a dict, or None for none. Text is sent as it is, any other value as JSON. What the
    function returns is not rendered; its arguments are. The value of the call is the text that the
    notebook gives to ``dbutils.notebook.exit()``. A run without a cluster is serverless.

    :param notebook_path: path of the notebook; templated.
    :param source: ``WORKSPACE`` or ``GIT``; default: the service decides.
    :param existing_cluster_id: cluster to run on.
    :param new_cluster: cluster to create for the run (reference: "NewCluster").
    :param libraries: libraries to install on the cluster (reference: "Library").
    :param git_source: repository of the notebook, in later API versions.
    :param timeout_seconds: seconds, or a timedelta, after which the service stops the run; default
        the task's ``execution_timeout``, if it has one.
    :param databricks_conn_id: Airflow connection; default ``databricks_default``; templated.
    :param deferrable: wait in the triggerer, without a worker; default False, or Airflow's
        ``[operators] default_deferrable``.
    :param kwargs: other arguments of
        :class:`~airflow_jobs_provider.operators.submit_run.DatabricksSubmitRunOperator` and of
        Airflow's ``BaseOperator``. ``task_id`` is the function's name by default, and
        ``forward_dag_params`` is False.
    :raises TypeError: ``notebook_path`` is missing.
    """
    if notebook_path is None or callable(notebook_path):
        raise TypeError(f'{NOTEBOOK_DECORATOR} needs a path: {NOTEBOOK_DECORATOR}("/Shared/etl")')
    given = _given(
        kwargs,
        source=source,
        existing_cluster_id=existing_cluster_id,
        new_cluster=new_cluster,
        libraries=libraries,
        git_source=git_source,
        timeout_seconds=timeout_seconds,
        databricks_conn_id=databricks_conn_id,
        deferrable=deferrable,
    )
    # What the function returns are parameters, so that its annotation says nothing of the output.
    multiple_outputs = given.pop("multiple_outputs", False)

    def decorate(function: Callable[P, R]) -> Task[P, R]:
        return decorate_task(
            function,
            DatabricksNotebookDecoratedOperator,
            multiple_outputs=multiple_outputs,
            notebook_path=notebook_path,
            **given,
        )

    return cast("TaskDecorator", decorate)


@overload
def databricks_python(python_callable: Callable[P, R]) -> Task[P, R]: ...


@overload
def databricks_python(
    *,
    existing_cluster_id: Text | None = None,
    new_cluster: StructureOf[NewCluster] | None = None,
    libraries: ListOf[Library] | None = None,
    requirements: Sequence[str] = (),
    workspace_folder: Text | None = None,
    timeout_seconds: Seconds | None = None,
    databricks_conn_id: str | None = None,
    deferrable: bool | None = None,
    multiple_outputs: bool | None = None,
    **kwargs: Any,
) -> TaskDecorator: ...


def databricks_python(
    python_callable: Callable[..., Any] | None = None,
    *,
    existing_cluster_id: Text | None = None,
    new_cluster: StructureOf[NewCluster] | None = None,
    libraries: ListOf[Library] | None = None,
    requirements: Sequence[str] = (),
    workspace_folder: Text | None = None,
    timeout_seconds: Seconds | None = None,
    databricks_conn_id: str | None = None,
    deferrable: bool | None = None,
    multiple_outputs: bool | None = None,
    **kwargs: Any,
) -> Any:
    """Run the function on Databricks once, and return its result.

    ::

        @task.databricks_python(existing_cluster_id="1201-my-cluster", deferrable=True)
        def count(table: str) -> int:
            return spark.table(table).count()

        report(count("sales"))

    The function's source is uploaded as a notebook, and runs there with ``spark`` and ``dbutils``.
    Only the function itself goes there: it imports modules inside of it, and uses no variable or
    function of the DAG file. Arguments and result are JSON; a tuple becomes a list. An argument
    with the name of a context variable, such as ``ds``, gets its value. A run without a cluster is
    serverless.

    :param python_callable: the function, where the decorator has no arguments.
    :param existing_cluster_id: cluster to run on.
    :param new_cluster: cluster to create for the run (reference: "NewCluster").
    :param libraries: libraries to install on the cluster (reference: "Library").
    :param requirements: packages to install with ``%pip`` for the run alone, such as
        ``["pandas==2.2.3"]``; default none.
    :param workspace_folder: folder of the workspace for the notebook; default
        ``.airflow_jobs_provider`` in the home folder of the connection's identity; templated.
    :param timeout_seconds: seconds, or a timedelta, after which the service stops the run; default
        the task's ``execution_timeout``, if it has one.
    :param databricks_conn_id: Airflow connection; default ``databricks_default``; templated.
    :param deferrable: wait in the triggerer, without a worker; default False, or Airflow's
        ``[operators] default_deferrable``.
    :param multiple_outputs: push each item of a dict that the function returns as an XCom of its
        own; default: whether the function's return annotation is a dict.
    :param kwargs: other arguments of
        :class:`~airflow_jobs_provider.operators.submit_run.DatabricksSubmitRunOperator` and of
        Airflow's ``BaseOperator``. ``task_id`` is the function's name by default.
    :raises TypeError: the function is no plain one, or an argument is not taken.
    :raises ValueError: the function needs something of the DAG file.
    """
    given = _given(
        kwargs,
        existing_cluster_id=existing_cluster_id,
        new_cluster=new_cluster,
        libraries=libraries,
        workspace_folder=workspace_folder,
        timeout_seconds=timeout_seconds,
        databricks_conn_id=databricks_conn_id,
        deferrable=deferrable,
    )
    check_python_arguments(given, requirements)

    def decorate(function: Callable[P, R]) -> Task[P, R]:
        # Also here: the operator of a mapped function is made on the worker only.
        read_function_source(function, PYTHON_DECORATOR)
        return decorate_task(
            function,
            DatabricksPythonDecoratedOperator,
            multiple_outputs=multiple_outputs,
            requirements=list(requirements),
            **given,
        )

    return decorate if python_callable is None else decorate(python_callable)


def _given(kwargs: Mapping[str, Any], **named: Any) -> dict[str, Any]:
    """Return the arguments that were given; the operator has its own defaults for the others."""
    return {**kwargs, **{name: value for name, value in named.items() if value is not None}}

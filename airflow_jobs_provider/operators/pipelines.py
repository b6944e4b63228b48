"""``pipeline_task`` by the pipeline's name: the API takes only its id."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from airflow.providers.common.compat.sdk import AirflowException

from airflow_jobs_provider.operators.templates import has_unrendered

__all__ = ["check_pipeline_names", "with_pipeline_ids"]

_TASK, _ID, _NAME = "pipeline_task", "pipeline_id", "pipeline_name"


def check_pipeline_names(request: Mapping[str, Any]) -> None:
    """Check that no ``pipeline_task`` has both the id and the name of a pipeline.

    :param request: a request, or its fields as far as they are known.
    :raises InvalidRequestError: one has both.
    """
    for path, holder in _holders(request):
        task = holder.get(_TASK)
        if isinstance(task, Mapping) and task.get(_NAME) and task.get(_ID):
            from airflow_jobs_provider.api.errors import InvalidRequestError
            from airflow_jobs_provider.api.problems import Problem

            rule = f"must not be given together with {_ID}"
            raise InvalidRequestError(
                "", [Problem(f"{path}{_TASK}.{_NAME}", rule, "both are given")]
            )


def with_pipeline_ids(
    request: Mapping[str, Any], find: Callable[[str], str | None]
) -> dict[str, Any]:
    """Return a request with the id of each pipeline that is given by its name.

    :param request: the request, rendered; it is not changed.
    :param find: returns the id of a pipeline by its name; None where there is none.
    :raises InvalidRequestError: a ``pipeline_task`` has both the id and the name.
    :raises AirflowException: no pipeline has the name.
    """
    check_pipeline_names(request)

    def with_id(holder: Mapping[str, Any]) -> dict[str, Any]:
        task = holder.get(_TASK)
        if not isinstance(task, Mapping) or not task.get(_NAME):
            return dict(holder)
        name = str(task[_NAME])
        pipeline_id = find(name)
        if pipeline_id is None:
            raise AirflowException(f"no pipeline has the name {name!r}")
        rest = {field: value for field, value in task.items() if field != _NAME}
        return {**holder, _TASK: {**rest, _ID: pipeline_id}}

    result = with_id(request)
    if isinstance(request.get("tasks"), (list, tuple)):
        tasks = request["tasks"]
        result["tasks"] = [with_id(one) if isinstance(one, Mapping) else one for one in tasks]
    return result


def _holders(request: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield what may have a ``pipeline_task``, with the path to it: the request, and its tasks."""
    yield "", request
    tasks = request.get("tasks")
    if isinstance(tasks, (list, tuple)) and not has_unrendered(tasks):
        for index, task in enumerate(tasks):
            if isinstance(task, Mapping):
                yield f"tasks[{index}].", task

"""Parses responses of the API, and checks the types of the fields that this package uses.

* A missing field, or null, is no error.
* A field that is not listed here is kept as it came.
* A whole number may come as decimal text; it is replaced by the number.
* A field of another type than the reference's raises :class:`InvalidResponseError`. The client
  turns that into :class:`~airflow_jobs_provider.api.errors.UnexpectedResponseError`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

from airflow_jobs_provider.api.ids import MAX_ID, parse_id
from airflow_jobs_provider.api.problems import field_path
from airflow_jobs_provider.api.text import safe_url

if TYPE_CHECKING:
    from airflow_jobs_provider.api.schema.types import (
        Job,
        PipelineStateInfo,
        Run,
        RunsGetOutputResponse,
        ViewItem,
    )

__all__ = [
    "LARGE_BYTES",
    "InvalidResponseError",
    "JSONObject",
    "NotJSONError",
    "Reader",
    "parse_items",
    "parse_items_with_id",
    "parse_job",
    "parse_json_object",
    "parse_output",
    "parse_page_token",
    "parse_pipeline",
    "parse_required_id",
    "parse_run",
    "parse_states",
    "parse_view",
    "parse_views",
]

JSONObject: TypeAlias = "dict[str, Any]"
Reader: TypeAlias = "Callable[[Any], Any]"
T = TypeVar("T")

_WHOLE = re.compile(r"-?[0-9]{1,19}")


class InvalidResponseError(ValueError):
    """A response lacks a required field, or has a field of another type than the reference's.

    :ivar problem: what is wrong, such as ``tasks[3].state is not an object``.
    """

    def __init__(self, what: str, path: tuple[str | int, ...] = ()) -> None:
        self._what = what
        self._path = path
        self.problem = f"{field_path(path)} {what}" if path else what
        super().__init__(self.problem)

    def inside(self, part: str | int) -> InvalidResponseError:
        """Return the same error with a longer path.

        :param part: name or index of the invalid value in the object or list that holds it.
        """
        return InvalidResponseError(self._what, (part, *self._path))


class NotJSONError(ValueError):
    """A response is not JSON, but a page or plain text, as of a gateway."""


#: A larger response is parsed piece by piece, with pauses. The asyncio client does so in a thread.
LARGE_BYTES = 128 * 1024


def parse_json_object(
    body: bytes, item_hook: Callable[[Any], Any] | None = None
) -> JSONObject | None:
    """Parse a body as a JSON object; return None if it is not JSON.

    An empty body counts as an empty object: some endpoints answer success with no body.

    :param body: the whole body.
    :param item_hook: called with each item of each list that is a value of the object. What it
        returns takes the place of the item. Default None: the items stay as they are.
    :raises InvalidResponseError: it is JSON but no object, is nested too deeply, or has a number
        that is too long.
    """
    if not body.strip():
        return {}
    try:
        value = _parse_json(body, item_hook)
    except (json.JSONDecodeError, UnicodeDecodeError):
        return None
    except RecursionError:
        raise InvalidResponseError("the JSON is nested too deeply") from None
    except ValueError:
        # Python does not convert a number of thousands of digits.
        raise InvalidResponseError("a number has too many digits") from None
    if not isinstance(value, dict):
        raise InvalidResponseError("the JSON is not an object")
    return value


def _parse_json(body: bytes, item_hook: Callable[[Any], Any] | None) -> Any:
    if len(body) > LARGE_BYTES:
        # As json.loads decodes it.
        text = body.decode(json.detect_encoding(body), "surrogatepass")
        # Imported for a long list only.
        from airflow_jobs_provider.api.large_json import parse_large_object

        return parse_large_object(text, item_hook)
    value = json.loads(body)
    if item_hook is not None and isinstance(value, dict):
        for name, items in value.items():
            if isinstance(items, list):
                value[name] = [item_hook(item) for item in items]
    return value


# -- the types of fields -------------------------------------------------------------------------


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidResponseError("is not text")
    return value


def _web_address(value: Any) -> str | None:
    # An unsafe URL counts as missing, so that no log or link shows it.
    return safe_url(_text(value))


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidResponseError("is not true or false")
    return value


def _whole(value: Any) -> int:
    is_whole_float = isinstance(value, float) and value.is_integer()
    if is_whole_float or (isinstance(value, str) and _WHOLE.fullmatch(value)):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > MAX_ID:
        raise InvalidResponseError("is not a whole number")
    return value


def _id(value: Any) -> int:
    if (read := parse_id(value)) is None:
        raise InvalidResponseError("is not an id")
    return read


def _id_or_zero(value: Any) -> int:
    # A service may write 0 for "none".
    return 0 if value == 0 and type(value) is int else _id(value)


def _object(fields: Mapping[str, Reader]) -> Reader:
    def read(value: Any) -> Any:
        if not isinstance(value, dict):
            raise InvalidResponseError("is not an object")
        _check(value, fields)
        return value

    return read


def _list(reader: Reader) -> Reader:
    def read(value: Any) -> Any:
        if not isinstance(value, list):
            raise InvalidResponseError("is not a list")
        for place, item in enumerate(value):
            try:
                reader(item)
            except InvalidResponseError as error:
                raise error.inside(place) from None
        return value

    return read


def _check(response: JSONObject, fields: Mapping[str, Reader]) -> None:
    """Check the fields of an object; replace a number that is text by the number."""
    for name, reader in fields.items():
        if (value := response.get(name)) is None:
            continue
        try:
            read = reader(value)
        except InvalidResponseError as error:
            raise error.inside(name) from None
        if read is not value:
            response[name] = read


# -- the structures ------------------------------------------------------------------------------

_STATE = _object({"life_cycle_state": _text, "result_state": _text, "state_message": _text})
_ANY_OBJECT = _object({})
_OF_ANY_RUN: dict[str, Reader] = {
    "state": _STATE,
    "start_time": _whole,
    "end_time": _whole,
    "attempt_number": _whole,
    "run_page_url": _web_address,
}
_OF_TASK: dict[str, Reader] = {
    **_OF_ANY_RUN,
    "run_id": _id,
    "original_attempt_run_id": _id_or_zero,
    "task_key": _text,
    "for_each_task": _object(
        {"stats": _object({"task_run_stats": _object({"total_iterations": _whole})})}
    ),
}
_OF_REPAIR: dict[str, Reader] = {**_OF_ANY_RUN, "id": _id_or_zero, "type": _text}
_OF_RUN: dict[str, Reader] = {
    **_OF_TASK,
    "job_id": _id_or_zero,
    "run_type": _text,
    "run_name": _text,
    "format": _text,
    "has_more": _flag,
    "next_page_token": _text,
    "tasks": _list(_object(_OF_TASK)),
    "iterations": _list(_object(_OF_TASK)),
    "repair_history": _list(_object(_OF_REPAIR)),
    "overriding_parameters": _ANY_OBJECT,
    "job_parameters": _list(_object({"name": _text})),
}
_OF_JOB: dict[str, Reader] = {
    "job_id": _id,
    "settings": _object(
        {
            "name": _text,
            "max_retries": _whole,
            "retry_on_timeout": _flag,
            "min_retry_interval_millis": _whole,
        }
    ),
}
_OF_PIPELINE: dict[str, Reader] = {"pipeline_id": _text, "name": _text, "state": _text}
_OF_OUTPUT: dict[str, Reader] = {
    "metadata": _object(_OF_RUN),
    "notebook_output": _object({"result": _text, "truncated": _flag}),
    "error": _text,
    "error_trace": _text,
}
_OF_VIEW: dict[str, Reader] = {"content": _text, "name": _text, "type": _text}


def parse_required_id(response: JSONObject, name: str) -> int:
    """Return the id that a response consists of.

    :param response: the response.
    :param name: the field, such as ``run_id``.
    :raises InvalidResponseError: the field is missing or no id.
    """
    if response.get(name) is None:
        raise InvalidResponseError(f"there is no {name}")
    _check(response, {name: _id})
    return int(response[name])


def parse_run(run: Any, run_id: int | None = None) -> Run:
    """Check a run of ``runs/get`` or ``runs/list`` and return it (reference: "Run").

    :param run: the JSON value.
    :param run_id: the requested run; None (default) if any run may come. It is filled in if the
        response leaves it out.
    :raises InvalidResponseError: the value is not a run, or is another run than requested.
    """
    if not isinstance(run, dict):
        raise InvalidResponseError("is not an object")
    if run.get("run_id") is None:
        if run_id is None or not run.get("state"):
            raise InvalidResponseError("there is no run_id")
        run["run_id"] = run_id
    _check(run, _OF_RUN)
    # For the run of a task, a service may return the run that the task belongs to.
    shown = (run["run_id"], *(task.get("run_id") for task in run.get("tasks") or ()))
    if run_id is not None and run_id not in shown:
        raise InvalidResponseError(f"run_id is not {run_id}, the run that was asked for")
    return cast("Run", run)


def parse_states(run: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return a run's life cycle state and result state; None for a missing one.

    Nothing else of the run is checked, which saves time in long lists.

    :param run: the run.
    :raises InvalidResponseError: one of them is not text.
    """
    state = run.get("state")
    if type(state) is dict:
        states = (state.get("life_cycle_state"), state.get("result_state"))
        if type(states[0]) is str and (states[1] is None or type(states[1]) is str):
            return states
    _check(dict(run), {"state": _STATE})
    state = state or {}
    return state.get("life_cycle_state"), state.get("result_state")


def parse_job(job: Any, job_id: int | None = None) -> Job:
    """Check a job of ``get`` or ``list`` and return it (reference: "Job").

    :param job: the JSON value.
    :param job_id: the requested job; None (default) if any job may come. It is filled in if the
        response leaves it out.
    :raises InvalidResponseError: the value is not a job, or is another job than requested.
    """
    if not isinstance(job, dict):
        raise InvalidResponseError("is not an object")
    if job.get("job_id") is None:
        if job_id is None or not job.get("settings"):
            raise InvalidResponseError("there is no job_id")
        job["job_id"] = job_id
    _check(job, _OF_JOB)
    if job_id is not None and job["job_id"] != job_id:
        raise InvalidResponseError(f"job_id is not {job_id}, the job that was asked for")
    return cast("Job", job)


def parse_pipeline(pipeline: Any) -> PipelineStateInfo:
    """Check a pipeline of the list of pipelines and return it (Pipelines API).

    :param pipeline: the JSON value.
    :raises InvalidResponseError: the value is not a pipeline.
    """
    if not isinstance(pipeline, dict):
        raise InvalidResponseError("is not an object")
    if not pipeline.get("pipeline_id"):
        raise InvalidResponseError("there is no pipeline_id")
    _check(pipeline, _OF_PIPELINE)
    return cast("PipelineStateInfo", pipeline)


def parse_output(response: JSONObject) -> RunsGetOutputResponse:
    """Check the response of ``runs/get-output`` and return it (reference: "Runs get output").

    :param response: the response.
    :raises InvalidResponseError: a part of it has another type than the reference gives it.
    """
    _check(response, _OF_OUTPUT)
    return cast("RunsGetOutputResponse", response)


def parse_view(view: JSONObject) -> ViewItem:
    """Check one view of ``runs/export`` and return it (reference: "ViewItem").

    :param view: the JSON object.
    :raises InvalidResponseError: a part of it has another type than the reference gives it.
    """
    _check(view, _OF_VIEW)
    return cast("ViewItem", view)


def parse_views(response: JSONObject) -> list[ViewItem]:
    """Return the views of ``runs/export`` (reference: "Runs export").

    :param response: the response.
    :raises InvalidResponseError: they are not a list of objects, or a part of one has another type.
    """
    _check(response, {"views": _list(_object(_OF_VIEW))})
    return response.get("views") or []


def parse_items(response: JSONObject, name: str, parse: Callable[[Any], T]) -> list[T]:
    """Return the items on a page of a list.

    :param response: the page.
    :param name: the field that holds the items.
    :param parse: checks one item.
    :raises InvalidResponseError: the field is no list, or an item is invalid.
    """
    _check(response, {name: _list(parse)})
    return response.get(name) or []


def parse_items_with_id(response: JSONObject, name: str, id_name: str) -> list[JSONObject]:
    """Return the items on a page of a list that have an id; check nothing else of them.

    For long pages of which few items are used. The caller checks those.

    :param response: the page.
    :param name: the field that holds the items.
    :param id_name: the field of an item that holds its id.
    :raises InvalidResponseError: the field is no list.
    """
    items = response.get(name) or []
    if not isinstance(items, list):
        raise InvalidResponseError("is not a list", (name,))
    identified = []
    for item in items:
        if isinstance(item, dict) and (read := parse_id(item.get(id_name))) is not None:
            item[id_name] = read
            identified.append(item)
    return identified


def parse_page_token(response: JSONObject) -> tuple[str | None, bool]:
    """Return a page's ``next_page_token`` (None if there is none) and its ``has_more``.

    :param response: the page.
    :raises InvalidResponseError: one of them has another type.
    """
    _check(response, {"next_page_token": _text, "has_more": _flag})
    return response.get("next_page_token") or None, bool(response.get("has_more"))

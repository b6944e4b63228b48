"""A call of the API, and a page of a list.

A call is a value: verb, path, parameters, whether it is idempotent, and how its response is parsed.
Making one touches no network, so it can be logged and tested as it is. :mod:`.endpoints` makes
them, and a client of :mod:`.client` sends them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, Literal, NamedTuple, TypeAlias, TypeVar

from airflow_jobs_provider.api.errors import InvalidRequestError
from airflow_jobs_provider.api.schema.version_selection import (
    choose_api_version,
    find_version_problems,
)
from airflow_jobs_provider.api.versions import LATEST_API_VERSION, OLDEST_API_VERSION

__all__ = [
    "JOBS_SERVICE",
    "PERMISSIONS_SERVICE",
    "PIPELINES_SERVICE",
    "Call",
    "JSONObject",
    "Page",
    "Verb",
]

T = TypeVar("T")
JSONObject: TypeAlias = "dict[str, Any]"
Verb = Literal["GET", "POST", "PUT", "PATCH"]
JOBS_SERVICE = "jobs"
PERMISSIONS_SERVICE = "permissions"
PIPELINES_SERVICE = "pipelines"


class Call(NamedTuple, Generic[T]):
    """One request to the Jobs API, or to another service of the workspace.

    :ivar verb: HTTP verb.
    :ivar path: path below ``/api/<version>/<service>/``; may be empty.
    :ivar parameters: the query of a GET, or the JSON body of any other verb.
    :ivar idempotent: whether the call may be sent again if its response was lost.
    :ivar parse: returns the result from the JSON object of the response; raises
        :class:`~.responses.InvalidResponseError`.
    :ivar missing_ok: whether "does not exist" in response to a repetition means that the first
        attempt did its work (deleting); default False.
    :ivar forbidden_is_final: whether the caller handles a 403, so that it is not retried; default
        False.
    :ivar has_deadline: whether a workflow sends the call within the deadline of the retry policy,
        although it is a read; see :func:`.workflows.base.within_deadline`. Default False.
    :ivar is_optional: whether a workflow goes on without the response. The call is then sent once,
        whatever the retry policy is; see :func:`.workflows.base.without_retries`. Default False.
    :ivar min_api_version: lowest version of the API that has the endpoint; default 2.0. Fields of
        ``parameters`` may need a higher one, see :mod:`.schema.version_selection`.
    :ivar default_api_version: version for a connection without ``api_version``; None (default):
        the parameters decide.
    :ivar service: first part of the path below the version; default ``jobs``. A connection's
        ``api_version`` concerns this service only.
    :ivar max_response_bytes: largest response, if that is more than the client's limit; default
        None.
    :ivar parse_stream: returns the result from the chunks of the response's body as they arrive,
        instead of ``parse``; raises :class:`~.responses.InvalidResponseError` or
        :class:`~.responses.NotJSONError`. Each attempt calls it anew. Default None: the response is
        parsed whole.
    :ivar item_hook: takes each item of a list in the response as soon as it is parsed, and returns
        what ``parse`` gets in its place: so a long page is never kept whole. It may be called in
        another thread. Default None: ``parse`` gets all items whole.
    """

    verb: Verb
    path: str
    parameters: Mapping[str, Any]
    idempotent: bool
    parse: Callable[[JSONObject], T]
    missing_ok: bool = False
    forbidden_is_final: bool = False
    has_deadline: bool = False
    is_optional: bool = False
    min_api_version: str = OLDEST_API_VERSION
    default_api_version: str | None = None
    service: str = JOBS_SERVICE
    max_response_bytes: int | None = None
    parse_stream: Callable[[Iterable[bytes]], T] | None = None
    item_hook: Callable[[Any], Any] | None = None

    def __repr__(self) -> str:
        return f"Call({self.verb!r}, {self.full_path!r}, {self.parameters!r})"

    @property
    def name(self) -> str:
        """Name in logs and errors, such as ``runs/get`` or ``permissions/jobs/7``."""
        return self.path if self.service == JOBS_SERVICE else self.full_path

    @property
    def waits_out_outages(self) -> bool:
        """Whether a workflow may send the call without a deadline."""
        return self.verb == "GET" and not self.has_deadline

    @property
    def full_path(self) -> str:
        """Path below ``/api/<version>/``, such as ``jobs/runs/get`` or ``pipelines``."""
        return "/".join(filter(None, (self.service, self.path)))

    def api_version(self, pinned: str | None = None) -> str:
        """Return the version of the API that the call is sent to.

        :param pinned: the connection's ``api_version``; None (default) if it has none.
        :raises InvalidRequestError: the pinned version lacks a field, or the endpoint.
        """
        if self.service != JOBS_SERVICE:
            return self.default_api_version or self.min_api_version
        if pinned is not None:
            parameters = {} if self.default_api_version is not None else self.parameters
            problems = find_version_problems(self.path, parameters, pinned, self.min_api_version)
            if problems:
                raise InvalidRequestError(self.path, problems)
            return pinned
        if self.default_api_version is not None:
            return self.default_api_version
        if self.min_api_version != OLDEST_API_VERSION:
            return LATEST_API_VERSION
        return choose_api_version(self.path, self.parameters)

    def with_parameters(self, **parameters: Any) -> Call[T]:
        """Return the same call with some parameters added or replaced.

        :param parameters: the parameters by name.
        """
        return self._replace(parameters={**self.parameters, **parameters})


class Page(NamedTuple, Generic[T]):
    """One page of a list; :mod:`.pagination` reads whole lists.

    :ivar items: the items.
    :ivar token: ``next_page_token``; None (default) if there is none.
    :ivar has_more: whether more pages follow; default False.
    :ivar id_name: name of the field with the id of an item; default ``run_id``.

    An id is an integer, that of a pipeline is text.
    """

    items: list[T]
    token: str | None = None
    has_more: bool = False
    id_name: str = "run_id"

    @property
    def ids(self) -> list[Any]:
        """The ids of the items."""
        items: list[Any] = self.items
        return [item[self.id_name] for item in items]

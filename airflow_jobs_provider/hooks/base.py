"""The base of the hook: its arguments, its clients, and how it sends a call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, Self, TypedDict, TypeVar
from urllib.parse import urlsplit

from airflow.providers.common.compat.sdk import AirflowException, BaseHook

from airflow_jobs_provider.airflow_compat.telemetry import stats_are_on
from airflow_jobs_provider.api.errors import JobsAPIError
from airflow_jobs_provider.api.private_names import warn_of_replaced_names
from airflow_jobs_provider.exceptions import airflow_exceptions
from airflow_jobs_provider.official_names import missing_method

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from airflow_jobs_provider.api.auth import Credentials
    from airflow_jobs_provider.api.base_client import BaseClient
    from airflow_jobs_provider.api.calls import Call, Page
    from airflow_jobs_provider.api.client import AsyncJobsClient, JobsClient
    from airflow_jobs_provider.api.proxies import Proxies
    from airflow_jobs_provider.api.retry import RetryPolicy
    from airflow_jobs_provider.api.workflows.base import Workflow
    from airflow_jobs_provider.hooks.connection import WorkspaceAccess
    from airflow_jobs_provider.metrics import ConnectionMetrics

__all__ = ["DatabricksJobsBaseHook"]

P = ParamSpec("P")
T = TypeVar("T")
_DEFAULT_TIMEOUT_SECONDS = 60.0


class _ClientArguments(TypedDict):
    base_url: str
    credentials: Credentials
    allow_http: bool
    verify: bool | str
    proxies: Proxies
    api_version: str | None
    timeout_seconds: float
    retries: RetryPolicy
    user_agent_suffix: str
    observer: ConnectionMetrics | None


class DatabricksJobsBaseHook(BaseHook):
    """Turns an Airflow connection into clients of the Jobs API.

    Making a hook reads no connection and touches no network.

    The arguments are those of :class:`~airflow_jobs_provider.hooks.jobs.DatabricksJobsHook`.
    """

    conn_name_attr = "databricks_conn_id"
    default_conn_name = "databricks_default"
    conn_type = "databricks_jobs"
    hook_name = "Databricks Jobs"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        warn_of_replaced_names(cls)

    def __init__(
        self,
        databricks_conn_id: str = default_conn_name,
        timeout_seconds: float | None = None,
        retry_limit: int | None = None,
        retry_delay: float | None = None,
        retry_args: Mapping[str, Any] | None = None,
        caller: str = "",
        validate: bool = True,
    ) -> None:
        super().__init__()
        if retry_limit is not None and retry_limit < 1:
            raise ValueError(f"retry_limit must be 1 or more; it is {retry_limit}")
        self.databricks_conn_id = databricks_conn_id
        self.timeout_seconds = timeout_seconds
        self.retry_limit = retry_limit
        self.retry_delay = retry_delay
        self.retry_args = dict(retry_args or {})
        self.caller = caller
        self.validate = validate
        self._blocking_client: JobsClient | None = None
        self._opened_client: AsyncJobsClient | None = None
        self._exit_stack = AsyncExitStack()

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            # Python calls it only if there is no such attribute.
            if (error := missing_method(name)) is not None:
                raise error
            return super().__getattribute__(name)

    def get_conn(self) -> Connection:
        """Return the Airflow connection."""
        return self.get_connection(self.databricks_conn_id)

    @property
    def databricks_conn(self) -> Connection:
        """The Airflow connection."""
        return self.get_conn()

    @property
    def host(self) -> str:
        """The host name of the workspace."""
        with _airflow_exceptions():
            return urlsplit(self.client.base_url).hostname or ""

    @property
    def client(self) -> JobsClient:
        """The blocking client of the connection's workspace; made at first use."""
        if self._blocking_client is None:
            # Not from api.client, which has the asyncio client as well.
            from airflow_jobs_provider.api.blocking_client import JobsClient
            from airflow_jobs_provider.hooks.connection import WorkspaceAccess

            def read_connection() -> WorkspaceAccess:
                return WorkspaceAccess.from_connection(self.get_connection(self.databricks_conn_id))

            def renew_credentials() -> Credentials | str:
                try:
                    return read_connection().credentials
                except Exception as error:  # noqa: BLE001 - whatever a secrets backend raises
                    return _reason(error)

            self._blocking_client = JobsClient(
                **self._client_arguments(read_connection()),
                renew_credentials=renew_credentials,
            )
        return self._blocking_client

    @property
    def connected_to(self) -> str | None:
        """The workspace's URL; None before :attr:`client` is used."""
        return None if self._blocking_client is None else self._blocking_client.base_url

    @asynccontextmanager
    async def async_client(self) -> AsyncIterator[AsyncJobsClient]:
        """Return an asyncio client of the connection's workspace, as an async context manager.

        The connection is read without blocking the event loop, on every Airflow version.
        """
        import asyncio

        # In a thread: the first import of an HTTP library would block the event loop, and so would
        # the client of the metrics.
        await asyncio.to_thread(self._import_async_dependencies)
        from airflow.providers.common.compat.connection import get_async_connection
        from asgiref.sync import sync_to_async

        from airflow_jobs_provider.api.client import AsyncJobsClient
        from airflow_jobs_provider.hooks.connection import WorkspaceAccess

        async def read_connection() -> WorkspaceAccess:
            connection = await get_async_connection(self.databricks_conn_id)
            # In a thread: reading the extra masks its secrets, for which Airflow may block. In a
            # thread of asgiref's, which Airflow's calls back into the event loop need.
            return await sync_to_async(WorkspaceAccess.from_connection)(connection)

        async def renew_credentials() -> Credentials | str:
            try:
                return (await read_connection()).credentials
            except Exception as error:  # noqa: BLE001 - whatever a secrets backend raises
                return _reason(error)

        arguments = self._client_arguments(await read_connection())
        async with AsyncJobsClient(**arguments, renew_credentials=renew_credentials) as client:
            yield client

    def _import_async_dependencies(self) -> None:
        from importlib import import_module

        for module in (
            "aiohttp",
            "asgiref.sync",
            "airflow.providers.common.compat.connection",
            "airflow_jobs_provider.api.client",
            "airflow_jobs_provider.hooks.connection",
        ):
            import_module(module)
        self.metrics  # noqa: B018 - made here, for later

    async def __aenter__(self) -> Self:
        """Open one client for all ``a_`` methods; without it each call opens a client."""
        if self._opened_client is not None:
            raise RuntimeError("the hook is open already")
        stack = AsyncExitStack()
        with _airflow_exceptions():
            self._opened_client = await stack.enter_async_context(self.async_client())
        self._exit_stack = stack
        return self

    async def __aexit__(self, *error: object) -> None:
        """Close the client."""
        self._opened_client = None
        await self._exit_stack.aclose()

    @asynccontextmanager
    async def _any_async_client(self) -> AsyncIterator[AsyncJobsClient]:
        if self._opened_client is not None:
            yield self._opened_client
            return
        async with self.async_client() as client:
            yield client

    def retry_policy(self) -> RetryPolicy:
        """Return the retry policy of this hook's calls."""
        from airflow_jobs_provider.api.retry import RetryPolicy

        return RetryPolicy(
            max_attempts=self.retry_limit,
            initial_wait=self.retry_delay,
            tenacity_args=self.retry_args,
        )

    def _client_arguments(self, access: WorkspaceAccess) -> _ClientArguments:
        return {
            "base_url": access.base_url,
            "credentials": access.credentials,
            "allow_http": access.allow_http,
            "verify": access.verify,
            "proxies": access.proxies,
            "api_version": access.api_version,
            "timeout_seconds": (
                self.timeout_seconds or access.timeout_seconds or _DEFAULT_TIMEOUT_SECONDS
            ),
            "retries": self.retry_policy(),
            "user_agent_suffix": self.caller,
            "observer": self.metrics,
        }

    @cached_property
    def metrics(self) -> ConnectionMetrics | None:
        """What the connection's metrics are sent through; None if Airflow sends no metrics.

        The first use for a connection may block.
        """
        if not stats_are_on():
            return None
        from airflow_jobs_provider.metrics import connection_metrics

        return connection_metrics(self.databricks_conn_id)

    def send(self, call: Call[T], *, retries: RetryPolicy | None = None) -> T:
        """Send any call of :mod:`airflow_jobs_provider.api.endpoints` and return its result.

        :param call: the call.
        :param retries: retry policy for this call; default :meth:`retry_policy`.
        :raises JobsAPIError: the call failed, after retries. It is an AirflowException as well.
        """
        with _airflow_exceptions():
            client = self.client
            return client.send(self._checked(call, client), retries=retries)

    async def a_send(self, call: Call[T], *, retries: RetryPolicy | None = None) -> T:
        """Do what :meth:`send` does, from asyncio."""
        with _airflow_exceptions():
            async with self._any_async_client() as client:
                return await client.send(self._checked(call, client), retries=retries)

    # The methods below make the calls that they send. So each error of a method of the hook, also
    # that of an unusable argument, is an AirflowException as well.

    def _send(self, make: Callable[P, Call[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        with _airflow_exceptions():
            return self.send(make(*args, **kwargs))

    async def _a_send(self, make: Callable[P, Call[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        with _airflow_exceptions():
            return await self.a_send(make(*args, **kwargs))

    def _send_all(
        self, make: Callable[P, list[Call[Any]]], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        with _airflow_exceptions():
            client = self.client
            for call in self._all_checked(make(*args, **kwargs), client):
                client.send(call)

    async def _a_send_all(
        self, make: Callable[P, list[Call[Any]]], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        with _airflow_exceptions():
            async with self._any_async_client() as client:
                for call in self._all_checked(make(*args, **kwargs), client):
                    await client.send(call)

    def _iterate(
        self, make: Callable[P, Call[Page[T]]], *args: P.args, **kwargs: P.kwargs
    ) -> Iterator[T]:
        with _airflow_exceptions():
            client = self.client
            items = client.iterate(self._checked(make(*args, **kwargs), client))
        return _with_airflow_exceptions(items)

    async def _a_iterate(
        self, make: Callable[P, Call[Page[T]]], *args: P.args, **kwargs: P.kwargs
    ) -> AsyncIterator[T]:
        with _airflow_exceptions():
            async with self._any_async_client() as client:
                async for item in client.iterate(self._checked(make(*args, **kwargs), client)):
                    yield item

    def _run(self, workflow: Workflow[T], first_call: Call[Any] | None = None) -> T:
        """Run a workflow; check its first call before, if given."""
        with _airflow_exceptions():
            client = self.client
            if first_call is not None:
                self._checked(first_call, client)
            return client.run(workflow, without_deadline=False)

    async def _a_run(self, workflow: Workflow[T], first_call: Call[Any] | None = None) -> T:
        with _airflow_exceptions():
            async with self._any_async_client() as client:
                if first_call is not None:
                    self._checked(first_call, client)
                return await client.run(workflow, without_deadline=False)

    def _checked(self, call: Call[T], client: BaseClient) -> Call[T]:
        if self.validate:
            client.validate(call.name, call.parameters)
        return call

    def _all_checked(self, calls: Iterable[Call[T]], client: BaseClient) -> list[Call[T]]:
        """Check calls that belong together, before the first of them is sent."""
        checked = [self._checked(call, client) for call in calls]
        for call in checked:
            client.version_of(call)
        return checked

    def close(self) -> None:
        """Close the hook's connections to the workspace; the next call opens new ones."""
        if self._blocking_client is not None:
            self._blocking_client.close()
            self._blocking_client = None


def _reason(error: Exception) -> str:
    """Return why a connection cannot be used."""
    # The message of another exception may quote a secret.
    is_known = isinstance(error, (AirflowException, JobsAPIError))
    return str(error) if is_known else type(error).__name__


def _airflow_exceptions() -> AbstractContextManager[None]:
    # A user's task that calls the hook decides itself whether it is retried.
    return airflow_exceptions(fail_without_retry=False)


def _with_airflow_exceptions(items: Iterator[T]) -> Iterator[T]:
    with _airflow_exceptions():
        yield from items

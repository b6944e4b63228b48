"""The transport adapter of the blocking client: limits the total time of a response.

The time-out of ``requests`` limits each wait for bytes. A response that comes byte by byte never
exceeds it. This adapter limits the time of the whole response, headers included.
"""

from __future__ import annotations

import functools
import http.client
import io
import time
from typing import Any

import requests.adapters
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

__all__ = ["TotalTimeoutAdapter", "failed_before_send"]


class TotalTimeoutAdapter(requests.adapters.HTTPAdapter):
    """Adapter of ``requests`` with a time-out for the whole response.

    :param response_timeout_seconds: longest time in seconds from a request to the end of its
        response.
    """

    def __init__(self, response_timeout_seconds: float) -> None:
        self._pool_classes = _pool_classes(response_timeout_seconds)
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Create the pools of direct connections."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pool_classes

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        """Create the pools of connections through a proxy."""
        manager = super().proxy_manager_for(proxy, **proxy_kwargs)
        manager.pool_classes_by_scheme = self._pool_classes
        return manager


def _pool_classes(seconds: float) -> dict[str, Any]:
    response: Any = staticmethod(functools.partial(_DeadlineResponse, seconds=seconds))

    class Connection(_MarksConnectErrors, HTTPConnection):
        response_class = response

    class TlsConnection(_MarksConnectErrors, HTTPSConnection):
        response_class = response

    class Pool(urllib3.HTTPConnectionPool):
        ConnectionCls = Connection

    class TlsPool(urllib3.HTTPSConnectionPool):
        ConnectionCls = TlsConnection

    return {"http": Pool, "https": TlsPool}


class _MarksConnectErrors:
    """Marks exceptions that occur before the request is sent, also on the way through a proxy."""

    def connect(self) -> None:
        try:
            super().connect()  # type: ignore[misc]
        except Exception as error:
            error.__dict__["_is_before_request"] = True
            raise


def failed_before_send(error: BaseException) -> bool:
    """Return whether an exception occurred before the request was sent.

    :param error: the exception of ``requests``.
    """
    pending: list[BaseException | None] = [error]
    while pending:
        cause = pending.pop()
        if cause is not None:
            if "_is_before_request" in cause.__dict__:
                return True
            pending += [cause.__cause__, cause.__context__]
    return False


class _DeadlineResponse(http.client.HTTPResponse):
    """A response with a deadline; also that of a proxy to CONNECT."""

    def __init__(self, sock: Any, *args: Any, seconds: float, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        raw = sock.makefile("rb", buffering=0)
        self.fp = io.BufferedReader(_DeadlineReader(sock, raw, time.monotonic() + seconds))


class _DeadlineReader(io.RawIOBase):
    def __init__(self, sock: Any, raw: io.RawIOBase, deadline: float) -> None:
        self._sock, self._raw, self._deadline = sock, raw, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the response takes too long")
        usual = self._sock.gettimeout()
        if usual is not None and usual <= left:
            return self._raw.readinto(buffer)
        self._sock.settimeout(left)
        try:
            return self._raw.readinto(buffer)
        finally:
            self._sock.settimeout(usual)

    def close(self) -> None:
        self._raw.close()
        super().close()

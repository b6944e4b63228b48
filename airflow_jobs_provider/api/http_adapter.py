"""The adapter of ``requests`` that the blocking client sends with: it bounds an answer's time.

``requests`` knows a time-out for each single wait. An answer that comes byte by byte never exceeds
it, so the time of the whole answer, headers included, is bounded here.
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
    """Sends requests; an answer that is not whole in time is a time-out.

    :param response_timeout_seconds: longest time from a request to the end of its answer.
    """

    def __init__(self, response_timeout_seconds: float) -> None:
        self._pool_classes = _pool_classes(response_timeout_seconds)
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pools of direct connections."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pool_classes

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        """Make the pools of connections through a proxy."""
        manager = super().proxy_manager_for(proxy, **proxy_kwargs)
        manager.pool_classes_by_scheme = self._pool_classes
        return manager


def _pool_classes(seconds: float) -> dict[str, Any]:
    response: Any = staticmethod(functools.partial(_BoundedResponse, seconds=seconds))

    class Connection(_NotesWhatFails, HTTPConnection):
        response_class = response

    class TlsConnection(_NotesWhatFails, HTTPSConnection):
        response_class = response

    class Pool(urllib3.HTTPConnectionPool):
        ConnectionCls = Connection

    class TlsPool(urllib3.HTTPSConnectionPool):
        ConnectionCls = TlsConnection

    return {"http": Pool, "https": TlsPool}


class _NotesWhatFails:
    """Marks what goes wrong before the request is sent, be it on the way through a proxy."""

    def connect(self) -> None:
        try:
            super().connect()  # type: ignore[misc]
        except Exception as error:
            error.__dict__["_is_before_request"] = True
            raise


def failed_before_send(error: BaseException) -> bool:
    """Return whether an exception of a request came up before the request was sent."""
    to_see: list[BaseException | None] = [error]
    while to_see:
        cause = to_see.pop()
        if cause is not None:
            if "_is_before_request" in cause.__dict__:
                return True
            to_see += [cause.__cause__, cause.__context__]
    return False


class _BoundedResponse(http.client.HTTPResponse):
    """An answer, a proxy's to CONNECT included, with a deadline."""

    def __init__(self, sock: Any, *args: Any, seconds: float, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        raw = sock.makefile("rb", buffering=0)
        self.fp = io.BufferedReader(_BoundedReader(sock, raw, time.monotonic() + seconds))


class _BoundedReader(io.RawIOBase):
    def __init__(self, sock: Any, raw: io.RawIOBase, deadline: float) -> None:
        self._sock, self._raw, self._deadline = sock, raw, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer takes too long")
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

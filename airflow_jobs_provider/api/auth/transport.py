"""How requests for tokens are sent. Without the client that sends them."""

from __future__ import annotations

from typing import NamedTuple

from airflow_jobs_provider.api.proxies import Proxies

__all__ = ["Transport"]


class Transport(NamedTuple):
    """How requests for tokens are sent.

    :ivar workspace_url: URL of the workspace.
    :ivar proxies: proxies of the connection; default those of the environment.
    :ivar verify: whether TLS certificates are checked, or the path of a CA bundle; default True.
    :ivar allow_http: whether secrets may be sent over plain http to another machine; default False.
    """

    workspace_url: str
    proxies: Proxies = Proxies()
    verify: bool | str = True
    allow_http: bool = False

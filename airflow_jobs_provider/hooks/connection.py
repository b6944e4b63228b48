"""Reads an Airflow connection: the workspace's URL, the credentials and the options.

The connection has the type ``databricks_jobs``, or ``databricks`` as the official provider uses it:

========================  =========================================================================
Field                     Meaning
========================  =========================================================================
Host                      with or without scheme, port and path; ``https`` unless it says otherwise;
                          a page's URL pasted from a browser becomes the workspace's URL; the path
                          does not count in a connection of type ``databricks``
Schema                    ``http`` or ``https``, if the host has no scheme; else not used
Port                      if the host has none
Password                  a token, if there is no login or the login is ``token``
Login and Password        user and password
Extra ``token``           a token; precedes login and password
Extra ``host``            precedes the field Host
Extra ``allow_http``      ``true`` sends credentials over plain http to another machine
Extra ``verify``          ``false`` checks no TLS certificate; a path names a CA bundle
Extra ``proxies``         proxies as ``requests`` takes them, such as ``{"https": "http://..."}``;
                          see :mod:`airflow_jobs_provider.api.proxies`
Extra ``timeout_seconds`` longest wait in seconds for the next bytes of a response; default 60
Extra ``api_version``     version of the Jobs API for all calls: ``2.0``, ``2.1`` or ``2.2``; if
                          empty, each request is sent to the version that it needs
========================  =========================================================================

:mod:`airflow_jobs_provider.hooks.authentication` has the fields of the other methods.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from airflow_jobs_provider.api.auth.transport import Transport
from airflow_jobs_provider.api.errors import CredentialsError, InvalidSettingsError
from airflow_jobs_provider.api.proxies import Proxies
from airflow_jobs_provider.api.text import is_true
from airflow_jobs_provider.api.versions import API_VERSIONS
from airflow_jobs_provider.hooks.authentication import choose_credentials
from airflow_jobs_provider.hooks.connection_fields import ConnectionFields

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from airflow_jobs_provider.api.auth import Credentials

__all__ = ["WorkspaceAccess"]

_HOST = re.compile(r"[\w.-]+|[0-9a-f:.]+")  # a name, or an IPv6 address
# Domains of workspaces, whose addresses have no path.
_DATABRICKS_DOMAINS = (
    ".azuredatabricks.net",
    ".databricks.azure.cn",
    ".databricks.azure.us",
    ".databricks.com",
    ".databricks.us",
)


class WorkspaceAccess(NamedTuple):
    """The settings of a client for a workspace. The repr shows no secret.

    :ivar base_url: URL of the workspace.
    :ivar credentials: the credentials.
    :ivar allow_http: whether credentials may be sent over plain http to another machine; default
        False.
    :ivar verify: whether TLS certificates are checked, or the path of a CA bundle; default True.
    :ivar proxies: proxies; default those of the environment.
    :ivar timeout_seconds: longest wait in seconds for the next bytes of a response; None (default)
        if the connection does not say.
    :ivar api_version: version of the Jobs API for all calls; None (default): each request selects
        it.
    """

    base_url: str
    credentials: Credentials
    allow_http: bool = False
    verify: bool | str = True
    proxies: Proxies = Proxies()
    timeout_seconds: float | None = None
    api_version: str | None = None

    @classmethod
    def from_connection(cls, connection: Connection) -> WorkspaceAccess:
        """Read a connection.

        :param connection: the Airflow connection.
        :raises InvalidSettingsError: the host, the proxies, ``timeout_seconds`` or the
            ``api_version`` are invalid.
        :raises CredentialsError: there are no usable credentials.
        """
        try:
            return cls._from_connection(connection)
        except (ValueError, CredentialsError) as error:
            # Without the connection and the frames below: Airflow 3.0 logs tracebacks with local
            # variables, which would show the connection's secrets.
            del connection
            raise error.with_traceback(None) from None

    @classmethod
    def _from_connection(cls, connection: Connection) -> WorkspaceAccess:
        name = connection.conn_id or ""
        extra = _extra(connection, name)
        base_url = _base_url(connection, extra)
        verify = extra.get("verify")
        if verify in (None, ""):  # an empty field of the form
            verify = True
        transport = Transport(
            base_url,
            proxies=_proxies(extra.get("proxies"), name),
            verify=verify if isinstance(verify, str) and not _is_bool(verify) else is_true(verify),
            allow_http=is_true(extra.get("allow_http", False)),
        )
        fields = ConnectionFields(
            name, connection.login or "", connection.password or "", extra, transport
        )
        try:
            credentials = choose_credentials(fields)
        except CredentialsError as error:
            if extra or _is_json(connection.extra or "{}"):
                raise
            raise CredentialsError(
                f"the extra of connection {name!r} is not JSON; {error}"
            ) from None
        return cls(
            base_url=base_url,
            credentials=credentials,
            allow_http=transport.allow_http,
            verify=transport.verify,
            proxies=transport.proxies,
            timeout_seconds=_timeout_seconds(extra.get("timeout_seconds"), name),
            api_version=_api_version(extra.get("api_version"), name),
        )


def _extra(connection: Connection, name: str) -> Mapping[str, Any]:
    """Return the extra. Airflow takes one that is not JSON for an empty one, and logs it."""
    extra: Any = connection.extra_dejson or {}
    if not isinstance(extra, Mapping):
        raise InvalidSettingsError(f"the extra of connection {name!r} is not a JSON object")
    return extra


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _timeout_seconds(value: Any, name: str) -> float | None:
    if value in (None, ""):
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise InvalidSettingsError(
            f"timeout_seconds in the extra of connection {name!r} is not a number of seconds"
        )
    return seconds


def _api_version(value: object, name: str) -> str | None:
    version = str(value or "").strip()  # may be a number in JSON
    if not version:
        return None
    if version not in API_VERSIONS:
        raise InvalidSettingsError(
            f"connection {name!r} asks for api_version {version!r}. "
            f"Use one of {', '.join(API_VERSIONS)}"
        )
    return version


def _proxies(value: object, name: str) -> Proxies:
    if isinstance(value, str) and value.strip():  # from the connection form
        try:
            value = json.loads(value)
        except ValueError:
            value = {"": value}
    proxies = value or {}
    if not isinstance(proxies, Mapping) or not all(
        scheme and isinstance(scheme, str) and isinstance(url, (str, type(None)))
        for scheme, url in proxies.items()
    ):
        # Not quoted, since a proxy's URL may hold a password.
        raise InvalidSettingsError(
            f"the proxies in the extra of connection {name!r} are not a JSON object such as "
            '{"https": "http://proxy.example.com:3128"}'
        )
    return Proxies(dict(proxies))


def _base_url(connection: Connection, extra: Mapping[str, Any]) -> str:
    host = str(extra.get("host") or connection.host or "").strip()
    if not host:
        raise InvalidSettingsError(
            f"connection {connection.conn_id!r} has no host. Set it to the workspace's URL, "
            "such as https://adb-1234567890123456.7.azuredatabricks.net"
        )
    if "://" not in host:
        schema = str(connection.schema or "").lower()
        host = f"{schema if schema in ('http', 'https') else 'https'}://{host}"
    try:
        parts = urlsplit(host)
        port = parts.port
    except ValueError:  # its message may quote the host
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not _HOST.fullmatch(parts.hostname or ""):
        # Not quoted, since a token may be in the wrong field.
        raise InvalidSettingsError(
            f"the host of connection {connection.conn_id!r} is not the URL of a workspace. It "
            "should look like https://adb-1234567890123456.7.azuredatabricks.net"
        )
    netloc = parts.netloc.rpartition("@")[2]
    if port is None and connection.port:
        netloc = f"{netloc}:{connection.port}"
    is_databricks = (parts.hostname or "").endswith(_DATABRICKS_DOMAINS)
    # They serve https only. The official provider ignores the scheme of Host.
    scheme = "https" if is_databricks else parts.scheme
    # Pasted from a browser: the path is that of a page. The official provider ignores every path.
    is_page = (
        is_databricks or connection.conn_type == "databricks" or bool(parts.query or parts.fragment)
    )
    return f"{scheme}://{netloc}{'' if is_page else parts.path.rstrip('/')}"


def _is_bool(text: str) -> bool:
    return text.strip().lower() in ("true", "false", "1", "0", "yes", "no", "on", "off")

"""An Airflow connection, read once: the workspace's address, the credentials, the options.

Takes a connection of type ``databricks_jobs``, and one of type ``databricks`` as it is:

========================  =========================================================================
Field                     Meaning
========================  =========================================================================
Host                      with or without scheme, port and path; ``https`` unless it says otherwise
Schema                    ``http`` or ``https``, where the host has no scheme; else not used
Port                      where the host has none
Password                  a token, if there is no login or the login is ``token``
Login and Password        user and password
Extra ``token``           a token; wins over login and password
Extra ``host``            where the field is empty
Extra ``allow_http``      ``true`` sends credentials over plain http to another machine
Extra ``verify``          ``false`` checks no TLS certificate; a path names a CA bundle
Extra ``proxies``         proxies as ``requests`` takes them, such as ``{"https": "http://..."}``;
                          see :mod:`airflow_jobs_provider.api.proxies`
Extra ``timeout_seconds`` longest wait for the next bytes of an answer
Extra ``api_version``     version of the Jobs API for all calls: ``2.0``, ``2.1`` or ``2.2``; if
                          empty, each request is sent to the version that it needs
========================  =========================================================================

Without token, user and password, the ``.netrc`` file is asked (``NETRC`` names another one).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_jobs_provider.api.errors import CredentialsError
from airflow_jobs_provider.api.proxies import Proxies
from airflow_jobs_provider.api.versions import API_VERSIONS

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from airflow_jobs_provider.api.auth import Credentials

__all__ = ["WorkspaceAccess"]

_HOST = re.compile(r"[\w.-]+|[0-9a-f:.]+")  # a name, or an IPv6 address
# Ways to authenticate that the official provider's connections may ask for and this one lacks.
_OTHER_WAYS = (
    "azure_tenant_id",
    "use_azure_managed_identity",
    "use_default_azure_credential",
    "azure_resource_id",
    "service_principal_oauth",
    "federated_k8s",
    "k8s_token_path",
)


@dataclass(frozen=True, slots=True)
class WorkspaceAccess:
    """What a client needs to know to talk to a workspace. Its repr shows no secret."""

    base_url: str
    credentials: Credentials
    allow_http: bool = False
    verify: bool | str = True
    proxies: Proxies = field(default_factory=Proxies)
    timeout_seconds: float | None = None
    api_version: str | None = None

    @classmethod
    def from_connection(cls, connection: Connection) -> WorkspaceAccess:
        """Read a connection.

        :raises ValueError: the connection names no usable host, or no version that there is.
        :raises CredentialsError: it has no usable credentials.
        """
        try:
            return cls._from_connection(connection)
        except (ValueError, CredentialsError) as error:
            # Without the frames below: a traceback with local variables, as Airflow 3.0 logs it,
            # would show what stands in the connection. Nor with the connection itself.
            del connection
            raise error.with_traceback(None) from None

    @classmethod
    def _from_connection(cls, connection: Connection) -> WorkspaceAccess:
        extra: Mapping[str, Any] = connection.extra_dejson or {}
        name = connection.conn_id or ""
        base_url = _base_url(connection, extra)
        verify = extra.get("verify")
        if verify in (None, ""):  # a form's empty field is no wish to check nothing
            verify = True
        timeout = extra.get("timeout_seconds")
        return cls(
            base_url=base_url,
            credentials=_credentials(connection, extra, name, urlsplit(base_url).hostname or ""),
            allow_http=_is_true(extra.get("allow_http", False)),
            verify=verify if isinstance(verify, str) and not _is_bool(verify) else _is_true(verify),
            proxies=_proxies(extra.get("proxies"), name),
            timeout_seconds=None if timeout in (None, "") else float(timeout),
            api_version=_api_version(extra.get("api_version"), name),
        )


def _api_version(value: object, name: str) -> str | None:
    version = str(value or "").strip()  # in JSON, 2.1 may be a number
    if not version:
        return None
    if version not in API_VERSIONS:
        raise ValueError(
            f"connection {name!r} asks for api_version {version!r}. "
            f"Use one of {', '.join(API_VERSIONS)}"
        )
    return version


def _proxies(value: object, name: str) -> Proxies:
    if isinstance(value, str) and value.strip():  # a form's field brings text
        try:
            value = json.loads(value)
        except ValueError:
            value = {"": value}
    proxies = value or {}
    if not isinstance(proxies, Mapping) or not all(
        scheme and isinstance(scheme, str) and isinstance(url, (str, type(None)))
        for scheme, url in proxies.items()
    ):
        # Not quoted: a proxy's URL may hold a password.
        raise ValueError(
            f"the proxies in the extra of connection {name!r} are not a JSON object such as "
            '{"https": "http://proxy.example.com:3128"}'
        )
    return Proxies(dict(proxies))


def _base_url(connection: Connection, extra: Mapping[str, Any]) -> str:
    host = str(connection.host or extra.get("host") or "").strip()
    if not host:
        raise ValueError(
            f"connection {connection.conn_id!r} has no host. Put the workspace's address there, "
            "such as https://adb-1234567890123456.7.azuredatabricks.net"
        )
    if "://" not in host:
        schema = str(connection.schema or "").lower()
        host = f"{schema if schema in ('http', 'https') else 'https'}://{host}"
    parts = urlsplit(host)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if (
        parts.scheme not in ("http", "https")
        or not _HOST.fullmatch(parts.hostname or "")
        or port == -1
    ):
        # Not quoted: what stands in the wrong field may be a token.
        raise ValueError(
            f"the host of connection {connection.conn_id!r} is not the address of a workspace. It "
            "should look like https://adb-1234567890123456.7.azuredatabricks.net"
        )
    netloc = parts.netloc.rpartition("@")[2]
    if port is None and connection.port:
        netloc = f"{netloc}:{connection.port}"
    return f"{parts.scheme}://{netloc}{parts.path.rstrip('/')}"


def _credentials(
    connection: Connection, extra: Mapping[str, Any], name: str, host: str
) -> Credentials:
    from airflow_jobs_provider.api import auth

    login, password = connection.login, connection.password
    if extra.get("token"):
        return auth.Token(str(extra["token"]))
    for way in _OTHER_WAYS:
        if extra.get(way):
            raise CredentialsError(
                f"connection {name!r} asks for {way!r}, which is not supported. Give it a token in "
                "the password, or user and password"
            )
    if password and login in (None, "", "token"):
        return auth.Token(password)
    if login and password:
        return auth.Basic(login, password)
    if login:
        raise CredentialsError(f"connection {name!r} has a login but no password")
    return auth.from_netrc(host)


def _is_bool(text: str) -> bool:
    return text.strip().lower() in ("true", "false", "1", "0", "yes", "no")


def _is_true(value: object) -> bool:
    """A form of the Airflow UI may bring a boolean as text."""
    if isinstance(value, str):
        return value.strip().lower() in ("true", "1", "yes")
    return bool(value)

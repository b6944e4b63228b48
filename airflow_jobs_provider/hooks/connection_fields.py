"""What decides about the authentication of a connection, and the credentials made of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from airflow_jobs_provider.api import auth
from airflow_jobs_provider.api.errors import CredentialsError
from airflow_jobs_provider.api.values import Value

if TYPE_CHECKING:
    from airflow_jobs_provider.api.auth import CachedCredentials
    from airflow_jobs_provider.api.auth.sdk.subject_tokens import SubjectToken
    from airflow_jobs_provider.api.auth.transport import Transport

__all__ = ["ConnectionFields", "transport_settings", "unified_credentials"]


class ConnectionFields(Value):
    """What decides about the authentication of a connection. The repr shows no secret.

    :ivar name: the connection's id.
    :ivar login: Login; empty if not set.
    :ivar password: Password; empty if not set.
    :ivar extra: Extra.
    :ivar transport: how requests for tokens are sent.
    """

    __slots__ = __match_args__ = ("name", "login", "password", "extra", "transport")
    _secret = ("login", "password", "extra", "transport")
    name: str
    login: str
    password: str
    extra: Mapping[str, Any]
    transport: Transport

    def __init__(
        self, name: str, login: str, password: str, extra: Mapping[str, Any], transport: Transport
    ) -> None:
        self._set(name=name, login=login, password=password, extra=extra, transport=transport)

    def text(self, name: str) -> str:
        """Return a field of the extra as text; empty if it is not set, or false.

        :param name: name of the field.
        """
        value = self.extra.get(name)
        text = "" if value is None or value is False else str(value).strip()
        return "" if text.lower() == "false" else text

    def is_set(self, name: str) -> bool:
        """Return whether a field of the extra switches a method on.

        As in the official provider, any value does, but ``false``, ``0``, ``no`` and ``off``.

        :param name: name of the field.
        """
        return self.text(name).lower() not in ("", "0", "no", "off")

    def number(self, name: str, default: int) -> int:
        """Return a field of the extra as a whole number.

        :param name: name of the field.
        :param default: if it is not set.
        :raises CredentialsError: it is no whole number.
        """
        text = self.text(name)
        try:
            return int(text or default)
        except ValueError:
            pass
        raise CredentialsError(f"{name} in the extra of connection {self.name!r} is no number")


def unified_credentials(
    fields: ConnectionFields,
    description: str,
    values: Mapping[str, Any],
    *,
    advice: str,
    is_ambient: bool = False,
    has_discovery: bool = False,
    subject: tuple[Mapping[str, Any], Callable[[], SubjectToken]] | None = None,
) -> CachedCredentials:
    """Return credentials on the SDK's ``Config``, shared by the process.

    :param fields: the connection's fields.
    :param description: the method and the principal, for messages.
    :param values: fields of ``Config``; empty ones are left out.
    :param advice: what to check if a token is refused.
    :param is_ambient: read what the values lack from the environment; default False.
    :param has_discovery: ask the workspace for the address of its OAuth service; default False:
        only if the values have ``discovery_url`` or ``account_id``.
    :param subject: what decides about the token to exchange, and what makes its source; None
        (default) for the methods of the SDK.
    """
    from airflow_jobs_provider.api.auth.sdk.unified import UnifiedCredentials

    own = {name: value for name, value in values.items() if value not in (None, "")}
    settings = {
        "description": description,
        "values": own,
        "transport": transport_settings(fields),
        "subject": subject[0] if subject else None,
        "environment": _ambient_settings() if is_ambient else None,
    }
    return auth.shared_credentials(
        settings,
        lambda: UnifiedCredentials(
            description,
            fields.transport,
            own,
            advice=advice,
            is_ambient=is_ambient,
            has_discovery=has_discovery or any(map(own.get, ("discovery_url", "account_id"))),
            subject_token=subject[1]() if subject else None,
        ),
    )


def transport_settings(fields: ConnectionFields) -> list[Any]:
    """Return what decides about the way of requests for tokens, as JSON values.

    :param fields: the connection's fields.
    """
    one = fields.transport
    return [one.workspace_url, dict(one.proxies.by_scheme), one.verify, one.allow_http]


def _ambient_settings() -> dict[str, str]:
    prefixes = ("DATABRICKS_", "ARM_", "GOOGLE_")
    return {name: value for name, value in os.environ.items() if name.startswith(prefixes)}

"""Which proxy a client uses, and which certificates it trusts: the one rule of both faces.

The choice is that of ``requests``, made by its own functions:

======================================  ==========================================================
Setting                                 Effect
======================================  ==========================================================
Host is a loopback address              never a proxy (``requests`` would use one)
``proxies`` of the connection           wins over the environment; keys as ``requests`` takes them:
                                        ``https://host``, ``https``, ``all://host``, ``all``; null
                                        for no proxy
``HTTPS_PROXY``, ``HTTP_PROXY``         for an https or http workspace; lower case wins
``ALL_PROXY``                           where neither is set
``NO_PROXY``                            hosts, domains, ``host:port``, IPv4 networks as CIDR
Address of the proxy                    ``http://`` if it has no scheme; ``https://`` speaks TLS to
                                        the proxy; user and password may stand in it
SOCKS                                   refused with :class:`~.errors.InvalidProxyError`
``verify`` of the connection            ``false``, or the path of a CA bundle: a file or a directory
``REQUESTS_CA_BUNDLE``                  where ``verify`` is not set
``CURL_CA_BUNDLE``                      where neither is set
none of these                           the bundle of ``certifi``
======================================  ==========================================================
"""

from __future__ import annotations

import functools
import ipaddress
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from airflow_jobs_provider.api.errors import CertificateError, InvalidProxyError

__all__ = [
    "Proxies",
    "Route",
    "choose_route",
    "is_loopback",
    "record_reached",
    "route_name",
    "ssl_context",
    "was_reached",
]

WHERE_PROXIES_ARE_SET = (
    'Check "proxies" in the connection\'s extra, and the environment variables HTTPS_PROXY, '
    "HTTP_PROXY, ALL_PROXY and NO_PROXY"
)


@dataclass(frozen=True, slots=True)
class Proxies:
    """Proxies as ``requests`` takes them. The repr shows none: their URLs may hold a password.

    :param by_scheme: URL of a proxy by ``http``, ``https``, ``all`` or ``https://host``; None for
        no proxy.
    """

    by_scheme: Mapping[str, str | None] = field(repr=False, default_factory=dict)


@dataclass(frozen=True, slots=True)
class Route:
    """How a host is reached. The repr shows no password.

    :ivar proxy: URL of the proxy, with its credentials; None to connect directly.
    :ivar address: URL of the proxy without its credentials; empty without a proxy.
    :ivar verify: whether TLS certificates are checked, or the path of the CA bundle.
    """

    proxy: str | None = field(repr=False)
    address: str
    verify: bool | str


# How hosts have answered this process. Of the process, since each task and each poller has a client
# of its own, and a wrong setting must be told from an outage by all of them.
_reached: set[str] = set()


def route_name(host: str, address: str) -> str:
    """Name how a host is reached.

    :param host: the host, with its port if any.
    :param address: URL of the proxy without its credentials; empty without a proxy.
    """
    return f"{host} by {address}" if address else host


def record_reached(route: str) -> None:
    """Take note that a host has answered.

    :param route: how it was reached, as :func:`route_name` names it.
    """
    _reached.add(route)


def was_reached(route: str) -> bool:
    """Whether a host has answered by this route, so that a failure is an outage."""
    return route in _reached


def choose_route(url: str, proxies: Proxies, verify: bool | str) -> Route:
    """Choose proxy and trust for an address.

    :param url: the workspace's address.
    :param proxies: proxies of the connection.
    :param verify: check TLS certificates, or the path of a CA bundle.
    :raises InvalidProxyError: the proxy's URL is not usable, or of a kind that is not supported.
    :raises CertificateError: the CA bundle is not there.
    """
    route = _choose(url, proxies, verify)
    if isinstance(route, Exception):
        # Raised here, where no local variable holds the proxy's password.
        raise route
    return route


def _choose(
    url: str, proxies: Proxies, verify: bool | str
) -> Route | InvalidProxyError | CertificateError:
    import requests

    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    # None switches the environment's proxy off; the types of requests do not say so.
    given: dict[str, Any] = dict(proxies.by_scheme)
    with requests.Session() as session:
        settings = session.merge_environment_settings(url, given, None, verify, None)
    verify = settings["verify"] or False
    if parts.scheme == "https" and isinstance(verify, str) and not Path(verify).exists():
        return CertificateError(
            f'the CA bundle {verify} does not exist. Check "verify" in the connection\'s extra, '
            "and the environment variables REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE",
            host=host,
        )
    if is_loopback(parts.hostname or ""):
        return Route(None, "", verify)
    proxy = requests.utils.select_proxy(url, settings["proxies"])
    if not proxy:
        return Route(None, "", verify)
    return _with_proxy(proxy.strip(), host, verify)


def _with_proxy(proxy: str, host: str, verify: bool | str) -> Route | InvalidProxyError:
    # As requests, which stumbles over user and password there.
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    try:
        parts = urlsplit(proxy)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    scheme, hostname = parts.scheme.lower(), parts.hostname or ""
    if not hostname:
        # Not quoted: what stands in the wrong place may be a password.
        return InvalidProxyError(
            f"the proxy for {host} is not an address such as http://proxy.example.com:3128. "
            f"{WHERE_PROXIES_ARE_SET}",
            host=host,
        )
    netloc = f"[{hostname}]" if ":" in hostname else hostname
    address = f"{scheme}://{netloc}" + (f":{port}" if port is not None else "")
    reason = ""
    if scheme.startswith("socks"):
        reason = "SOCKS is not supported; use a proxy for HTTP"
    elif scheme not in ("http", "https"):
        reason = "it must begin with http:// or https://"
    elif not _fits_a_header(unquote(f"{parts.username or ''}{parts.password or ''}")):
        reason = "its user or password has a character that HTTP cannot send"
    if reason:
        return InvalidProxyError(
            f"the proxy {address} cannot be used: {reason}. {WHERE_PROXIES_ARE_SET}",
            host=host,
            proxy=address,
        )
    return Route(proxy, address, verify)


def _fits_a_header(text: str) -> bool:
    """Whether the text can be sent as user or password: ISO 8859-1, no control characters."""
    return all(character.isprintable() and ord(character) < 256 for character in text)


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine, as name or address in any notation.

    :param host: host name or address, without brackets and port.
    """
    name = host.lower().rstrip(".")
    if name == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        try:
            # The short forms that the system's own look-up takes, such as 127.1.
            address = ipaddress.ip_address(socket.inet_aton(name))
        except (OSError, UnicodeError):
            return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback or address.is_unspecified


def ssl_context(verify: bool | str, host: str) -> ssl.SSLContext | bool:
    """Return what checks certificates as ``requests`` does, for aiohttp; reads files, so blocks.

    :param verify: as :attr:`Route.verify` has it.
    :param host: named in the error.
    :raises CertificateError: the CA bundle cannot be read.
    """
    from requests.certs import where  # type: ignore[attr-defined]

    if verify is False:
        return False
    bundle = where() if verify is True else verify
    try:
        return _context(bundle, Path(bundle).stat().st_mtime_ns)
    except OSError as error:  # ssl.SSLError is one
        reason = error.strerror or type(error).__name__
    raise CertificateError(f"the CA bundle {bundle} cannot be read ({reason})", host=host)


@functools.lru_cache(maxsize=8)
def _context(bundle: str, _changed: int) -> ssl.SSLContext:
    """Read a bundle once for all clients of the process, again when it has changed."""
    if Path(bundle).is_dir():
        return ssl.create_default_context(capath=bundle)
    return ssl.create_default_context(cafile=bundle)

"""Selects the proxy and the trusted certificates of both clients.

The rules are those of ``requests``, applied by its own functions:

======================================  ==========================================================
Setting                                 Effect
======================================  ==========================================================
Host is a loopback address              never a proxy (``requests`` would use one)
``proxies`` of the connection           precedes the environment; keys as ``requests`` takes them:
                                        ``https://host``, ``https``, ``all://host``, ``all``; null
                                        for no proxy
``HTTPS_PROXY``, ``HTTP_PROXY``         for an https or http workspace; lower case first
``ALL_PROXY``                           if neither is set
``NO_PROXY``                            hosts, domains, ``host:port``, IPv4 networks as CIDR
URL of the proxy                        ``http://`` if it has no scheme; ``https://`` is TLS to the
                                        proxy; it may have user and password
SOCKS                                   refused with :class:`~.errors.InvalidProxyError`
``verify`` of the connection            ``false``, or the path of a CA bundle: a file or a directory
``REQUESTS_CA_BUNDLE``                  if ``verify`` is not set
``CURL_CA_BUNDLE``                      if neither is set
none of these                           the bundle of ``certifi``
======================================  ==========================================================
"""

from __future__ import annotations

import functools
import ipaddress
import os
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from airflow_jobs_provider.api.errors import CertificateError, InvalidProxyError
from airflow_jobs_provider.api.values import Value

__all__ = [
    "WHERE_PROXIES_ARE_SET",
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


class Proxies(Value):
    """Proxies of a connection. The repr does not show them, since a URL may hold a password.

    :param by_scheme: URL of a proxy by ``http``, ``https``, ``all`` or ``https://host``, as for
        ``requests``; None for no proxy. Default: those of the environment.
    """

    __slots__ = __match_args__ = _secret = ("by_scheme",)
    by_scheme: Mapping[str, str | None]

    def __init__(self, by_scheme: Mapping[str, str | None] | None = None) -> None:
        self._set(by_scheme=by_scheme or {})


class Route(Value):
    """The proxy and the certificates for a host. The repr shows no password.

    :ivar proxy: URL of the proxy with user and password; None for a direct connection.
    :ivar address: URL of the proxy without user and password; empty for a direct connection.
    :ivar verify: whether TLS certificates are checked, or the path of the CA bundle.
    """

    __slots__ = __match_args__ = ("proxy", "address", "verify")
    _secret = ("proxy",)
    proxy: str | None
    address: str
    verify: bool | str

    def __init__(self, proxy: str | None, address: str, verify: bool | str) -> None:
        self._set(proxy=proxy, address=address, verify=verify)


# Routes by which a host has responded. For the whole process, since each task and each poller has
# its own client, and all of them must distinguish a wrong setting from an outage.
_reached: set[str] = set()


def route_name(host: str, address: str) -> str:
    """Return the name of a route.

    :param host: the host, with its port if any.
    :param address: URL of the proxy without user and password; empty for a direct connection.
    """
    return f"{host} by {address}" if address else host


def record_reached(route: str) -> None:
    """Record that a host has responded.

    :param route: the route, from :func:`route_name`.
    """
    _reached.add(route)


def was_reached(route: str) -> bool:
    """Return whether a host has responded by this route, so that a failure is an outage.

    :param route: the route, from :func:`route_name`.
    """
    return route in _reached


def choose_route(url: str, proxies: Proxies, verify: bool | str) -> Route:
    """Return the proxy and the certificates for a URL.

    :param url: the workspace's URL.
    :param proxies: proxies of the connection.
    :param verify: whether to check TLS certificates, or the path of a CA bundle.
    :raises InvalidProxyError: the proxy's URL is invalid, or its scheme is not supported.
    :raises CertificateError: the CA bundle does not exist.
    """
    route = _choose(url, proxies, verify)
    if isinstance(route, Exception):
        # Raised here, since no local variable of this frame holds the proxy's password.
        raise route
    return route


def _choose(
    url: str, proxies: Proxies, verify: bool | str
) -> Route | InvalidProxyError | CertificateError:
    import requests

    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    # What a session of requests merges. Making one takes longer than a request.
    given = proxies.by_scheme
    environment = requests.utils.get_environ_proxies(url, given.get("no_proxy"))
    # None disables the environment's proxy.
    merged = {name: proxy for name, proxy in {**environment, **given}.items() if proxy is not None}
    if verify is True:
        bundles = map(os.environ.get, ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"))
        verify = next(filter(None, bundles), True)
    verify = verify or False
    if parts.scheme == "https" and isinstance(verify, str) and not Path(verify).exists():
        return CertificateError(
            f'the CA bundle {verify} does not exist. Check "verify" in the connection\'s extra, '
            "and the environment variables REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE",
            host=host,
        )
    if is_loopback(parts.hostname or ""):
        return Route(None, "", verify)
    proxy = requests.utils.select_proxy(url, merged)
    if not proxy:
        return Route(None, "", verify)
    return _with_proxy(proxy.strip(), host, verify)


def _with_proxy(proxy: str, host: str, verify: bool | str) -> Route | InvalidProxyError:
    # As requests does; it fails if there are user and password.
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    try:
        parts = urlsplit(proxy)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    scheme, hostname = parts.scheme.lower(), parts.hostname or ""
    if not hostname:
        # Not quoted, since it may contain a password.
        return InvalidProxyError(
            f"the proxy for {host} is not a URL such as http://proxy.example.com:3128. "
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
    """Return whether a user or password can be sent: ISO 8859-1, no control characters."""
    return all(character.isprintable() and ord(character) < 256 for character in text)


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine; any notation of name or address counts.

    :param host: host name or address, without brackets and port.
    """
    name = host.lower().rstrip(".")
    if name == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        try:
            # The short forms that the system's resolver accepts, such as 127.1.
            address = ipaddress.ip_address(socket.inet_aton(name))
        except (OSError, UnicodeError):
            return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback or address.is_unspecified


def ssl_context(verify: bool | str, host: str) -> ssl.SSLContext | bool:
    """Return the ``ssl`` argument for aiohttp; blocks, since it reads files.

    :param verify: :attr:`Route.verify`.
    :param host: the host, for the error.
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
    """Read a CA bundle once for all clients of the process, and again when it has changed."""
    if Path(bundle).is_dir():
        return ssl.create_default_context(capath=bundle)
    return ssl.create_default_context(cafile=bundle)

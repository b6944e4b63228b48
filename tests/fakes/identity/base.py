"""What all identity endpoints have in common: requests, responses, faults, and the tokens."""

from __future__ import annotations

import base64
import itertools
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

__all__ = [
    "FAULTS",
    "Endpoint",
    "Issued",
    "RefusedError",
    "Request",
    "Response",
    "TokenIssuer",
    "claims_of",
    "encode_jwt",
]

HOUR = 3600.0


@dataclass(frozen=True)
class Request:
    """A request as it came in.

    :ivar host: the Host header, without port.
    :ivar form: the fields of a form; empty for other bodies.
    :ivar json: the body, if it is JSON.
    """

    verb: str
    host: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    body: bytes = b""

    @classmethod
    def read(cls, verb: str, target: str, headers: Mapping[str, str], body: bytes) -> Request:
        """Make one of what a server read; ``target`` may be a whole URL, as a proxy gets it."""
        parts = urlsplit(target)
        lowered = {name.lower(): value for name, value in headers.items()}
        host = parts.hostname or lowered.get("host", "").partition(":")[0]
        return cls(verb, host, parts.path, dict(parse_qsl(parts.query)), lowered, body)

    @property
    def form(self) -> dict[str, str]:
        """The fields of a form."""
        if "json" in self.headers.get("content-type", ""):
            return {}
        return dict(parse_qsl(self.body.decode(errors="replace"), keep_blank_values=True))

    @property
    def json(self) -> Any:
        """The body, if it is JSON."""
        return json.loads(self.body or b"null")

    @property
    def bearer(self) -> str:
        """The bearer token; empty if there is none."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token if scheme.lower() == "bearer" else ""

    @property
    def client(self) -> tuple[str, str]:
        """Client id and secret, from the Authorization header or the form."""
        scheme, _, pair = self.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            name, _, secret = base64.b64decode(pair).decode().partition(":")
            return name, secret
        return self.form.get("client_id", ""), self.form.get("client_secret", "")


@dataclass(frozen=True)
class Response:
    """What is answered. No status: the connection is closed without a response."""

    body: Any = None
    status: int | None = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def data(self) -> bytes:
        """The body as bytes."""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


class RefusedError(Exception):
    """A request that an endpoint refuses.

    :ivar response: what it answers.
    """

    def __init__(self, response: Response) -> None:
        super().__init__(response)
        self.response = response


_HTML = {"Content-Type": "text/html"}
FAULTS: dict[str, Response] = {
    "503": Response({"error": "temporarily_unavailable"}, 503),
    "502 HTML": Response(b"<html><title>Bad Gateway</title></html>", 502, _HTML),
    "429": Response({"error": "slow_down"}, 429, {"Retry-After": "1"}),
    "no response": Response(status=None),
    "200 HTML": Response(b"<html><title>Sign in</title></html>", 200, _HTML),
}


@dataclass(frozen=True)
class Issued:
    """A token that was issued.

    :ivar expires_at: in seconds since the epoch, by the clock of its issuer.
    """

    value: str = field(repr=False)
    issuer: str
    subject: str
    audience: str
    expires_at: float


class TokenIssuer:
    """Issues tokens, and knows which of them are valid.

    All endpoints of a test share one, as the workspace trusts them all.

    :ivar lifetime_seconds: how long the next tokens live.
    :ivar clock: seconds since the epoch.
    :ivar offset_seconds: how far the service's clock is ahead of the real one.
    :ivar issued: all tokens, by their value.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.lifetime_seconds = HOUR
        self.clock = clock
        self.offset_seconds = 0.0
        self.issued: dict[str, Issued] = {}
        self._numbers = itertools.count(1)
        self._revoked: set[str] = set()

    def now(self) -> float:
        """Return the time by the service's clock."""
        return self.clock() + self.offset_seconds

    def issue(
        self,
        issuer: str,
        subject: str,
        audience: str,
        lifetime_seconds: float | None = None,
        *,
        ahead_seconds: float = 0.0,
    ) -> Issued:
        """Issue a token: a JWT whose signature nobody can check.

        :param ahead_seconds: how far the issuer's clock is ahead of that of the others.
        """
        lifetime = self.lifetime_seconds if lifetime_seconds is None else lifetime_seconds
        now = self.now() + ahead_seconds
        claims = {
            "iss": issuer,
            "sub": subject,
            "aud": audience,
            "iat": int(now),
            "nbf": int(now),
            "exp": int(now + lifetime),
            "jti": f"secret-token-{next(self._numbers)}",
        }
        one = Issued(encode_jwt(claims), issuer, subject, audience, now + lifetime)
        self.issued[one.value] = one
        return one

    def revoke_all(self) -> None:
        """Let no token that was issued so far be valid."""
        self._revoked.update(self.issued)

    def check(self, value: str, audience: str | None = None) -> Issued:
        """Return a valid token.

        :raises KeyError: it is unknown, revoked, or for another audience.
        :raises TimeoutError: it has expired, or is not valid yet.
        """
        one = self.issued[value]
        if value in self._revoked or audience not in (None, one.audience):
            raise KeyError(value)
        if self.now() >= one.expires_at:
            raise TimeoutError
        return one


class Endpoint:
    """An endpoint that counts its requests, and can be told to fail.

    :ivar requests: what came in.
    :ivar fault: what is answered to each request instead; None to do what is asked.
    :ivar faults: what is answered to the next requests.
    :ivar ahead_seconds: how far its clock is ahead of those of the other services.
    """

    def __init__(self, issuer: TokenIssuer) -> None:
        self.issuer = issuer
        self.requests: list[Request] = []
        self.fault: Response | None = None
        self.faults: list[Response] = []
        self.ahead_seconds = 0.0
        self._lock = threading.Lock()

    def serves(self, request: Request) -> bool:
        """Return whether this endpoint is the one that is asked."""
        raise NotImplementedError

    def answer(self, request: Request) -> Response:
        """Do what is asked.

        :raises RefusedError: it is refused.
        """
        raise NotImplementedError

    def __call__(self, request: Request) -> Response:
        """Answer a request, or fail as told."""
        with self._lock:
            self.requests.append(request)
            if self.faults:
                return self.faults.pop(0)
            if self.fault is not None:
                return self.fault
            try:
                return self.answer(request)
            except RefusedError as refused:
                return refused.response

    def expect(self, found: object, wanted: object, refusal: Response) -> None:
        """Refuse a request whose value is not the one that is wanted."""
        if found != wanted:
            raise RefusedError(refusal)


def encode_jwt(claims: Mapping[str, Any]) -> str:
    """Return a token in the form of a JWT."""
    parts = [{"alg": "RS256", "typ": "JWT"}, claims]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts]
    return b".".join([*encoded, b"c2lnbmF0dXJl"]).decode()


def claims_of(token: str) -> dict[str, Any]:
    """Return what a token claims."""
    payload = token.split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))))

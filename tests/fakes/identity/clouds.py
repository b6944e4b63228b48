"""Other issuers of tokens: Kubernetes, AWS STS, Google, and the runners of CI services."""

from __future__ import annotations

import base64
import re
import time
from xml.sax.saxutils import escape

from tests.fakes.identity.base import (
    Endpoint,
    RefusedError,
    Request,
    Response,
    TokenIssuer,
    claims_of,
)

__all__ = ["CITokens", "GoogleIAM", "GoogleTokens", "KubernetesTokens", "SecurityTokenService"]


class KubernetesTokens(Endpoint):
    """The TokenRequest API of a cluster.

    :ivar service_account_tokens: tokens that may ask for others, and whose they are.
    """

    issuer_name = "kubernetes"
    _path = re.compile(
        r"/api/v1/namespaces/(?P<namespace>[\w-]+)/serviceaccounts/(?P<name>[\w-]+)/token"
    )

    def __init__(self, issuer: TokenIssuer) -> None:
        super().__init__(issuer)
        self.service_account_tokens: dict[str, str] = {}

    def serves(self, request: Request) -> bool:
        """Return whether a token is asked for."""
        return self._path.fullmatch(request.path) is not None

    def answer(self, request: Request) -> Response:
        """Issue a token for an audience."""
        match = self._path.fullmatch(request.path)
        assert match is not None
        self.expect(request.verb, "POST", _status(405, "MethodNotAllowed", "POST only"))
        account = self.service_account_tokens.get(request.bearer)
        if account is None:
            raise RefusedError(_status(401, "Unauthorized", "Unauthorized"))
        wanted = f"{match['namespace']}:{match['name']}"
        message = f"cannot create resource serviceaccounts/token of {wanted}"
        self.expect(account, wanted, _status(403, "Forbidden", message))
        body = request.json
        kind = ("authentication.k8s.io/v1", "TokenRequest")
        self.expect((body["apiVersion"], body["kind"]), kind, _status(400, "BadRequest", "kind"))
        seconds = int(body["spec"]["expirationSeconds"])
        if seconds < 600:
            message = "may not specify a duration less than 10 minutes"
            raise RefusedError(_status(422, "Invalid", message))
        (audience,) = body["spec"]["audiences"]
        subject = f"system:serviceaccount:{wanted}"
        token = self.issuer.issue(
            self.issuer_name, subject, audience, seconds, ahead_seconds=self.ahead_seconds
        )
        expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(token.expires_at))
        status = {"token": token.value, "expirationTimestamp": expires}
        return Response({**body, "status": status}, 201)


class SecurityTokenService(Endpoint):
    """AWS STS with ``GetWebIdentityToken``, in the query protocol.

    :ivar role: the caller's role; None refuses it.
    """

    issuer_name = "sts"

    def __init__(self, issuer: TokenIssuer) -> None:
        super().__init__(issuer)
        self.role: str | None = "arn:aws:iam::123456789012:role/airflow"

    def serves(self, request: Request) -> bool:
        """Return whether an action is asked for."""
        return request.verb == "POST" and request.path == "/" and "Action" in request.form

    def answer(self, request: Request) -> Response:
        """Issue a token for an audience."""
        form = request.form
        self.expect(form.get("Action"), "GetWebIdentityToken", _xml_error("InvalidAction", "?"))
        if not request.headers.get("authorization", "").startswith("AWS4-HMAC-SHA256 "):
            raise RefusedError(_xml_error("MissingAuthenticationToken", "not signed", 403))
        if self.role is None:
            raise RefusedError(_xml_error("AccessDenied", "sts:GetWebIdentityToken", 403))
        self.expect(
            form.get("SigningAlgorithm"), "RS256", _xml_error("ValidationError", "algorithm")
        )
        seconds = int(form.get("DurationSeconds", "300"))
        audience = form["Audience.member.1"]
        token = self.issuer.issue(
            self.issuer_name, self.role, audience, seconds, ahead_seconds=self.ahead_seconds
        )
        expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(token.expires_at))
        body = (
            '<GetWebIdentityTokenResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
            f"<GetWebIdentityTokenResult><WebIdentityToken>{token.value}</WebIdentityToken>"
            f"<Expiration>{expires}</Expiration></GetWebIdentityTokenResult>"
            "<ResponseMetadata><RequestId>1</RequestId></ResponseMetadata>"
            "</GetWebIdentityTokenResponse>"
        )
        return Response(body.encode(), 200, {"Content-Type": "text/xml"})


class GoogleTokens(Endpoint):
    """Google's token endpoint for service accounts (RFC 7523).

    :ivar accounts: public keys of service accounts, in PEM, by e-mail address.
    """

    issuer_name = "google"

    def __init__(self, issuer: TokenIssuer) -> None:
        super().__init__(issuer)
        self.accounts: dict[str, bytes] = {}

    def serves(self, request: Request) -> bool:
        """Return whether a token is asked for."""
        return request.path == "/token"

    def answer(self, request: Request) -> Response:
        """Issue an id token, or an access token for the cloud's own API."""
        form = request.form
        grant = "urn:ietf:params:oauth:grant-type:jwt-bearer"
        wrong = Response({"error": "unsupported_grant_type"}, 400)
        self.expect(form.get("grant_type"), grant, wrong)
        claims = claims_of(form["assertion"])
        key = self.accounts.get(claims["iss"])
        if key is None or not _is_signed(form["assertion"], key):
            message = {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
            raise RefusedError(Response(message, 400))
        if abs(claims["iat"] - self.issuer.now()) > 3600:
            message = {"error": "invalid_grant", "error_description": "Invalid JWT: iat"}
            raise RefusedError(Response(message, 400))
        if "target_audience" in claims:
            audience = re.sub(r"^https?://|:\d+$|/$", "", claims["target_audience"].rstrip("/"))
            token = self.issuer.issue(self.issuer_name, claims["iss"], audience)
            return Response({"id_token": token.value})
        token = self.issuer.issue(self.issuer_name, claims["iss"], claims["scope"])
        seconds = int(self.issuer.lifetime_seconds)
        return Response(
            {"access_token": token.value, "expires_in": seconds, "token_type": "Bearer"}
        )


class GoogleIAM(Endpoint):
    """Google's endpoint that issues tokens of one service account to another.

    :ivar impersonated: e-mail addresses of the accounts that others may act as.
    """

    _path = re.compile(
        r"/v1/projects/-/serviceAccounts/(?P<email>[^/:]+):generate(?P<kind>Id|Access)Token"
    )

    def __init__(self, issuer: TokenIssuer) -> None:
        super().__init__(issuer)
        self.impersonated: set[str] = set()

    def serves(self, request: Request) -> bool:
        """Return whether a token is asked for."""
        return self._path.fullmatch(request.path) is not None

    def answer(self, request: Request) -> Response:
        """Issue an id token for an audience, or an access token."""
        match = self._path.fullmatch(request.path)
        assert match is not None
        email = match["email"]
        try:
            self.issuer.check(request.bearer)
        except (KeyError, TimeoutError):
            raise RefusedError(_google_error(401, "UNAUTHENTICATED", "invalid token")) from None
        if email not in self.impersonated:
            message = "Permission 'iam.serviceAccounts.getOpenIdToken' denied on resource"
            raise RefusedError(_google_error(403, "PERMISSION_DENIED", message))
        if match["kind"] == "Id":
            audience = re.sub(r"^https?://|:\d+$|/$", "", request.json["audience"].rstrip("/"))
            return Response(
                {"token": self.issuer.issue(GoogleTokens.issuer_name, email, audience).value}
            )
        scope = " ".join(request.json["scope"])
        token = self.issuer.issue(GoogleTokens.issuer_name, email, scope)
        expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(token.expires_at))
        return Response({"accessToken": token.value, "expireTime": expires})


class CITokens(Endpoint):
    """Where a job of GitHub Actions or Azure DevOps gets a token of its own.

    :ivar request_token: what the job must present.
    """

    issuer_name = "ci"
    request_token = "secret-request-token-of-the-job"

    def serves(self, request: Request) -> bool:
        """Return whether a job asks for a token."""
        return request.path == "/github/idtoken" or request.path.endswith("/oidctoken")

    def answer(self, request: Request) -> Response:
        """Issue a token."""
        self.expect(request.bearer, self.request_token, Response({"message": "refused"}, 401))
        is_github = request.path.startswith("/github/")
        audience = request.query.get("audience", "") if is_github else "api://AzureADTokenExchange"
        token = self.issuer.issue(self.issuer_name, "repo:me/dags:ref:main", audience)
        return Response({"value" if is_github else "oidcToken": token.value})


def _is_signed(token: str, public_key: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import padding, rsa
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    signed, _, signature = token.rpartition(".")
    key = load_pem_public_key(public_key)
    assert isinstance(key, rsa.RSAPublicKey)
    decoded = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
    try:
        key.verify(decoded, signed.encode(), padding.PKCS1v15(), SHA256())
    except InvalidSignature:
        return False
    return True


def _status(code: int, reason: str, message: str) -> Response:
    body = {"kind": "Status", "status": "Failure", "message": message, "reason": reason}
    return Response({**body, "code": code}, code)


def _google_error(code: int, status: str, message: str) -> Response:
    return Response({"error": {"code": code, "status": status, "message": message}}, code)


def _xml_error(code: str, message: str, status: int = 400) -> Response:
    body = (
        '<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error>'
        f"<Type>Sender</Type><Code>{code}</Code><Message>{escape(message)}</Message>"
        "</Error><RequestId>1</RequestId></ErrorResponse>"
    )
    return Response(body.encode(), status, {"Content-Type": "text/xml"})

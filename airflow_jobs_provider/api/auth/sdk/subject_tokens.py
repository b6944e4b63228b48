"""Tokens of other issuers, to be exchanged for one of the workspace."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow_jobs_provider.api.auth.debug_logs import hide_debug_logs
from airflow_jobs_provider.api.auth.sdk.identity_client import IdentityClient
from airflow_jobs_provider.api.errors import TokenRefusedError, TokenUnavailableError
from airflow_jobs_provider.api.proxies import Proxies

__all__ = [
    "SubjectToken",
    "aws_token",
    "kubernetes_token",
    "projected_token",
    "provided_token",
]

#: Returns a token to exchange; the client is for those that ask an HTTP service for it.
SubjectToken = Callable[[IdentityClient], str]

_KUBERNETES_URL = "https://kubernetes.default.svc"
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def kubernetes_token(
    *,
    audience: str = _KUBERNETES_URL,
    expiration_seconds: int = 3600,
    token_path: str = str(_SERVICE_ACCOUNT / "token"),
    namespace_path: str = str(_SERVICE_ACCOUNT / "namespace"),
) -> SubjectToken:
    """Return what asks Kubernetes' TokenRequest API for a token of the service account ``default``.

    :param audience: audience of the token.
    :param expiration_seconds: its life in seconds.
    :param token_path: file with the token of the pod's service account. The certificate of the
        cluster's CA is ``ca.crt`` beside it, or in the usual folder.
    :param namespace_path: file with the pod's namespace.
    """

    def fetch(client: IdentityClient) -> str:
        pod_token = _read(token_path)
        namespace = _read(namespace_path)
        url = f"{_KUBERNETES_URL}/api/v1/namespaces/{namespace}/serviceaccounts/default/token"
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": [audience], "expirationSeconds": expiration_seconds},
        }
        beside = Path(token_path).parent / "ca.crt"
        answer = client.send(
            "POST",
            url,
            headers={"Authorization": f"Bearer {pod_token}", "Content-Type": "application/json"},
            body=json.dumps(request).encode(),
            secrets=[pod_token],
            # The connection's proxies are for what is outside the cluster.
            proxies=Proxies(),
            advice="Check that the pod's service account may create tokens of the service account "
            "default (serviceaccounts/token)",
            verify=str(beside if beside.exists() else _SERVICE_ACCOUNT / "ca.crt"),
        )
        status = answer.get("status")
        token = status.get("token") if isinstance(status, dict) else None
        if not isinstance(token, str) or not token:
            raise TokenUnavailableError("Kubernetes answered a TokenRequest without a token")
        return token

    return fetch


def projected_token(path: str) -> SubjectToken:
    """Return what reads a token from a projected volume of the pod, anew each time.

    :param path: the file.
    """
    return lambda _client: _read(path)


def _read(path: str) -> str:
    try:
        text = Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
    else:
        if text:
            return text
        reason = "it is empty"
    raise TokenRefusedError(
        f"the file {path} with the service account's token cannot be read ({reason}). It exists in "
        "a pod of Kubernetes, if its volume is mounted"
    )


def provided_token(provider: Callable[[], object], name: str) -> SubjectToken:
    """Return what calls a function of the user's for a token.

    :param provider: the function.
    :param name: its name, for errors.
    """

    def fetch(_client: IdentityClient) -> str:
        try:
            token = provider()
        except Exception as error:  # noqa: BLE001 - the user's own code
            # Its message may quote a secret.
            reason = f"raised {type(error).__name__}"
        else:
            if isinstance(token, str) and token.strip():
                return token.strip()
            reason = "returned no text" if not isinstance(token, str) else "returned an empty text"
        raise TokenRefusedError(f"federated_token_provider {name} {reason}")

    return fetch


def aws_token(sts: Callable[[], Any], *, audience: str, duration_seconds: int) -> SubjectToken:
    """Return what asks AWS STS for a token (``GetWebIdentityToken``).

    :param sts: returns a boto3 client of STS.
    :param audience: audience of the token.
    :param duration_seconds: its life in seconds.
    """

    def fetch(_client: IdentityClient) -> str:
        from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
        from botocore.exceptions import ConnectionError as BotoConnectionError
        from botocore.parsers import ResponseParserError

        hide_debug_logs("boto3", "botocore")
        try:
            answer = sts().get_web_identity_token(
                Audience=[audience], SigningAlgorithm="RS256", DurationSeconds=duration_seconds
            )
            return str(answer["WebIdentityToken"])
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            text = str(error.response.get("Error", {}).get("Message", ""))
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            if status >= 500 or status == 429 or "Throttl" in code:
                failure: Exception = TokenUnavailableError(f"AWS STS issues no token now: {code}")
            else:
                failure = TokenRefusedError(
                    f"AWS STS refuses a token: {code}: {text[:300]}. Check the role's permission "
                    "sts:GetWebIdentityToken, and that outbound identity federation is enabled",
                    status=status,
                    error_code=code,
                )
        except (HTTPClientError, BotoConnectionError) as error:
            failure = TokenUnavailableError(f"AWS STS cannot be reached ({type(error).__name__})")
        except (ResponseParserError, KeyError) as error:
            # Such as the page of a gateway.
            failure = TokenUnavailableError(
                f"the response of AWS STS cannot be read ({type(error).__name__})"
            )
        except (BotoCoreError, AttributeError) as error:
            # Such as NoCredentialsError; AttributeError: a boto3 that does not know the action.
            failure = TokenRefusedError(
                f"AWS STS cannot be asked for a token ({type(error).__name__}). It needs AWS "
                "credentials and boto3>=1.41"
            )
        raise failure

    return fetch

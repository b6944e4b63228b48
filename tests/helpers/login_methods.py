"""The authentication methods that tests run: a connection for each, and how its service fails."""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.identity import DATABRICKS_SCOPE, TENANT, Endpoint, Identity
from tests.helpers.login_world import AZURE_HOST, CLIENT, SECRET, World

__all__ = ["METHODS", "METHODS_OF_THE_SDK", "LoginMethod"]


@dataclass(frozen=True)
class LoginMethod:
    """An authentication method.

    :ivar name: its name in ids of tests.
    :ivar connection: prepares the world and returns the fields of a connection.
    :ivar endpoint: the endpoint that issues the token of the workspace.
    :ivar refuse: lets the identity service refuse the secret from now on, as a wrong one.
    :ivar refusal: words of the message.
    :ivar expire: lets the secret be an expired one; None for a method without a secret.
    :ivar expired: words of the message.
    :ivar keeps_secret: what nothing shows, beside the tokens that are issued.
    :ivar requests: requests for a token to that endpoint.
    """

    name: str
    connection: Callable[[World], dict[str, Any]]
    endpoint: Callable[[Identity], Endpoint]
    refuse: Callable[[World], object]
    refusal: str
    expire: Callable[[World], object] | None = None
    expired: str = ""
    keeps_secret: tuple[str, ...] = field(default=(SECRET,))
    requests: int = 1


def _other_secret(world: World) -> None:
    world.identity.workspace.clients[CLIENT] = world.identity.entra.clients[CLIENT] = "other"


def _no_policy(world: World) -> None:
    world.identity.workspace.policies.clear()


def _expired_secret(world: World) -> None:
    world.identity.workspace.expired.add(CLIENT)
    world.identity.entra.expired.add(CLIENT)


def _workspace(identity: Identity) -> Endpoint:
    return identity.workspace


def _entra(identity: Identity) -> Endpoint:
    return identity.entra


def _oauth(**fields: Any) -> Callable[[World], dict[str, Any]]:
    return lambda world: world.connection(
        login=CLIENT, password=SECRET, service_principal_oauth=True, **fields
    )


def _azure(**fields: Any) -> Callable[[World], dict[str, Any]]:
    return lambda world: world.on_azure(
        login=CLIENT, password=SECRET, azure_tenant_id=TENANT, **fields
    )


def _azure_authority(world: World) -> dict[str, Any]:
    return world.connection(
        login=CLIENT,
        password=SECRET,
        azure_tenant_id=TENANT,
        azure_ad_endpoint=world.server.tls_url,
    )


def _managed(**fields: Any) -> Callable[[World], dict[str, Any]]:
    def connection(world: World) -> dict[str, Any]:
        world.identity.instance.identities = ["identity-1", "identity-2"]
        world.environment(AZURE_POD_IDENTITY_AUTHORITY_HOST=world.server.url)
        return world.connection(use_azure_managed_identity=True, **fields)

    return connection


def _no_identity(world: World) -> None:
    world.identity.instance.identities = []


def _default(world: World) -> dict[str, Any]:
    world.environment(AZURE_TENANT_ID=TENANT, AZURE_CLIENT_ID=CLIENT, AZURE_CLIENT_SECRET=SECRET)
    return world.on_azure(use_default_azure_credential=True)


def _workload_identity(world: World) -> dict[str, Any]:
    world.identity.entra.federated.add("kubernetes")
    account, audience = "system:serviceaccount:airflow:default", "api://AzureADTokenExchange"
    token = world.identity.issuer.issue("kubernetes", account, audience)
    world.environment(
        AZURE_TENANT_ID=TENANT,
        AZURE_CLIENT_ID=CLIENT,
        AZURE_FEDERATED_TOKEN_FILE=world.file("azure/token", token.value),
        # Set by Azure's webhook; azure-identity before 1.25.1 needs it.
        AZURE_AUTHORITY_HOST="https://login.microsoftonline.com/",
    )
    return world.on_azure(use_default_azure_credential=True)


POD_TOKEN = "secret-token-of-the-pod"


def _kubernetes(**fields: Any) -> Callable[[World], dict[str, Any]]:
    def connection(world: World) -> dict[str, Any]:
        world.identity.kubernetes.service_account_tokens[POD_TOKEN] = "airflow:default"
        world.identity.workspace.policies["kubernetes"] = "my-audience"
        # The API server of the cluster is reached as the environment says.
        world.environment(HTTPS_PROXY=world.server.url, NO_PROXY="127.0.0.1")
        world.file("pod/ca.crt", world.server.certificates.ca_file.read_text())
        return world.connection(
            client_id=CLIENT,
            audience="my-audience",
            k8s_token_path=world.file("pod/token", POD_TOKEN),
            k8s_namespace_path=world.file("pod/namespace", "airflow\n"),
            **fields,
        )

    return connection


def _kubernetes_login(world: World) -> dict[str, Any]:
    return {**_kubernetes()(world), "login": "federated_k8s"}


def _subject_token(world: World, issuer: str = "kubernetes") -> str:
    world.identity.workspace.policies[issuer] = "databricks"
    return world.identity.issuer.issue(issuer, "airflow:default", "databricks").value


def _projected(world: World) -> dict[str, Any]:
    path = world.file("projected/token", _subject_token(world) + "\n")
    return world.connection(
        federated_k8s=True, client_id=CLIENT, k8s_projected_volume_token_path=path
    )


def _file(world: World) -> dict[str, Any]:
    path = world.file("oidc-token", _subject_token(world))
    return world.connection(auth_type="file-oidc", client_id=CLIENT, oidc_token_filepath=path)


def _env(world: World) -> dict[str, Any]:
    world.environment(MY_OIDC_TOKEN=_subject_token(world))
    return world.connection(auth_type="env-oidc", client_id=CLIENT, oidc_token_env="MY_OIDC_TOKEN")


def _aws(world: World) -> dict[str, Any]:
    world.identity.workspace.policies["sts"] = "databricks"
    world.environment(
        AWS_ACCESS_KEY_ID="AKIA",
        AWS_SECRET_ACCESS_KEY="secret-of-aws",
        AWS_DEFAULT_REGION="eu-west-1",
        AWS_ENDPOINT_URL_STS=world.server.tls_url,
        AWS_CA_BUNDLE=str(world.server.certificates.ca_file),
        AWS_EC2_METADATA_DISABLED="true",
    )
    return world.connection(federated_aws=True, client_id=CLIENT)


def _no_role(world: World) -> None:
    world.identity.sts.role = None


_provided: list[str] = []


def provide_token() -> str:
    """Return a token of another issuer, as a user's function does."""
    return f"{_provided[-1]}\n"


def _provider(world: World) -> dict[str, Any]:
    _provided.append(_subject_token(world, "my-issuer"))
    return world.connection(federated_token_provider=f"{__name__}.provide_token")


def _sdk_oauth(world: World) -> dict[str, Any]:
    return world.connection(auth_type="oauth-m2m", client_id=CLIENT, client_secret=SECRET)


def _sdk_azure(world: World) -> dict[str, Any]:
    return world.on_azure(
        auth_type="azure-client-secret",
        azure_client_id=CLIENT,
        azure_client_secret=SECRET,
        azure_tenant_id=TENANT,
    )


def _profile(world: World) -> dict[str, Any]:
    lines = ["[prod]", f"host = {world.workspace.url}", f"client_id = {CLIENT}"]
    path = world.file("databrickscfg", "\n".join([*lines, f"client_secret = {SECRET}", ""]))
    return world.connection(profile="prod", config_file=path)


def _ambient(world: World) -> dict[str, Any]:
    world.environment(
        DATABRICKS_HOST=world.workspace.url,
        DATABRICKS_CLIENT_ID=CLIENT,
        DATABRICKS_CLIENT_SECRET=SECRET,
    )
    return world.connection()


def _github(world: World) -> dict[str, Any]:
    world.identity.workspace.policies["ci"] = "my-audience"
    _on_github(world)
    return world.connection(auth_type="github-oidc", client_id=CLIENT, token_audience="my-audience")


def _on_github(world: World) -> None:
    world.environment(
        ACTIONS_ID_TOKEN_REQUEST_URL=f"{world.server.url}/github/idtoken?version=1",
        ACTIONS_ID_TOKEN_REQUEST_TOKEN=world.identity.ci.request_token,
    )


def _github_on_azure(world: World) -> dict[str, Any]:
    world.identity.entra.federated.add("ci")
    _on_github(world)
    return world.on_azure(
        auth_type="github-oidc-azure", azure_client_id=CLIENT, azure_tenant_id=TENANT
    )


def _azure_devops(world: World) -> dict[str, Any]:
    world.identity.workspace.policies["ci"] = "api://AzureADTokenExchange"
    world.environment(
        SYSTEM_ACCESSTOKEN=world.identity.ci.request_token,
        SYSTEM_TEAMFOUNDATIONCOLLECTIONURI=f"{world.server.url}/my-organization/",
        SYSTEM_TEAMPROJECTID="project",
        SYSTEM_PLANID="plan",
        SYSTEM_JOBID="job",
        SYSTEM_HOSTTYPE="build",
    )
    return world.connection(auth_type="azure-devops-oidc", client_id=CLIENT)


def _metadata(world: World) -> dict[str, Any]:
    return world.connection(metadata_service_url=f"{world.server.url}/databricks/secret-path")


def _signed_out(world: World) -> None:
    world.identity.metadata.is_signed_in = False


def _cli(world: World, name: str, output: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    answer = world.file("answer.json", json.dumps(output))
    script = f'#!/bin/sh\ncase "$*" in *version*) echo "{{}}";; *) cat {answer};; esac\n'
    world.file(f"bin/{name}", script, executable=True)
    world.environment(PATH=f"{world.folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return world.connection(**fields)


def _databricks_cli(world: World) -> dict[str, Any]:
    token = world.identity.issuer.issue("workspace", "me", "workspace")
    expiry = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(token.expires_at))
    output = {"access_token": token.value, "token_type": "Bearer", "expiry": expiry}
    return _cli(world, "databricks", output, auth_type="databricks-cli")


def _azure_cli(world: World) -> dict[str, Any]:
    token = world.identity.issuer.issue("entra", "me", DATABRICKS_SCOPE)
    expiry = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(token.expires_at))
    output = {"accessToken": token.value, "tokenType": "Bearer", "expiresOn": expiry}
    connection = _cli(world, "az", output, auth_type="azure-cli", azure_tenant_id=TENANT)
    return {**connection, "host": AZURE_HOST} | {
        "extra": {**connection["extra"], "proxies": {"https": world.server.url}}
    }


@functools.cache
def _key() -> tuple[str, bytes]:
    """Return a private key and its public key."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return private.decode(), public


def _google_account(world: World) -> str:
    email = "me@project.iam.gserviceaccount.com"
    private, world.identity.google.accounts[email] = _key()
    account = {
        "type": "service_account",
        "project_id": "project",
        "client_email": email,
        "private_key": private,
        "token_uri": f"{world.server.url}/token",
    }
    return json.dumps(account)


def _google(world: World) -> dict[str, Any]:
    return world.connection(google_credentials=_google_account(world))


def _google_id(world: World) -> dict[str, Any]:
    world.identity.google_iam.impersonated.add("workspace@project.iam.gserviceaccount.com")
    # The account that the process runs as, which may act as the other one.
    world.environment(
        GOOGLE_APPLICATION_CREDENTIALS=world.file("google.json", _google_account(world)),
        **world.server.environment(),
        NO_PROXY="127.0.0.1",
    )
    return world.connection(google_service_account="workspace@project.iam.gserviceaccount.com")


def _no_command(world: World) -> None:
    for command in ("databricks", "az"):
        world.file(f"bin/{command}", "#!/bin/sh\necho you are not logged in >&2\nexit 1\n")


METHODS: tuple[LoginMethod, ...] = (
    LoginMethod(
        "service_principal_oauth",
        _oauth(),
        _workspace,
        _other_secret,
        "invalid_client.*Login and Password",
        _expired_secret,
        "invalid_client.*expired",
    ),
    LoginMethod(
        "azure_service_principal",
        _azure(),
        _entra,
        _other_secret,
        "AADSTS7000215.*Login and Password",
        _expired_secret,
        "AADSTS7000222.*expired",
    ),
    LoginMethod(
        "azure_service_principal_resource_id",
        _azure(azure_resource_id="/subscriptions/1/resourceGroups/r"),
        _entra,
        _other_secret,
        "AADSTS7000215.*Login and Password",
        _expired_secret,
        "AADSTS7000222.*expired",
    ),
    LoginMethod("azure_ad_endpoint", _azure_authority, _entra, _other_secret, "AADSTS7000215"),
    LoginMethod(
        "managed_identity",
        _managed(),
        lambda identity: identity.instance,
        _no_identity,
        "managed identity.*Identity not found",
    ),
    LoginMethod(
        "managed_identity_resource_id",
        _managed(
            azure_managed_identity_client_id="identity-2", azure_resource_id="/subscriptions/1"
        ),
        lambda identity: identity.instance,
        _no_identity,
        "managed identity identity-2.*Identity not found",
    ),
    LoginMethod(
        "default_azure_credential",
        _default,
        _entra,
        _other_secret,
        "default Azure credential.*AADSTS7000215",
        _expired_secret,
        "AADSTS7000222.*expired",
    ),
    LoginMethod(
        "azure_workload_identity",
        _workload_identity,
        _entra,
        lambda world: world.identity.entra.federated.clear(),
        "default Azure credential.*AADSTS70021",
        keeps_secret=(),
    ),
    LoginMethod(
        "federated_k8s",
        _kubernetes(federated_k8s=True),
        _workspace,
        _no_policy,
        "invalid_grant.*federation policy",
        keeps_secret=(POD_TOKEN,),
    ),
    LoginMethod(
        "federated_k8s_login",
        _kubernetes_login,
        _workspace,
        lambda world: world.identity.kubernetes.service_account_tokens.clear(),
        "kubernetes.default.svc answered 401 Unauthorized.*serviceaccounts/token",
        keeps_secret=(POD_TOKEN,),
    ),
    LoginMethod(
        "k8s_projected_volume", _projected, _workspace, _no_policy, "invalid_grant", keeps_secret=()
    ),
    LoginMethod(
        "federated_aws",
        _aws,
        _workspace,
        _no_role,
        "AWS STS refuses a token: AccessDenied",
        keeps_secret=("secret-of-aws",),
    ),
    LoginMethod(
        "federated_token_provider",
        _provider,
        _workspace,
        _no_policy,
        "invalid_grant.*federation policy",
        keeps_secret=(),
    ),
    LoginMethod(
        "oauth-m2m",
        _sdk_oauth,
        _workspace,
        _other_secret,
        "invalid_client",
        _expired_secret,
        "invalid_client.*expired",
    ),
    LoginMethod(
        "azure-client-secret",
        _sdk_azure,
        _entra,
        _other_secret,
        "AADSTS7000215",
        _expired_secret,
        "AADSTS7000222.*expired",
    ),
    LoginMethod("profile", _profile, _workspace, _other_secret, "invalid_client"),
    LoginMethod("environment", _ambient, _workspace, _other_secret, "invalid_client"),
    LoginMethod("file-oidc", _file, _workspace, _no_policy, "invalid_grant", keeps_secret=()),
    LoginMethod("env-oidc", _env, _workspace, _no_policy, "invalid_grant", keeps_secret=()),
    LoginMethod(
        "github-oidc",
        _github,
        _workspace,
        _no_policy,
        "invalid_grant",
        keeps_secret=("secret-request-token-of-the-job",),
    ),
    LoginMethod(
        "azure-devops-oidc",
        _azure_devops,
        _workspace,
        _no_policy,
        "invalid_grant",
        keeps_secret=("secret-request-token-of-the-job",),
    ),
    LoginMethod(
        "github-oidc-azure",
        _github_on_azure,
        _entra,
        lambda world: world.identity.entra.federated.clear(),
        "AADSTS70021",
        keeps_secret=("secret-request-token-of-the-job",),
    ),
    LoginMethod(
        "metadata-service",
        _metadata,
        lambda identity: identity.metadata,
        _signed_out,
        "metadata-service.*not signed in",
        keeps_secret=("secret-path",),
    ),
)

#: Those whose requests are all sent by databricks-sdk and Google's library, or by a command.
METHODS_OF_THE_SDK: tuple[LoginMethod, ...] = (
    LoginMethod(
        "google-credentials",
        _google,
        lambda identity: identity.google,
        lambda world: world.identity.google.accounts.clear(),
        "google-credentials.*invalid_grant",
        keeps_secret=("PRIVATE KEY",),
        requests=2,
    ),
    LoginMethod(
        "google-id",
        _google_id,
        lambda identity: identity.google_iam,
        lambda world: world.identity.google_iam.impersonated.clear(),
        "google-id.*denied",
        keeps_secret=("PRIVATE KEY",),
        requests=2,
    ),
    LoginMethod(
        "databricks-cli",
        _databricks_cli,
        _workspace,
        _no_command,
        "databricks-cli.*you are not logged in",
        keeps_secret=(),
        requests=0,
    ),
    LoginMethod(
        "azure-cli", _azure_cli, _entra, _no_command, "azure-cli", keeps_secret=(), requests=0
    ),
)

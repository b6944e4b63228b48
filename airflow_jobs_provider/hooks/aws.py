"""The AWS STS client of a connection that authenticates by AWS."""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from airflow_jobs_provider.api.errors import CredentialsError

__all__ = ["security_token_service"]


def security_token_service(aws_conn_id: str | None) -> Callable[[], Any]:
    """Return what returns a boto3 client of AWS STS.

    With the Amazon provider installed, its ``StsHook`` makes the client, so that the AWS connection
    counts. Without it, boto3's own settings count, unless an AWS connection is named.

    :param aws_conn_id: id of the AWS connection; empty for boto3's own settings; None for
        ``aws_default``, if the Amazon provider is installed.
    :raises CredentialsError: neither package is installed, or an AWS connection is named without
        the Amazon provider.
    """
    if find_spec("airflow.providers.amazon") is not None:
        from airflow.providers.amazon.aws.hooks.sts import StsHook

        name = "aws_default" if aws_conn_id is None else aws_conn_id or None
        # Now, since it asks Airflow for the connection, which the thread of a fetch cannot.
        try:
            client = StsHook(aws_conn_id=name).get_conn()
        except Exception as error:  # noqa: BLE001 - of Airflow, the Amazon provider or boto3
            # Its message may quote a secret.
            reason = type(error).__name__
        else:
            return lambda: client
        raise CredentialsError(
            f"the AWS connection {name!r} of federated_aws cannot be used ({reason})"
        )
    if aws_conn_id:
        raise CredentialsError(
            f"the AWS connection {aws_conn_id!r} (aws_conn_id) needs the Amazon provider: "
            "pip install 'apache-airflow-providers-amazon>=9.22.0'"
        )
    if find_spec("boto3") is not None:
        import boto3

        return functools.cache(lambda: boto3.client("sts"))
    raise CredentialsError(
        "federated_aws needs boto3 to ask AWS STS for a token: pip install 'boto3>=1.41', or "
        "'apache-airflow-providers-amazon>=9.22.0' to use an AWS connection"
    )

"""Authentication: credentials, and the headers that they give.

Each method is a subclass of :class:`Credentials`, or of :class:`CachedCredentials` where a token
has to be fetched and renewed. Those that need databricks-sdk or azure-identity are in
:mod:`airflow_jobs_provider.api.auth.sdk`, which this package does not import.
:mod:`airflow_jobs_provider.hooks.authentication` chooses the method of an Airflow connection.
"""

from airflow_jobs_provider.api.auth.base import Credentials, fingerprint
from airflow_jobs_provider.api.auth.cached import AccessToken, CachedCredentials
from airflow_jobs_provider.api.auth.netrc_file import from_netrc
from airflow_jobs_provider.api.auth.shared import shared_credentials
from airflow_jobs_provider.api.auth.static import Basic, Token

__all__ = [
    "AccessToken",
    "Basic",
    "CachedCredentials",
    "Credentials",
    "Token",
    "fingerprint",
    "from_netrc",
    "shared_credentials",
]

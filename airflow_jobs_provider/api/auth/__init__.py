"""Authentication: credentials, and the headers that they give.

Each method is a subclass of :class:`Credentials`, or of :class:`CachedCredentials` where a token
has to be fetched and renewed. Those that need databricks-sdk or azure-identity are in
:mod:`airflow_jobs_provider.api.auth.sdk`, which this package does not import.
:mod:`airflow_jobs_provider.hooks.authentication` chooses the method of an Airflow connection.

A module is imported with its first name, since a process mostly needs one method.
"""

from typing import TYPE_CHECKING

from airflow_jobs_provider.api.auth.base import Credentials, fingerprint
from airflow_jobs_provider.api.lazy_names import lazy_names

if TYPE_CHECKING:
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

_MODULES = {
    "AccessToken": ".cached",
    "Basic": ".static",
    "CachedCredentials": ".cached",
    "Token": ".static",
    "from_netrc": ".netrc_file",
    "shared_credentials": ".shared",
}

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(globals(), _MODULES)

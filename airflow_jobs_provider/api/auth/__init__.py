"""Authentication: credentials, and the Authorization header that they give.

Each method is a module of this package with a subclass of :class:`Credentials`, or of
:class:`CachedCredentials` where a token has to be fetched and refreshed.
:mod:`airflow_jobs_provider.hooks.connection` chooses the method of an Airflow connection.
"""

from airflow_jobs_provider.api.auth.base import AccessToken, CachedCredentials, Credentials
from airflow_jobs_provider.api.auth.netrc_file import from_netrc
from airflow_jobs_provider.api.auth.static import Basic, Token

__all__ = ["AccessToken", "Basic", "CachedCredentials", "Credentials", "Token", "from_netrc"]

"""The two clients of the API: :class:`JobsClient` (blocking) and :class:`AsyncJobsClient`.

They share :mod:`.base_client`, :mod:`.errors` and :mod:`.retry`. Each client only sends and
receives, and translates the exceptions of its HTTP library. The library is imported at the first
request.
"""

from __future__ import annotations

from airflow_jobs_provider.api.async_client import AsyncJobsClient
from airflow_jobs_provider.api.blocking_client import JobsClient

__all__ = ["AsyncJobsClient", "JobsClient"]

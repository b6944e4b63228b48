"""Two thin faces over the same calls: :class:`JobsClient` (blocking), :class:`AsyncJobsClient`.

All that is decided is decided in :mod:`.base_client`, :mod:`.errors` and :mod:`.retry`. A face only
sends, receives and sleeps, and names its HTTP library's faults. Neither library is imported before
the first request.
"""

from __future__ import annotations

from airflow_jobs_provider.api.async_client import AsyncJobsClient
from airflow_jobs_provider.api.blocking_client import JobsClient

__all__ = ["AsyncJobsClient", "JobsClient"]

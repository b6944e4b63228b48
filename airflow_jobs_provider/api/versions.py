"""The versions of the Jobs API.

:mod:`airflow_jobs_provider.api.schema.version_selection` decides which one a request is sent to.
"""

from __future__ import annotations

__all__ = ["API_VERSIONS", "LATEST_API_VERSION", "OLDEST_API_VERSION"]

#: All versions, oldest first. They compare as text.
API_VERSIONS = ("2.0", "2.1", "2.2")
#: The version that the reference describes.
OLDEST_API_VERSION = API_VERSIONS[0]
LATEST_API_VERSION = API_VERSIONS[-1]

"""The rules of the reference beyond the types of fields.

A rule is a function that gets one structure of a payload and its location, and yields problems. The
first paragraph of its docstring states the rule and the section of the reference; the table in the
docs is made from it. A rule ignores values of a wrong type, which :mod:`..validation` reports.
``None`` counts as absent.

A rule has the versions of the API that it applies to. A rule of the 2.0 reference applies to later
versions only if their documentation says the same; in doubt the service decides. The rules for tags
are Azure's. They apply if the workspace is known to be on Azure.
"""

from airflow_jobs_provider.api.schema.rules import jobs, new_clusters, parameters  # noqa: F401 - their rules
from airflow_jobs_provider.api.schema.rules.base import RULES, Location, Rule, find_violations
from airflow_jobs_provider.api.schema.rules.tasks import MAX_REQUEST_BYTES, request_size

__all__ = [
    "MAX_REQUEST_BYTES",
    "RULES",
    "Location",
    "Rule",
    "find_violations",
    "request_size",
]

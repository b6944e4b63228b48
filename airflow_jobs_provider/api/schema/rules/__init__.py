"""What the reference forbids beyond the type of a field, each rule once.

A rule is a small function that gets a part of a payload of a known structure, and where it stands,
and yields the problems it finds. Its first line says what it asks for, and which section of the
reference says so; the docs' table is made from it. A rule looks only at what has the right type:
the rest is told by the types. ``None`` counts as not given, as JSON's null does for the service.

Each rule says which versions of the API it binds. A rule of the 2.0 reference binds later versions
only where their own documentation says the same; in doubt the service decides. The rules for tags
are Azure's and bind on a workspace that is known to be there.
"""

from airflow_jobs_provider.api.schema.rules import clusters, jobs, parameters  # noqa: F401 - their rules
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

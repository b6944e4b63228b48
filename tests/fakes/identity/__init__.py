"""Identity services on loopback, in the real protocols.

:mod:`base` has what all endpoints share, the other modules the endpoints of each service, and
:mod:`server` serves them. A :class:`~tests.fakes.fake_service.FakeService` with ``identity`` set
serves those of a workspace beside its Jobs API, and takes the tokens that they issue.
"""

from tests.fakes.identity.base import FAULTS, Endpoint, Response, TokenIssuer, claims_of
from tests.fakes.identity.server import TENANT, Certificates, Identity, IdentityServer
from tests.fakes.identity.workspace import DATABRICKS_SCOPE, MANAGEMENT_RESOURCE

__all__ = [
    "DATABRICKS_SCOPE",
    "FAULTS",
    "MANAGEMENT_RESOURCE",
    "TENANT",
    "Certificates",
    "Endpoint",
    "Identity",
    "IdentityServer",
    "Response",
    "TokenIssuer",
    "claims_of",
]

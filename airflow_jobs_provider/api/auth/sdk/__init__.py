"""Authentication by databricks-sdk (extra ``[auth]``) and azure-identity (extra ``[azure]``).

:mod:`.unified` has the credentials on the SDK's ``Config``, :mod:`.azure_identity` those on
azure-identity. Both libraries are imported when the first token is fetched; databricks-sdk without
its clients for the services, see :mod:`.deferred_init`.
"""

"""The clusters that jobs and runs name: ``/api/2.0/clusters/get`` and ``list``.

The local workspace has no clusters. It answers for each name that a job or run has used as for a
cluster that is RUNNING, so that tools which look a cluster up go on.

Reference: the Clusters API, get and list.
"""

from __future__ import annotations

from typing import Any

from airflow_jobs_provider.local.errors import invalid
from airflow_jobs_provider.local.http.call import Call, Endpoint

__all__ = ["CLUSTER_ENDPOINTS"]


async def get(call: Call) -> dict[str, Any]:
    """Get: a cluster that a job or run has named."""
    cluster_id = str(call.data.get("cluster_id", ""))
    if cluster_id not in call.service.store.cluster_ids():
        raise invalid(f"Cluster {cluster_id[:100]} does not exist")
    return _cluster(call, cluster_id)


async def list_clusters(call: Call) -> dict[str, Any]:
    """List: the clusters that jobs and runs have named."""
    found = [_cluster(call, cluster_id) for cluster_id in call.service.store.cluster_ids()]
    return {"clusters": found} if found else {}


CLUSTER_ENDPOINTS: dict[tuple[str, str], Endpoint] = {
    ("GET", "get"): get,
    ("GET", "list"): list_clusters,
}


def _cluster(call: Call, cluster_id: str) -> dict[str, Any]:
    return {
        "cluster_id": cluster_id,
        "cluster_name": cluster_id,
        "creator_user_name": call.service.user,
        "state": "RUNNING",
        "state_message": "The local workspace runs the work itself.",
        "num_workers": 0,
        "cluster_source": "API",
    }

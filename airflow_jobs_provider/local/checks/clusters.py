"""What a run runs on ("NewCluster", "AutoScale", "ClusterTag", "Library" and what they hold)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_jobs_provider.local.checks.field_types import at
from airflow_jobs_provider.local.checks.parameters import check_ascii
from airflow_jobs_provider.local.errors import invalid
from airflow_jobs_provider.local.versions import Version

__all__ = ["check_cluster", "check_library"]

_MAX_TAGS = 45
_LIBRARIES = ("jar", "egg", "whl", "pypi", "maven", "cran")
_SCRIPT_PLACES = ("workspace", "dbfs", "abfss", "file")


def check_cluster(cluster: Mapping[str, Any], where: str, version: Version) -> None:
    """Check a new cluster; what a cluster policy may settle is not missed where there is one.

    The keys and values of tags are not checked: what they may be is a matter of the cloud, and this
    machine is none.
    """
    _check_workers(cluster, where)
    _check_machines(cluster, where, version)
    size = len(cluster.get("custom_tags") or {})
    if size > _MAX_TAGS:
        place = at(where, "custom_tags")
        raise invalid(f"{place} must have at most {_MAX_TAGS} tags; it has {size}")
    if not version.has_tasks:
        for name, value in (cluster.get("spark_env_vars") or {}).items():
            check_ascii(at(where, f"spark_env_vars.{name}"), value)
    _check_azure(cluster.get("azure_attributes") or {}, at(where, "azure_attributes"), version)
    for index, script in enumerate(cluster.get("init_scripts") or []):
        _check_one_of(script, _SCRIPT_PLACES, f"{where}.init_scripts[{index}]")
    logs = cluster.get("cluster_log_conf")
    if logs is not None and len(logs) != 1:
        raise invalid(f"{where}.cluster_log_conf must have exactly one destination")


def _check_workers(cluster: Mapping[str, Any], where: str) -> None:
    """Either num_workers or autoscale, whose max_workers is strictly greater than min_workers."""
    number, scale = cluster.get("num_workers"), cluster.get("autoscale")
    if number is not None and scale is not None:
        raise invalid(f"Only one of {where}.num_workers and {where}.autoscale may be set")
    settled = any(cluster.get(name) for name in ("policy_id", "is_single_node", "kind"))
    if number is None and scale is None and not settled:
        raise invalid(f"One of {where}.num_workers and {where}.autoscale is required")
    low, high = (scale or {}).get("min_workers"), (scale or {}).get("max_workers")
    if low is not None and high is not None and high <= low:
        raise invalid(
            f"{where}.autoscale.max_workers must be strictly greater than min_workers: "
            f"{high} is not greater than {low}"
        )


def _check_machines(cluster: Mapping[str, Any], where: str, version: Version) -> None:
    """A Spark version, and what machines it runs on."""
    if not cluster.get("spark_version") and not cluster.get("policy_id"):
        raise invalid(f"Missing required field: {where}.spark_version")
    settled = any(
        cluster.get(name) for name in ("instance_pool_id", "policy_id", "is_single_node", "kind")
    )
    if cluster.get("driver_instance_pool_id") and not settled and not version.has_tasks:
        raise invalid(f"{where}.driver_instance_pool_id needs {where}.instance_pool_id")
    if not cluster.get("node_type_id") and not settled:
        raise invalid(
            f"One of {where}.node_type_id and {where}.instance_pool_id is required, "
            "or a cluster policy that sets one"
        )


def _check_azure(attributes: Mapping[str, Any], where: str, version: Version) -> None:
    on_demand = attributes.get("first_on_demand")
    if on_demand is not None and on_demand <= 0 and not version.has_tasks:
        raise invalid(f"{where}.first_on_demand must be greater than 0")
    price = attributes.get("spot_bid_max_price")
    if price is not None and price != -1 and not price > 0:
        raise invalid(f"{where}.spot_bid_max_price must be a price, or -1 for none")


def check_library(library: Mapping[str, Any], where: str, version: Version) -> None:
    """Exactly one kind of library; zipped wheels by their own suffix."""
    _check_one_of(library, _LIBRARIES, where)
    wheel = "" if version.has_tasks else library.get("whl") or ""
    if wheel.endswith(".zip") and not wheel.endswith(".wheelhouse.zip"):
        raise invalid(f"{where}.whl must end in .wheelhouse.zip where it is a zip of wheels")


def _check_one_of(given: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    """One of some fields; where there is none of them, one of a later version will do."""
    found = [name for name in known if name in given]
    if len(found) > 1 or not given:
        raise invalid(f"{where} must have exactly one of {', '.join(known)}")

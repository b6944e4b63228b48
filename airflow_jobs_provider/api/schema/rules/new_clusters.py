"""Rules about new clusters, and the libraries on them."""

from __future__ import annotations

import re

from airflow_jobs_provider.api.problems import Problem
from airflow_jobs_provider.api.schema.rules.base import (
    MAX_INT32,
    ONLY_2_0,
    Location,
    Node,
    Problems,
    check_ascii_map,
    check_exactly_one,
    check_mutually_exclusive,
    check_range,
    check_size,
    get_integer,
    get_mapping,
    get_number,
    get_string,
    join_names,
    present_fields,
    rule,
)

__all__: list[str] = []  # each rule registers itself

MAX_CUSTOM_TAGS = 45
MAX_TAG_KEY_CHARACTERS = 512
MAX_TAG_VALUE_CHARACTERS = 256

# Fields of later versions that make other fields of a cluster optional.
_MAKE_OTHERS_OPTIONAL = ("policy_id", "is_single_node", "kind")


@rule("AutoScale")
def autoscale_bounds(node: Node, location: Location) -> Problems:
    """``max_workers`` is strictly greater than ``min_workers`` (reference: "AutoScale")."""
    least, most = get_integer(node, "min_workers"), get_integer(node, "max_workers")
    if least is not None and most is not None and least >= most:
        yield Problem(
            location.field("max_workers"),
            "must be strictly greater than min_workers",
            f"it is {most}, and min_workers is {least}",
        )


@rule("NewCluster")
def workers(node: Node, location: Location) -> Problems:
    """A new cluster has either ``num_workers`` or ``autoscale`` (reference: "NewCluster")."""
    given = present_fields(node, "num_workers", "autoscale")
    yield from check_mutually_exclusive(given, location)
    if not given and not present_fields(node, *_MAKE_OTHERS_OPTIONAL):
        field = join_names((location.field("num_workers"), location.field("autoscale")), "or")
        yield Problem(field, "must be given", "neither is")


@rule("NewCluster")
def spark_version(node: Node, location: Location) -> Problems:
    """A new cluster has a ``spark_version`` (reference: "NewCluster"); a policy may set it."""
    if not present_fields(node, "spark_version", "policy_id"):
        yield Problem(location.field("spark_version"), "must be given", "it is missing")


@rule("NewCluster")
def node_type(node: Node, location: Location) -> Problems:
    """A new cluster has a ``node_type_id``, an ``instance_pool_id``, or a policy that sets one
    (reference: "NewCluster").
    """
    if not present_fields(node, "node_type_id", "instance_pool_id", *_MAKE_OTHERS_OPTIONAL):
        field = join_names(
            (location.field("node_type_id"), location.field("instance_pool_id")), "or"
        )
        yield Problem(field, "must be given, or a cluster policy's policy_id", "none is")


@rule("NewCluster", versions=ONLY_2_0)
def driver_pool(node: Node, location: Location) -> Problems:
    """``driver_instance_pool_id`` comes with ``instance_pool_id`` (reference: "NewCluster")."""
    if present_fields(node, "driver_instance_pool_id") and not present_fields(
        node, "instance_pool_id", *_MAKE_OTHERS_OPTIONAL
    ):
        yield Problem(
            location.field("instance_pool_id"),
            "must be given with driver_instance_pool_id",
            "it is missing",
        )


@rule("NewCluster")
def number_of_tags(node: Node, location: Location) -> Problems:
    """A new cluster has at most 45 custom tags (reference: "NewCluster", custom_tags)."""
    size = len(get_mapping(node, "custom_tags"))
    yield from check_size(MAX_CUSTOM_TAGS, "tags", size, location, "custom_tags")


# Compiled at first use: most requests have no tags.
_NOT_IN_TAG_KEY = r"[<>%*&+?\\/]"
_RESERVED_TAG = r"(?i)azure|microsoft|windows"


@rule("NewCluster", only_azure=True)
def tag_keys(node: Node, location: Location) -> Problems:
    r"""A custom tag's key has 1 to 512 characters, none of ``<>%*&+?\/``, and does not begin with
    ``azure``, ``microsoft`` or ``windows`` (reference: "ClusterTag").
    """
    for key in get_mapping(node, "custom_tags"):
        must = found = ""
        if not isinstance(key, str):
            continue
        if not 1 <= len(key) <= MAX_TAG_KEY_CHARACTERS:
            must = f"must have a key of 1 to {MAX_TAG_KEY_CHARACTERS} characters"
            found = f"it has {len(key)}"
        elif forbidden := re.search(_NOT_IN_TAG_KEY, key):
            must = "must have a key without any of the characters <>%*&+?\\/"
            found = f"it has a {forbidden.group()}"
        elif reserved := re.match(_RESERVED_TAG, key):
            must = "must have a key that does not begin with azure, microsoft or windows"
            found = f"it begins with {reserved.group()}"
        if must:
            yield Problem(location.field("custom_tags", key[:MAX_TAG_KEY_CHARACTERS]), must, found)


@rule("NewCluster", only_azure=True)
def tag_values(node: Node, location: Location) -> Problems:
    """A custom tag's value has at most 256 characters (reference: "ClusterTag")."""
    for key, value in get_mapping(node, "custom_tags").items():
        if isinstance(value, str) and len(value) > MAX_TAG_VALUE_CHARACTERS:
            yield from check_size(
                MAX_TAG_VALUE_CHARACTERS,
                "characters",
                len(value),
                location,
                "custom_tags",
                str(key),
            )


@rule("NewCluster", versions=ONLY_2_0)
def ascii_environment(node: Node, location: Location) -> Problems:
    """A new cluster's ``spark_env_vars`` are ASCII only (reference: "SparkEnvPair")."""
    yield from check_ascii_map(node, "spark_env_vars", location)


@rule("AzureAttributes", versions=ONLY_2_0)
def first_on_demand(node: Node, location: Location) -> Problems:
    """``first_on_demand`` is greater than 0 (reference: "AzureAttributes")."""
    yield from check_range(node, "first_on_demand", location, 1, MAX_INT32)


@rule("AzureAttributes")
def spot_price(node: Node, location: Location) -> Problems:
    """``spot_bid_max_price`` is a price, or -1 for no limit (reference: "AzureAttributes")."""
    price = get_number(node, "spot_bid_max_price")
    if price is not None and price != -1 and not price > 0:
        yield Problem(
            location.field("spot_bid_max_price"), "must be -1 or greater than 0", f"it is {price:g}"
        )


@rule("InitScriptInfo")
def one_script_place(node: Node, location: Location) -> Problems:
    """An init script has exactly one place (reference: "InitScriptInfo")."""
    yield from check_exactly_one(node, location, ("workspace", "dbfs", "abfss", "file"))


@rule("ClusterLogConf")
def one_log_place(node: Node, location: Location) -> Problems:
    """A cluster's logs go to exactly one destination (reference: "NewCluster", cluster_log_conf;
    "ClusterLogConf").
    """
    places = present_fields(node, *node)
    if len(places) != 1:
        yield Problem(
            location.field(), "must have exactly one destination", f"it has {len(places) or 'none'}"
        )


@rule("Library")
def one_kind_of_library(node: Node, location: Location) -> Problems:
    """An element of ``libraries`` is exactly one library (reference: "Library")."""
    yield from check_exactly_one(node, location, ("jar", "egg", "whl", "pypi", "maven", "cran"))


@rule("Library", versions=ONLY_2_0)
def zipped_wheels(node: Node, location: Location) -> Problems:
    """Zipped wheels have names that end in ``.wheelhouse.zip`` (reference: "Library", whl)."""
    path = get_string(node, "whl") or ""
    if path.endswith(".zip") and not path.endswith(".wheelhouse.zip"):
        must = "must end in .wheelhouse.zip where it is a zip of wheels"
        yield Problem(location.field("whl"), must, "it ends in another .zip")

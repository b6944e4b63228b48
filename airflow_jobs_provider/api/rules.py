"""What the reference forbids beyond the type of a field, each rule once.

A rule is a small function that gets a part of a payload of a known structure, and where it stands,
and yields the problems it finds. Its first line says what it asks for, and which section of the
reference says so; the docs' table is made from it. A rule looks only at what has the right type:
the rest is told by the types. ``None`` counts as not given, as JSON's null does for the service.

A rule never refuses what a later version of the API allows: the ``tasks`` form, serverless compute,
code from Git, cluster policies, kinds of task, library and storage that are not known here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from airflow_jobs_provider.api import types
from airflow_jobs_provider.api.problems import Problem, field_path, what_it_is
from airflow_jobs_provider.api.structures import nested

__all__ = ["MAX_REQUEST_BYTES", "RULES", "Place", "Rule", "broken_rules"]

Node = Mapping[Any, Any]
Problems = Iterator[Problem]

MAX_REQUEST_BYTES = 10 * 1024 * 1024
MAX_PARAMETER_BYTES = 10_000
MAX_TOKEN_CHARACTERS = 64
MAX_NAME_BYTES = 4096
MAX_TASKS = 100
MAX_CONCURRENT_RUNS = 1000
MAX_CUSTOM_TAGS = 45
MAX_TAG_KEY_CHARACTERS = 512
MAX_TAG_VALUE_CHARACTERS = 256
MAX_DESTINATIONS = 3
MAX_RUNS_ON_A_PAGE = 1000
MAX_INT32 = 2**31 - 1

TASK_KINDS = (
    "notebook_task",
    "spark_jar_task",
    "spark_python_task",
    "spark_submit_task",
    "pipeline_task",
    "run_job_task",
)
_KINDS_ON_A_CLUSTER = frozenset(TASK_KINDS) - {"pipeline_task", "run_job_task"}
PARAMETER_KINDS = ("notebook_params", "jar_params", "python_params", "spark_submit_params")
_SETTINGS = ("JobSettings", "CreateRequest", "RunsSubmitRequest")
_LAUNCHED = (*_SETTINGS, "TaskSettings")
_PARAMETERS = ("RunParameters", "RunNowRequest")


@dataclass(slots=True)
class Place:
    """Where in a payload a part stands.

    :ivar path: how to get there from the top, as names and indices.
    :ivar settings: the settings of the job or run that the part belongs to.
    :ivar partial: whether they change a job's settings, so that nothing need be there.
    :ivar in_tasks: whether the part belongs to one of several ``tasks``.
    """

    path: tuple[str | int, ...] = ()
    settings: Node | None = None
    partial: bool = False
    in_tasks: bool = False

    def below(self, *parts: str | int) -> Place:
        """Return the place of something below."""
        return Place((*self.path, *parts), self.settings, self.partial, self.in_tasks)

    def at(self, *parts: str | int) -> str:
        """Write the path of something below."""
        return field_path((*self.path, *parts))


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, and the structures that it is about.

    :ivar name: the function's name.
    :ivar structures: names of the structures.
    :ivar find: what finds the problems.
    """

    name: str
    structures: tuple[str, ...]
    find: Callable[[Node, Place], Problems]

    @property
    def text(self) -> str:
        """The rule in words, with the reference's section."""
        return " ".join((self.find.__doc__ or "").partition("\n\n")[0].split())


RULES: list[Rule] = []
_BY_STRUCTURE: dict[str, list[Callable[[Node, Place], Problems]]] = {}


def _rule(
    *structures: str,
) -> Callable[[Callable[[Node, Place], Problems]], Callable[[Node, Place], Problems]]:
    def register(
        find: Callable[[Node, Place], Problems],
    ) -> Callable[[Node, Place], Problems]:
        RULES.append(Rule(find.__name__, structures, find))
        for structure in structures:
            _BY_STRUCTURE.setdefault(structure, []).append(find)
        return find

    return register


def broken_rules(node: Node, structure: Any) -> list[Problem]:
    """Return the problems of a payload, all the way down.

    :param node: the payload.
    :param structure: its structure, of :mod:`.types`.
    """
    problems: list[Problem] = []
    _walk(node, structure, Place(), problems)
    return problems


def _walk(node: Node, structure: Any, place: Place, problems: list[Problem]) -> None:
    name = structure.__name__
    if name in _SETTINGS:
        place = replace(place, settings=node)
    elif name == "UpdateRequest":
        place = replace(place, partial=True)
    elif name == "TaskSettings":
        place = replace(place, in_tasks=True)
    for find in _BY_STRUCTURE.get(name, ()):
        problems.extend(find(node, place))
    for field in nested(structure):
        value = node.get(field.name)
        if value is None:
            continue
        if not field.is_list:
            if isinstance(value, Mapping):
                _walk(value, field.structure, place.below(field.name), problems)
        elif isinstance(value, (list, tuple)):
            for index, item in enumerate(value):
                if isinstance(item, Mapping):
                    _walk(item, field.structure, place.below(field.name, index), problems)


# -- reading a part of any type -------------------------------------------------------------------


def _given(node: Node, *names: str) -> list[str]:
    return [name for name in names if node.get(name) is not None]


def _map(node: Node, name: str) -> Node:
    value = node.get(name)
    return value if isinstance(value, Mapping) else {}


def _list(node: Node, name: str) -> list[Any] | tuple[Any, ...]:
    value = node.get(name)
    return value if isinstance(value, (list, tuple)) else ()


def _text(node: Node, name: str) -> str | None:
    value = node.get(name)
    return value if isinstance(value, str) else None


def _number(node: Node, name: str, check: types.Check) -> float | None:
    value = node.get(name)
    return float(value) if value is not None and check.allows(value) else None


_WHOLE = types.IsWhole(-(2**63), 2**63 - 1)


def _whole(node: Node, name: str) -> int | None:
    value = node.get(name)
    return int(value) if value is not None and _WHOLE.allows(value) else None


def _is_true(value: Any) -> bool:
    return value is True or value in ("true", "True")


def _not_ascii(texts: Any) -> str | None:
    """Tell the first character that is not ASCII; None if all are."""
    for text in texts:
        if isinstance(text, str) and not text.isascii():
            position = next(i for i, character in enumerate(text) if not character.isascii())
            return f"it has a U+{ord(text[position]):04X} at character {position + 1}"
    return None


def _ascii_map(node: Node, name: str, place: Place) -> Problems:
    for key, value in _map(node, name).items():
        if found := _not_ascii((key, value)):
            yield Problem(place.at(name, str(key)), "must be ASCII only", found)


def _ascii_list(node: Node, name: str, place: Place) -> Problems:
    for index, item in enumerate(_list(node, name)):
        if found := _not_ascii((item,)):
            yield Problem(place.at(name, index), "must be ASCII only", found)


def _at_most(limit: int, what: str, size: int, place: Place, *parts: str | int) -> Problems:
    if size > limit:
        rule = f"must have at most {limit:,} {what}"
        yield Problem(place.at(*parts), rule, f"it has {size:,}")


def _between(node: Node, name: str, place: Place, low: int, high: int) -> Problems:
    number = _whole(node, name)
    if number is not None and not low <= number <= high:
        bounds = f"at least {low}" if high >= MAX_INT32 else f"from {low} to {high}"
        yield Problem(place.at(name), f"must be {bounds}", f"it is {number}")


def _words(names: Any, last: str = "and") -> str:
    names = list(names)
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}"


def _one_of(node: Node, place: Place, known: tuple[str, ...]) -> Problems:
    """Exactly one of some fields; a field that is not known here counts as one, too."""
    given = _given(node, *known)
    if len(given) > 1:
        yield Problem(
            _words(place.at(name) for name in given),
            "exclude each other",
            f"{len(given)} of them are given",
        )
    elif not given and not _given(node, *(set(node) - set(known))):
        yield Problem(
            place.at() or _words(known, "or"),
            f"must have one of {_words(known, 'or')}",
            "it has none of them",
        )


# -- the request ----------------------------------------------------------------------------------


def request_size(payload: Node, text: str) -> Problems:
    """A request is at most 10 MB large (reference: "Jobs API 2.0")."""
    size = len(text)  # ASCII: a character is a byte
    if size > MAX_REQUEST_BYTES:
        largest = max(payload, key=lambda name: len(json.dumps(payload[name])))
        yield Problem(
            "the request",
            f"must have at most {MAX_REQUEST_BYTES:,} bytes as JSON",
            f"it has {size:,}, most of them in {largest}",
        )


@_rule("RunNowRequest", "RunsSubmitRequest")
def idempotency_token(node: Node, place: Place) -> Problems:
    """An idempotency token has at most 64 characters (reference: "Run now", "Runs submit")."""
    token = _text(node, "idempotency_token") or ""
    yield from _at_most(MAX_TOKEN_CHARACTERS, "characters", len(token), place, "idempotency_token")


@_rule(*_SETTINGS)
def name_size(node: Node, place: Place) -> Problems:
    """A run's name, which may be its job's, has at most 4096 bytes (reference: "Run", run_name)."""
    for name in ("run_name", "name"):
        size = len((_text(node, name) or "").encode(errors="replace"))
        yield from _at_most(MAX_NAME_BYTES, "bytes in UTF-8", size, place, name)


# -- the task and what it runs on -----------------------------------------------------------------


@_rule(*_LAUNCHED)
def one_task(node: Node, place: Place) -> Problems:
    """Exactly one kind of task is given, or several ``tasks`` (reference: "JobTask")."""
    kinds = [name for name in node if str(name).endswith("_task") and node[name] is not None]
    if _list(node, "tasks"):
        kinds.append("tasks")
    if len(kinds) > 1:
        yield Problem(
            _words(place.at(kind) for kind in kinds),
            "exclude each other",
            f"{len(kinds)} of them are given",
        )
    elif not kinds and not place.partial:
        here = place.at()
        yield Problem(
            f"{here}{'.' if here else ''}{TASK_KINDS[0]} (or another task)",
            f"must be given: exactly one of {_words(TASK_KINDS, 'or')}",
            "none is given",
        )


@_rule(*_SETTINGS)
def number_of_tasks(node: Node, place: Place) -> Problems:
    """A job has at most 100 tasks (reference: "Run now", "Runs submit")."""
    yield from _at_most(MAX_TASKS, "elements", len(_list(node, "tasks")), place, "tasks")


@_rule(*_LAUNCHED)
def one_cluster(node: Node, place: Place) -> Problems:
    """``existing_cluster_id`` and ``new_cluster`` exclude each other (reference: "ClusterSpec")."""
    given = _given(node, "existing_cluster_id", "new_cluster")
    if len(given) > 1:
        yield Problem(
            _words(place.at(name) for name in given), "exclude each other", "both are given"
        )


# What says in a later version that a task runs on compute named elsewhere.
_COMPUTE_ELSEWHERE = ("job_cluster_key", "environment_key", "environments", "compute")


@_rule(*_LAUNCHED)
def some_cluster(node: Node, place: Place) -> Problems:
    """A notebook, JAR, Python or spark-submit task needs ``existing_cluster_id`` or ``new_cluster``
    (reference: "Create", "Runs submit", "ClusterSpec").

    Not a pipeline or another job; nor what a later version runs on serverless compute: a task with
    an environment, and a notebook among several tasks.
    """
    if place.partial or _list(node, "tasks"):
        return
    kinds = [kind for kind in _given(node, *TASK_KINDS) if kind in _KINDS_ON_A_CLUSTER]
    if not kinds or (place.in_tasks and kinds == ["notebook_task"]):
        return
    if not _given(node, "existing_cluster_id", "new_cluster", *_COMPUTE_ELSEWHERE):
        field = _words((place.at("existing_cluster_id"), place.at("new_cluster")), "or")
        yield Problem(field, f"must be given for a {kinds[0]}", "neither is")


@_rule("NotebookTask")
def absolute_notebook_path(node: Node, place: Place) -> Problems:
    """A notebook's path begins with a slash (reference: "NotebookTask"), unless it is in Git."""
    path = _text(node, "notebook_path")
    source = str(node.get("source") or "").upper()
    in_git = source == "GIT" or (not source and (place.settings or {}).get("git_source"))
    if path is not None and not path.startswith("/") and not in_git:
        beginning = repr(path[:1]) if path else "nothing: it is empty"
        yield Problem(
            place.at("notebook_path"),
            "must be an absolute path that begins with a slash",
            f"it begins with {beginning}",
        )


@_rule(*_LAUNCHED)
def spark_submit_on_new_cluster(node: Node, place: Place) -> Problems:
    """A spark-submit task runs on a new cluster only (reference: "SparkSubmitTask")."""
    if len(_given(node, "spark_submit_task", "existing_cluster_id")) == 2:
        yield Problem(
            place.at("existing_cluster_id"),
            "is not possible with spark_submit_task, which runs on a new_cluster only",
            "both are given",
        )


@_rule(*_LAUNCHED)
def spark_submit_without_libraries(node: Node, place: Place) -> Problems:
    """A spark-submit task takes no ``libraries`` (reference: "SparkSubmitTask")."""
    if not _given(node, "spark_submit_task"):
        return
    for path, holder in (((), node), (("new_cluster",), _map(node, "new_cluster"))):
        if _list(holder, "libraries"):
            yield Problem(
                place.at(*path, "libraries"),
                "is not supported with spark_submit_task, whose parameters take --jars and "
                "--py-files",
                what_it_is(holder["libraries"]),
            )


@_rule(*_LAUNCHED)
def spark_submit_without_spark_conf(node: Node, place: Place) -> Problems:
    """A spark-submit task takes no ``spark_conf`` (reference: "SparkSubmitTask")."""
    conf = _map(_map(node, "new_cluster"), "spark_conf")
    if conf and _given(node, "spark_submit_task"):
        yield Problem(
            place.at("new_cluster", "spark_conf"),
            "is not supported with spark_submit_task, whose parameters take --conf",
            what_it_is(conf),
        )


_SET_BY_SERVICE = ("--master", "--deploy-mode", "--executor-cores")
_WITHOUT_VALUE = frozenset(
    {"--verbose", "-v", "--supervise", "--help", "-h", "--version", "--usage-error"}
)


def _forbidden_options(node: Node, name: str, place: Place) -> Problems:
    """The options before the program's own file; what comes after is the program's."""
    index, words = 0, _list(node, name)
    while index < len(words) and isinstance(words[index], str) and words[index].startswith("-"):
        option, assigned, _ = words[index].partition("=")
        if option in _SET_BY_SERVICE:
            yield Problem(
                place.at(name, index),
                f"must not be {option}, which the service sets itself",
                f"it is {option}",
            )
        index += 1 if assigned or option in _WITHOUT_VALUE else 2


@_rule("SparkSubmitTask")
def spark_submit_options(node: Node, place: Place) -> Problems:
    """A spark-submit task's parameters set neither ``--master`` nor ``--deploy-mode`` nor
    ``--executor-cores`` (reference: "SparkSubmitTask").
    """
    yield from _forbidden_options(node, "parameters", place)


# -- parameters -----------------------------------------------------------------------------------


@_rule(*_PARAMETERS)
def one_kind_of_parameters(node: Node, place: Place) -> Problems:
    """Only one kind of parameters is given; above all, ``notebook_params`` and ``jar_params``
    exclude each other (reference: "RunParameters", "Run now").
    """
    given = [name for name in PARAMETER_KINDS if node.get(name)]
    if len(given) > 1:
        yield Problem(
            _words(place.at(name) for name in given),
            "exclude each other",
            f"{len(given)} of them are given",
        )


@_rule(*_PARAMETERS)
def parameters_size(node: Node, place: Place) -> Problems:
    """Each kind of parameters, with its name, has at most 10,000 bytes as JSON
    (reference: "RunParameters", "Run now").
    """
    for name in PARAMETER_KINDS:
        if node.get(name):
            try:
                text = json.dumps({name: node[name]}, ensure_ascii=False, separators=(",", ":"))
            except (TypeError, ValueError):
                continue
            size = len(text.encode(errors="replace"))
            yield from _at_most(MAX_PARAMETER_BYTES, "bytes as JSON", size, place, name)


@_rule(*_PARAMETERS)
def ascii_parameters(node: Node, place: Place) -> Problems:
    """``notebook_params``, ``python_params`` and ``spark_submit_params`` are ASCII only
    (reference: "ParamPair", "RunParameters").
    """
    yield from _ascii_map(node, "notebook_params", place)
    for name in ("python_params", "spark_submit_params"):
        yield from _ascii_list(node, name, place)


@_rule("NotebookTask")
def ascii_base_parameters(node: Node, place: Place) -> Problems:
    """A notebook's ``base_parameters`` are ASCII only (reference: "ParamPair")."""
    yield from _ascii_map(node, "base_parameters", place)


@_rule(*_PARAMETERS)
def spark_submit_params_options(node: Node, place: Place) -> Problems:
    """``spark_submit_params`` set neither ``--master`` nor ``--deploy-mode`` nor
    ``--executor-cores`` (reference: "SparkSubmitTask").
    """
    yield from _forbidden_options(node, "spark_submit_params", place)


# -- clusters -------------------------------------------------------------------------------------

# What says in a later version that the rest of a cluster is settled elsewhere.
_SETTLED_ELSEWHERE = ("policy_id", "is_single_node", "kind")


@_rule("AutoScale")
def autoscale_bounds(node: Node, place: Place) -> Problems:
    """``max_workers`` is strictly greater than ``min_workers`` (reference: "AutoScale")."""
    least, most = _whole(node, "min_workers"), _whole(node, "max_workers")
    if least is not None and most is not None and least >= most:
        yield Problem(
            place.at("max_workers"),
            "must be strictly greater than min_workers",
            f"it is {most}, and min_workers is {least}",
        )


@_rule("NewCluster")
def workers(node: Node, place: Place) -> Problems:
    """A new cluster has either ``num_workers`` or ``autoscale`` (reference: "NewCluster")."""
    given = _given(node, "num_workers", "autoscale")
    if len(given) > 1:
        yield Problem(
            _words(place.at(name) for name in given), "exclude each other", "both are given"
        )
    elif not given and not _given(node, *_SETTLED_ELSEWHERE):
        field = _words((place.at("num_workers"), place.at("autoscale")), "or")
        yield Problem(field, "must be given", "neither is")


@_rule("NewCluster")
def spark_version(node: Node, place: Place) -> Problems:
    """A new cluster has a ``spark_version`` (reference: "NewCluster"); a policy may set it."""
    if not _given(node, "spark_version", "policy_id"):
        yield Problem(place.at("spark_version"), "must be given", "it is missing")


@_rule("NewCluster")
def node_type(node: Node, place: Place) -> Problems:
    """A new cluster has a ``node_type_id``, an ``instance_pool_id``, or a policy that sets one
    (reference: "NewCluster").
    """
    if not _given(node, "node_type_id", "instance_pool_id", *_SETTLED_ELSEWHERE):
        field = _words((place.at("node_type_id"), place.at("instance_pool_id")), "or")
        yield Problem(field, "must be given, or a cluster policy's policy_id", "none is")


@_rule("NewCluster")
def driver_pool(node: Node, place: Place) -> Problems:
    """``driver_instance_pool_id`` comes with ``instance_pool_id`` (reference: "NewCluster")."""
    if _given(node, "driver_instance_pool_id") and not _given(
        node, "instance_pool_id", *_SETTLED_ELSEWHERE
    ):
        yield Problem(
            place.at("instance_pool_id"),
            "must be given with driver_instance_pool_id",
            "it is missing",
        )


@_rule("NewCluster")
def number_of_tags(node: Node, place: Place) -> Problems:
    """A new cluster has at most 45 custom tags (reference: "NewCluster", custom_tags)."""
    size = len(_map(node, "custom_tags"))
    yield from _at_most(MAX_CUSTOM_TAGS, "tags", size, place, "custom_tags")


_NOT_IN_TAG_KEY = re.compile(r"[<>%*&+?\\/]")
_RESERVED_TAG = re.compile(r"azure|microsoft|windows", re.IGNORECASE)


@_rule("NewCluster")
def tag_keys(node: Node, place: Place) -> Problems:
    r"""A custom tag's key has 1 to 512 characters, none of ``<>%*&+?\/``, and does not begin with
    ``azure``, ``microsoft`` or ``windows`` (reference: "ClusterTag").
    """
    for key in _map(node, "custom_tags"):
        rule = found = ""
        if not isinstance(key, str):
            continue
        if not 1 <= len(key) <= MAX_TAG_KEY_CHARACTERS:
            rule = f"must have a key of 1 to {MAX_TAG_KEY_CHARACTERS} characters"
            found = f"it has {len(key)}"
        elif forbidden := _NOT_IN_TAG_KEY.search(key):
            rule = "must have a key without any of the characters <>%*&+?\\/"
            found = f"it has a {forbidden.group()}"
        elif reserved := _RESERVED_TAG.match(key):
            rule = "must have a key that does not begin with azure, microsoft or windows"
            found = f"it begins with {reserved.group()}"
        if rule:
            yield Problem(place.at("custom_tags", key[:MAX_TAG_KEY_CHARACTERS]), rule, found)


@_rule("NewCluster")
def tag_values(node: Node, place: Place) -> Problems:
    """A custom tag's value has at most 256 characters (reference: "ClusterTag")."""
    for key, value in _map(node, "custom_tags").items():
        if isinstance(value, str) and len(value) > MAX_TAG_VALUE_CHARACTERS:
            yield from _at_most(
                MAX_TAG_VALUE_CHARACTERS, "characters", len(value), place, "custom_tags", str(key)
            )


@_rule("NewCluster")
def ascii_environment(node: Node, place: Place) -> Problems:
    """A new cluster's ``spark_env_vars`` are ASCII only (reference: "SparkEnvPair")."""
    yield from _ascii_map(node, "spark_env_vars", place)


@_rule("AzureAttributes")
def first_on_demand(node: Node, place: Place) -> Problems:
    """``first_on_demand`` is greater than 0 (reference: "AzureAttributes")."""
    yield from _between(node, "first_on_demand", place, 1, MAX_INT32)


@_rule("AzureAttributes")
def spot_price(node: Node, place: Place) -> Problems:
    """``spot_bid_max_price`` is a price, or -1 for no limit (reference: "AzureAttributes")."""
    price = _number(node, "spot_bid_max_price", types.IsNumber())
    if price is not None and price != -1 and not price > 0:
        yield Problem(
            place.at("spot_bid_max_price"), "must be -1 or greater than 0", f"it is {price:g}"
        )


@_rule("InitScriptInfo")
def one_script_place(node: Node, place: Place) -> Problems:
    """An init script has exactly one place (reference: "InitScriptInfo")."""
    yield from _one_of(node, place, ("workspace", "dbfs", "abfss", "file"))


@_rule("ClusterLogConf")
def one_log_place(node: Node, place: Place) -> Problems:
    """A cluster's logs go to exactly one destination (reference: "NewCluster", cluster_log_conf;
    "ClusterLogConf").
    """
    places = _given(node, *node)
    if len(places) != 1:
        yield Problem(
            place.at(), "must have exactly one destination", f"it has {len(places) or 'none'}"
        )


@_rule("Library")
def one_kind_of_library(node: Node, place: Place) -> Problems:
    """An element of ``libraries`` is exactly one library (reference: "Library")."""
    yield from _one_of(node, place, ("jar", "egg", "whl", "pypi", "maven", "cran"))


@_rule("Library")
def zipped_wheels(node: Node, place: Place) -> Problems:
    """Zipped wheels have names that end in ``.wheelhouse.zip`` (reference: "Library", whl)."""
    path = _text(node, "whl") or ""
    if path.endswith(".zip") and not path.endswith(".wheelhouse.zip"):
        rule = "must end in .wheelhouse.zip where it is a zip of wheels"
        yield Problem(place.at("whl"), rule, "it ends in another .zip")


# -- jobs -----------------------------------------------------------------------------------------


@_rule("JobSettings", "CreateRequest", "TaskSettings")
def max_retries(node: Node, place: Place) -> Problems:
    """``max_retries`` is -1 (without end), 0 (never) or more (reference: "Create")."""
    yield from _between(node, "max_retries", place, -1, MAX_INT32)


@_rule("JobSettings", "CreateRequest")
def max_concurrent_runs(node: Node, place: Place) -> Problems:
    """``max_concurrent_runs`` is 0 to 1000 (reference: "Create")."""
    yield from _between(node, "max_concurrent_runs", place, 0, MAX_CONCURRENT_RUNS)


@_rule("CronSchedule")
def quartz_fields(node: Node, place: Place) -> Problems:
    """A schedule is in Quartz syntax, which begins with seconds: 6 fields, or 7 with the year
    (reference: "CronSchedule").
    """
    expression = _text(node, "quartz_cron_expression")
    if expression is not None and len(expression.split()) not in (6, 7):
        yield Problem(
            place.at("quartz_cron_expression"),
            "must have the 6 fields of Quartz (seconds first), or 7 with the year",
            f"it has {len(expression.split())}",
        )


@_rule("JobsHealthRule")
def health_metric(node: Node, place: Place) -> Problems:
    """A health rule's metric is ``RUN_DURATION_SECONDS`` (reference: "JobsHealthRule"), or one of a
    streaming backlog in later versions.
    """
    metric = _text(node, "metric")
    if (
        metric is not None
        and metric != "RUN_DURATION_SECONDS"
        and not metric.startswith("STREAMING_BACKLOG_")
    ):
        yield Problem(place.at("metric"), "must be RUN_DURATION_SECONDS", what_it_is(metric))


@_rule("JobEmailNotifications")
def ascii_addresses(node: Node, place: Place) -> Problems:
    """The addresses of ``on_start``, ``on_success`` and ``on_failure`` are ASCII only
    (reference: "JobEmailNotifications").
    """
    for name in ("on_start", "on_success", "on_failure"):
        yield from _ascii_list(node, name, place)


@_rule("WebhookNotifications")
def number_of_destinations(node: Node, place: Place) -> Problems:
    """Each event is told to at most 3 destinations (reference: "WebhookNotifications")."""
    for name in ("on_start", "on_success", "on_failure", "on_duration_warning_threshold_exceeded"):
        size = len(_list(node, name))
        yield from _at_most(MAX_DESTINATIONS, "destinations", size, place, name)


_REMOVABLE = re.compile(r"\w+|(tasks|job_clusters)/.+", re.DOTALL)


@_rule("UpdateRequest")
def fields_to_remove(node: Node, place: Place) -> Problems:
    """``fields_to_remove`` names top-level fields, or entries of ``tasks`` and ``job_clusters``
    (reference: "Update").
    """
    for index, name in enumerate(_list(node, "fields_to_remove")):
        if isinstance(name, str) and not _REMOVABLE.fullmatch(name):
            yield Problem(
                place.at("fields_to_remove", index),
                "must be a top-level field, tasks/<task_key> or job_clusters/<job_cluster_key>",
                what_it_is(name),
            )


# -- lists ----------------------------------------------------------------------------------------


@_rule("RunsListRequest")
def active_or_completed(node: Node, place: Place) -> Problems:
    """``active_only`` and ``completed_only`` are not both true (reference: "Runs list")."""
    if _is_true(node.get("active_only")) and _is_true(node.get("completed_only")):
        field = _words((place.at("active_only"), place.at("completed_only")))
        yield Problem(field, "cannot both be true", "both are")


@_rule("RunsListRequest")
def runs_on_a_page(node: Node, place: Place) -> Problems:
    """``limit`` is 0 (for the maximum) to 1000 (reference: "Runs list")."""
    yield from _between(node, "limit", place, 0, MAX_RUNS_ON_A_PAGE)


@_rule("RunsListRequest")
def runs_to_skip(node: Node, place: Place) -> Problems:
    """``offset`` counts from the most recent run, so it is 0 or more (reference: "Runs list")."""
    yield from _between(node, "offset", place, 0, MAX_INT32)

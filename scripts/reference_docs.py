"""Write docs/reference.md (endpoints, structures, fields, rules) and the pages of docs/reference/.

    python -m scripts.reference_docs

A test fails when a page is not what this writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from airflow_jobs_provider.api.schema.introspection import (
    Field,
    enum_values,
    fields_of,
    is_open_enum,
    named_types,
    structures,
)
from airflow_jobs_provider.api.schema.request_types import ENDPOINTS
from airflow_jobs_provider.api.schema.response_types import RESPONSES
from airflow_jobs_provider.api.schema.rules import MAX_REQUEST_BYTES, RULES, Rule
from airflow_jobs_provider.api.versions import API_VERSIONS, OLDEST_API_VERSION
from scripts import class_pages, fact_pages
from scripts.fact_pages import hook_method_of

DOCS = Path(__file__).parents[1] / "docs"

HEAD = """\
# Requests, fields and validation rules

<!-- Written by scripts/reference_docs.py; change that, or the code it reads. -->

This page lists every endpoint, structure and field of the Jobs API 2.0, as
`airflow_jobs_provider.api.schema.types` defines them, and every rule that a request is validated
against before it is sent. Names, types and section titles are those of the API's reference.

A payload can be written as plain dicts. With a type the editor completes its fields, and a type
checker finds a wrong field:

```python
from airflow_jobs_provider.api.schema.types import NewCluster

SMALL: NewCluster = {
    "spark_version": "15.4.x-scala2.12",
    "node_type_id": "Standard_D3_v2",
    "num_workers": 1,
}
```

**When a request is validated.**

- In an operator's constructor, if the request has no template, no other task's output and no mapped
  value. An error in it is an import error of the DAG.
- Otherwise after rendering, before anything is sent.
- The hook validates each request before it sends it.

All problems of a request are reported together. Each is one sentence with the field, the rule and
what was found. Values are reported by type and size only, because they may be secret.

**What is not validated.** Fields, endpoints, kinds of task, of library and of storage that are not
listed here are sent unchanged. So a new field of the API can be used at once; the request is then
sent to a later version. A null counts as not given. Whole numbers, and true and false, may be given
as text, as a template renders them. Numbers and booleans in parameters, tags, Spark settings and
environment variables are sent as text. `validate=False` turns validation off for one operator or
hook.

Outside Airflow, `airflow_jobs_provider.api.schema.validation.validate("runs/submit", request)`
validates a request. It raises `airflow_jobs_provider.api.errors.InvalidRequestError`.
"""

RULES_HEAD = f"""\
## Rules

These rules apply in addition to the type of each field. A request has at most
{MAX_REQUEST_BYTES:,} bytes as JSON (reference: "Jobs API 2.0").

A rule applies to requests that are sent to its versions of the API. A rule of the 2.0 reference
that the documentation of the later versions does not have applies to 2.0 only. A request that
breaks it is sent to 2.2, unless the connection's `api_version` is lower (see
[connections.md](connections.md#api-version)). Azure's rules apply if the host of the connection is
a workspace on Azure.

| Rule | Versions | Applies to |
| --- | --- | --- |
"""


def page() -> str:
    """Return the whole page."""
    known = structures()
    bodies = {id(e.request) for e in ENDPOINTS.values()}
    bodies |= {id(response) for response in RESPONSES.values()}
    parts = [HEAD, "## Endpoints\n", *_endpoints(), ""]
    parts += [RULES_HEAD + "\n".join(_rules()), ""]
    parts += ["## Structures\n"]
    for name, structure in sorted(known.items()):
        if id(structure) not in bodies:
            parts += _structure(name, structure)
    parts += ["## Maps and enumerations\n", *_named(), ""]
    parts += ["## Requests and responses\n"]
    for endpoint in ENDPOINTS.values():
        for structure in (endpoint.request, RESPONSES.get(endpoint.path)):
            if structure is not None:
                parts += _structure(structure.__name__, structure)
    return "\n".join(parts).rstrip() + "\n"


def _endpoints() -> Iterator[str]:
    methods = hook_method_of()
    yield "| Section | Call | Hook method | Request | Response |"
    yield "| --- | --- | --- | --- | --- |"
    for path, endpoint in ENDPOINTS.items():
        response = RESPONSES.get(path)
        gives = _link(response.__name__) if response is not None else "nothing"
        takes = _link(endpoint.request.__name__)
        call = f"`{endpoint.verb} {path}`"
        yield f"| {endpoint.section} | {call} | {_hook_link(methods[path])} | {takes} | {gives} |"


def _hook_link(method: str) -> str:
    return f"[`{method}`](reference/hook.md#{method})"


def _rules() -> Iterator[str]:
    for rule in RULES:
        where = ", ".join(_link(name) for name in rule.structures)
        text = rule.text.replace("|", "\\|").replace("``", "`")
        yield f"| {text} | {_versions(rule)} | {where} |"


def _versions(rule: Rule) -> str:
    versions = "all" if rule.versions == API_VERSIONS else ", ".join(rule.versions)
    return f"{versions}, on Azure" if rule.only_azure else versions


def _structure(name: str, structure: Any) -> Iterator[str]:
    words = (structure.__doc__ or "").partition("\n\n")[0].replace("\n    ", " ")
    yield f"### {name}\n"
    yield f"{words}\n"
    fields = fields_of(structure)
    if not fields:
        return
    yield "| Field | Type | Notes |"
    yield "| --- | --- | --- |"
    for field in fields.values():
        yield f"| `{field.name}` | {_type(field)} | {_marks(field)} |"
    yield ""


def _marks(field: Field) -> str:
    is_later = field.is_later and field.min_version > OLDEST_API_VERSION
    marks = (
        ("required", field.required),
        ("later versions", is_later),
        ("not in the reference", field.is_later and not is_later),
    )
    return ", ".join(word for word, is_so in marks if is_so)


def _type(field: Field) -> str:
    before, of, name = field.type_name.rpartition("array of ")
    is_plain = name.isupper() and name not in structures()
    return f"{before}{of}{name if is_plain else _link(name)}"


def _named() -> Iterator[str]:
    yield "| Name | Content |"
    yield "| --- | --- |"
    for name, hint in sorted(named_types().items()):
        if values := enum_values(hint):
            words = ", ".join(f"`{value}`" for value in values)
            words += "; others may come" if is_open_enum(hint) else ""
        else:
            words = "map of text to text"
            if name == "SparkConfPair":
                words = "map of text to text, numbers, and true or false"
        yield f'| <a id="{name.lower()}"></a>{name} | {words} |'


def _link(name: str) -> str:
    return f"[{name}](#{name.lower()})"


def all_pages() -> dict[Path, str]:
    """Return every generated page with its content."""
    below = {**class_pages.pages(), **fact_pages.pages()}
    return {DOCS / "reference.md": page(), **{DOCS / name: text for name, text in below.items()}}


if __name__ == "__main__":
    for path, content in all_pages().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)

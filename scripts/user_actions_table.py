"""Print tables of docs/guarantees.md from what the tests in a whole Airflow recorded.

python -m scripts.user_actions_table 2.11=user-actions-2.11.xml 3.3=user-actions-3.3.xml

Each file comes from pytest with ``-o junit_family=xunit1 --junitxml=FILE``.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET

MODULES = (
    ".test_launches_in_triggerer",
    ".test_many_launches_in_triggerer",
    ".test_user_actions",
    ".test_refused_deferrals",
    ".test_whole_processes",
    ".test_workflow_user_actions",
    ".test_workflow_kills",
    ".test_workflow_definitions",
    ".test_groups_in_triggerer",
)
# DAGs whose task needs no worker.
WORKERLESS = "workerless"
# Of a request at which a process is killed.
MOMENTS = ("received", "handled")


def scenario(test: str) -> str:
    """Turn a test's name into words."""
    name, _, parameters = test.removeprefix("test_").partition("[")
    words = name.replace("_", " ")
    given = [part for part in parameters.rstrip("]").split("-") if part]
    others = [part for part in given if not part.startswith(WORKERLESS)]
    if len(others) < len(given):
        return f"{WORKERLESS}: {', '.join([words, *others])}"
    if len(given) > 1:
        moments = [part for part in given[1:] if part in MOMENTS]
        return f"{words}: {', '.join([given[0], *moments])}"
    kind = given[0].partition("_")[0] if given else ""
    return f"{kind}: {words}" if kind and kind not in words and kind != "really" else words


def outcome(case: ET.Element) -> str:
    """Return "runs, cancels" of a test, or what else became of it.

    For a workflow group it is "runs, repairs, cancels".
    """
    for tag, word in (("failure", "FAILED"), ("error", "FAILED"), ("skipped", "not possible")):
        if case.find(tag) is not None:
            return word
    seen = {found.attrib["name"]: found.attrib["value"] for found in case.iter("property")}
    counts = [seen[name] for name in ("runs", "repairs", "cancels") if name in seen]
    return ", ".join(counts) or "holds"


def main(*files: str) -> None:
    """Print one row for each scenario, one column for each file."""
    columns = dict(file.split("=", 1) for file in files)
    rows: dict[str, dict[str, str]] = {}
    for version, file in columns.items():
        for case in ET.parse(file).iter("testcase"):  # our own file
            if not case.attrib["classname"].endswith(MODULES):
                continue
            row = rows.setdefault(scenario(case.attrib["name"]), {})
            row[version] = outcome(case)
    print("| what happens |", " | ".join(f"Airflow {version}" for version in columns), "|")
    print("| --- |", " | ".join("---" for _ in columns), "|")
    for name, row in rows.items():
        print(f"| {name} |", " | ".join(row.get(version, "") for version in columns), "|")


if __name__ == "__main__":
    main(*sys.argv[1:])

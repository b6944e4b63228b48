"""The connection form, and the hooks of the connection types, as each Airflow finds them."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from airflow_jobs_provider import get_provider_info
from airflow_jobs_provider.hooks.form import EXTRA_FIELDS, PLACEHOLDERS

TYPES = ("databricks", "databricks_jobs")
OFFICIAL = "apache_airflow_providers_databricks-7.23.0.dist-info"


def connection_types() -> dict[str, Any]:
    """Return the connection types that the provider's info has, by name."""
    types: Any = get_provider_info()["connection-types"]
    return {one["connection-type"]: one for one in types}


@pytest.fixture
def official_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Python find the official provider's distribution."""
    folder = tmp_path / OFFICIAL
    folder.mkdir()
    folder.joinpath("METADATA").write_text(
        "Metadata-Version: 2.1\nName: apache-airflow-providers-databricks\nVersion: 7.23.0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


def test_both_connection_types_have_a_hook() -> None:
    """Without the official provider; each class says the same type as the info does."""
    types = connection_types()
    assert set(types) == set(TYPES)
    for name, one in types.items():
        module, _, class_name = one["hook-class-name"].rpartition(".")
        hook = getattr(importlib.import_module(module), class_name)
        assert (hook.conn_type, hook.hook_name) == (name, one["hook-name"])
        # Airflow looks for these in the class itself.
        assert {"get_connection_form_widgets", "get_ui_field_behaviour"} <= set(vars(hook))


@pytest.mark.usefixtures("official_is_installed")
def test_the_official_provider_keeps_its_connection_type() -> None:
    """Two providers with one type would be a warning at each start, and the wrong hook."""
    assert set(connection_types()) == {"databricks_jobs"}


def test_placeholders_are_of_fields_that_exist() -> None:
    """Each placeholder belongs to a standard field or to one of the extra's."""
    assert set(PLACEHOLDERS) <= {*EXTRA_FIELDS, "host", "login", "password"}


@pytest.fixture(scope="module")
def forms() -> dict[str, Any]:
    """What this Airflow shows for each type, in a process of its own."""
    code = FORM_BY_API if importlib.util.find_spec("airflow.api_fastapi") else FORM_BY_MANAGER
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", REGISTER + code],
        check=True,
        capture_output=True,
        text=True,
    )
    return dict(json.loads(result.stdout.splitlines()[-1]))


@pytest.mark.skipif(
    version("apache-airflow").startswith(("3.0.", "3.1."))
    and importlib.util.find_spec("flask_appbuilder") is None,
    reason="Airflow 3.0 and 3.1 shape no form, nobody's, where Flask-AppBuilder is not installed",
)
@pytest.mark.parametrize("conn_type", TYPES)
def test_airflow_shows_the_form(conn_type: str, forms: dict[str, Any]) -> None:
    """Standard fields in the workspace's words, the extra's fields beside them, on each Airflow."""
    form = forms[conn_type]
    is_secret = {name: kind == "password" for name, (kind, *_) in EXTRA_FIELDS.items()}
    assert form["fields"] == is_secret
    assert is_secret["token"]
    assert not is_secret["service_principal_oauth"]
    assert form["host"] == "Workspace address"
    assert form["placeholder"].startswith("https://")
    assert form["schema_hidden"] is True


# The package may be installed or not where the tests run; Airflow is told of it all the same.
REGISTER = """
import json
from airflow.providers_manager import ProviderInfo, ProvidersManager
import inspect
import airflow_jobs_provider as package
info = package.get_provider_info()
facts = {"version": package.__version__, "data": info, "package_or_source": "package"}
wanted = inspect.signature(ProviderInfo).parameters
original = ProvidersManager.initialize_providers_list
def registering(self, *args, **kwargs):
    original(self, *args, **kwargs)
    self._provider_dict[info["package-name"]] = ProviderInfo(
        **{name: value for name, value in facts.items() if name in wanted})
ProvidersManager.initialize_providers_list = registering
"""
FORM_BY_API = """
from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService
print(json.dumps({form.connection_type: {
    "fields": {name: f["schema"].get("format") == "password"
               for name, f in form.extra_fields.items()},
    "host": form.standard_fields.host.title,
    "placeholder": form.standard_fields.host.placeholder,
    "schema_hidden": form.standard_fields.url_schema.hidden}
    for form in HookMetaService.hook_meta_data() if form.connection_type.startswith("databricks")}))
"""
FORM_BY_MANAGER = """
manager = ProvidersManager()
behaviours = manager.field_behaviours
print(json.dumps({name: {
    "fields": {w.field_name: w.is_sensitive
               for field, w in manager.connection_form_widgets.items()
               if field.startswith(f"extra__{name}__")},
    "host": behaviours[name]["relabeling"]["host"],
    "placeholder": behaviours[name]["placeholders"]["host"],
    "schema_hidden": "schema" in behaviours[name]["hidden_fields"]}
    for name in behaviours if name.startswith("databricks")}))
"""

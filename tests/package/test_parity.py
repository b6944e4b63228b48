"""The blocking and the asyncio interface stay equal: the methods of the hook, the two clients."""

from __future__ import annotations

import inspect
from functools import cached_property
from typing import Any

import pytest

from airflow_jobs_provider.api.client import AsyncJobsClient, JobsClient
from airflow_jobs_provider.hooks.base import DatabricksJobsBaseHook
from airflow_jobs_provider.hooks.endpoints import DatabricksJobsEndpointsHook
from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook

# Methods of the hook that Airflow calls, and those about the clients themselves.
HOOK_ONLY_BLOCKING = {
    "close",
    "get_conn",
    "get_connection_form_widgets",
    "get_ui_field_behaviour",
    "retry_policy",
    "test_connection",
}
# What only one of the clients can do; see their docstrings.
CLIENT_ONLY_BLOCKING = {"clone"}
CLIENT_ARGUMENTS_OF_ONE = {
    "on_attempt",  # for the launch of a worker
    "on_event",
    "before_step",
    "wait",
    "rate_limit",  # for the poller of a triggerer
}


def methods(*classes: type) -> dict[str, Any]:
    """Return the public methods that these classes define themselves, by name."""
    return {
        name: getattr(classes[0], name)
        for one in classes
        for name, value in vars(one).items()
        if not name.startswith("_")
        and not isinstance(value, cached_property)
        and inspect.isroutine(inspect.unwrap(getattr(one, name)))
    }


HOOK = {
    name: method
    for name, method in methods(
        DatabricksJobsHook, DatabricksJobsEndpointsHook, DatabricksJobsBaseHook
    ).items()
    if name != "async_client" and name not in HOOK_ONLY_BLOCKING
}
BLOCKING = {name for name in HOOK if not name.startswith("a_")}


def test_each_method_of_the_hook_has_both_forms() -> None:
    """No method is missing in one of the two forms."""
    assert {f"a_{name}" for name in BLOCKING} == HOOK.keys() - BLOCKING
    assert len(BLOCKING) >= 30


@pytest.mark.parametrize("name", sorted(BLOCKING))
def test_both_forms_of_a_method_have_one_signature(name: str) -> None:
    """The names, defaults and types of the parameters are equal, and so is what they return."""
    blocking = inspect.signature(HOOK[name])
    asynchronous = inspect.signature(HOOK[f"a_{name}"])
    assert list(blocking.parameters.values()) == list(asynchronous.parameters.values())
    returned = str(asynchronous.return_annotation).replace("AsyncIterator", "Iterator")
    assert returned == str(blocking.return_annotation)


@pytest.mark.parametrize("name", sorted(BLOCKING))
def test_both_forms_of_a_method_have_one_documentation(name: str) -> None:
    """The blocking form is documented with all its parameters; the other one refers to it."""
    doc = inspect.getdoc(HOOK[name]) or ""
    for parameter in list(inspect.signature(HOOK[name]).parameters)[1:]:
        assert f":param {parameter}:" in doc
    assert inspect.getdoc(HOOK[f"a_{name}"]) == f"Do what :meth:`{name}` does, from asyncio."


def test_no_public_method_of_the_hook_hides_its_arguments() -> None:
    """An editor can complete every call: no method takes ``*args`` or ``**kwargs``."""
    for name, method in HOOK.items():
        kinds = {parameter.kind for parameter in inspect.signature(method).parameters.values()}
        assert not kinds & {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}, name


def test_both_clients_have_the_same_methods() -> None:
    """A method of one client is one of the other."""
    blocking, asynchronous = methods(JobsClient), methods(AsyncJobsClient)
    assert blocking.keys() - CLIENT_ONLY_BLOCKING == asynchronous.keys()
    assert {"send", "run", "iterate", "close"} <= asynchronous.keys()


@pytest.mark.parametrize("name", sorted(methods(AsyncJobsClient)))
def test_the_methods_of_both_clients_have_one_signature(name: str) -> None:
    """Parameters and documentation are equal, but for the parameters that one client alone has."""
    forms = [inspect.signature(getattr(client, name)) for client in (JobsClient, AsyncJobsClient)]
    blocking, asynchronous = (
        [one for one in form.parameters.values() if one.name not in CLIENT_ARGUMENTS_OF_ONE]
        for form in forms
    )
    assert blocking == asynchronous
    first_lines = {
        (inspect.getdoc(getattr(client, name)) or "").partition("\n")[0]
        for client in (JobsClient, AsyncJobsClient)
    }
    assert len(first_lines) == 1
    assert first_lines != {""}


def test_both_clients_are_made_in_one_way() -> None:
    """The constructor is that of the common base."""
    assert inspect.signature(JobsClient) == inspect.signature(AsyncJobsClient)

"""What a user may do with a value of the package, such as the state of a run."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import ANY

import pytest

from airflow_jobs_provider.api.auth import Basic, Token
from airflow_jobs_provider.api.auth.transport import Transport
from airflow_jobs_provider.api.proxies import Proxies, Route
from airflow_jobs_provider.api.retry import Backoff, RetryPolicy
from airflow_jobs_provider.api.states import RunState
from airflow_jobs_provider.hooks.connection import WorkspaceAccess
from airflow_jobs_provider.hooks.connection_fields import ConnectionFields

SECRET = "the-secret-of-somebody"
TRANSPORT = Transport("https://w.net", Proxies({"https": f"http://me:{SECRET}@p.corp:1"}))
MAKE: dict[str, Callable[[], Any]] = {
    "RunState": lambda: RunState("TERMINATED", "FAILED", "it broke", None),
    "Token": lambda: Token(SECRET, "the extra"),
    "Basic": lambda: Basic("me", SECRET),
    "Proxies": Proxies,
    "Proxies of a connection": lambda: TRANSPORT.proxies,
    "Route": lambda: Route(f"http://me:{SECRET}@p.corp:1", "p.corp:1", "/ca.pem"),
    "Transport": lambda: TRANSPORT,
    "Transport without proxies": lambda: Transport("https://w.net"),
    "ConnectionFields": lambda: ConnectionFields("c", "me", SECRET, {"token": SECRET}, TRANSPORT),
    "WorkspaceAccess": lambda: WorkspaceAccess("https://w.net", Token(SECRET)),
    "Backoff": lambda: Backoff(1, 2),
}
values = pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)


@values
def test_a_value_can_be_copied_and_compared(make: Callable[[], Any]) -> None:
    """As tests of users do: with another one, a copy, ANY, and something else."""
    value = make()
    assert value == make()
    assert copy.copy(value) == copy.deepcopy(value) == pickle.loads(pickle.dumps(value)) == value
    assert value == ANY
    assert value != "something else"


def test_a_retry_policy_can_be_copied() -> None:
    """Airflow copies operators deeply, with what a subclass keeps in them."""
    policy = RetryPolicy(max_attempts=3)
    assert copy.deepcopy(policy) == policy
    assert pickle.loads(pickle.dumps(policy)).max_attempts == 3


@values
def test_a_value_does_not_change(make: Callable[[], Any]) -> None:
    """It may be shared, and be a key of a dict."""
    value = make()
    name = type(value).__match_args__[0]
    with pytest.raises(AttributeError):
        setattr(value, name, "other")
    with pytest.raises(AttributeError):
        delattr(value, name)
    assert value == make()


def shown(value: object) -> str:
    """Return what a tool shows of a local variable that shows the items of sequences, not a repr.

    Sentry's does. Airflow reports its tasks' errors there, if told to.
    """
    if isinstance(value, Sequence) and not isinstance(value, str):
        return str([shown(item) for item in value])
    if isinstance(value, dict):
        return str({shown(name): shown(item) for name, item in value.items()})
    return repr(value)


@values
def test_no_value_shows_a_secret(make: Callable[[], Any]) -> None:
    """Neither its repr does, nor a tool that looks into sequences."""
    assert SECRET not in shown(make())
    assert SECRET not in repr(make())


def test_equal_values_are_one_key() -> None:
    """The source of a token is for messages only."""
    assert len({RunState("RUNNING"), RunState("RUNNING", None), RunState("PENDING")}) == 2
    assert len({Token("a"), Token("a", "elsewhere"), Token("b")}) == 2
    assert len({Basic("a", "b"), Basic("a", "c")}) == 2


def test_a_run_state_is_shown_with_the_names_of_its_fields() -> None:
    """As a message of a failed assertion shows it."""
    assert repr(RunState("TERMINATED", "FAILED")) == (
        "RunState(life_cycle_state='TERMINATED', result_state='FAILED', state_message='', "
        "user_cancelled_or_timedout=False)"
    )


def test_a_run_state_can_be_matched() -> None:
    """By the order of its fields, or by their names."""
    match RunState("TERMINATED", "FAILED", "it broke"):
        case RunState("TERMINATED", "FAILED", state_message=message):
            assert message == "it broke"
        case _:
            pytest.fail("it was not matched")

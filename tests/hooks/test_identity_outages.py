"""Identity services that fail in any way are waited for, with every authentication method."""

from __future__ import annotations

import json

import pytest

from airflow_jobs_provider.api.errors import CredentialsError
from airflow_jobs_provider.api.retry import no_waiting
from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
from tests.fakes.identity import FAULTS
from tests.helpers.login_methods import METHODS, METHODS_OF_THE_SDK, LoginMethod
from tests.helpers.login_world import World

# The vendors' libraries take seconds to import.
pytestmark = pytest.mark.slow
RUN = {"existing_cluster_id": "c", "notebook_task": {"notebook_path": "/n"}}


def launch(method: LoginMethod, world: World) -> None:
    """Launch a run with a connection of a method."""
    world.monkeypatch.setenv("AIRFLOW_CONN_C", json.dumps(method.connection(world)))
    DatabricksJobsHook("c").submit_run(RUN)


@pytest.mark.parametrize("fault", ["502 HTML", "200 HTML", "no response"])
@pytest.mark.parametrize(
    "method", [*METHODS, *METHODS_OF_THE_SDK[:2]], ids=lambda method: str(method.name)
)
def test_any_outage_of_an_identity_service_is_waited_for(
    method: LoginMethod, fault: str, world: World
) -> None:
    """A gateway's page, a sign-in page, a lost connection: no refusal. The run is launched once."""
    identity = world.identity
    endpoints = {method.endpoint(identity), identity.kubernetes, identity.sts}
    for endpoint in endpoints:
        # The vendors' libraries repeat a request up to four times by themselves.
        endpoint.faults.extend([FAULTS[fault]] * 6)
    with no_waiting() as waits:
        launch(method, world)
    assert waits
    assert [one.endpoint for one in world.workspace.seen] == ["runs/submit"]


@pytest.mark.parametrize("issuer", ["kubernetes", "sts"])
def test_a_token_that_is_not_valid_yet_is_refused(issuer: str, world: World) -> None:
    """The clock of the cluster, or of AWS, is 5 minutes ahead of that of the workspace."""
    getattr(world.identity, issuer).ahead_seconds = 300
    name = {"kubernetes": "federated_k8s", "sts": "federated_aws"}[issuer]
    (method,) = [one for one in METHODS if one.name == name]
    with pytest.raises(CredentialsError, match=r"invalid_grant.*not valid yet"):
        launch(method, world)

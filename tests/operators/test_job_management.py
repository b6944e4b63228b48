"""Creating jobs, exporting, canceling and deleting runs, over real HTTP, answer by answer."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_jobs_provider.api.errors import BadRequestError, InvalidRequestError, ResponseLostError
from airflow_jobs_provider.api.retry import no_waiting
from airflow_jobs_provider.hooks.jobs import DatabricksJobsHook
from airflow_jobs_provider.operators.cancel_runs import DatabricksCancelRunsOperator
from airflow_jobs_provider.operators.create_job import DatabricksCreateJobsOperator
from airflow_jobs_provider.operators.delete_run import DatabricksDeleteRunOperator
from airflow_jobs_provider.operators.export_run import DatabricksExportRunOperator
from tests.fakes.scripted_server import TOKEN, ScriptedServer, answer, lose

# Airflow 3.0's own, with later versions of the library that it builds its paths on.
pytestmark = pytest.mark.filterwarnings(
    "ignore:ObjectStoragePath._protocol_dispatch:DeprecationWarning"
)

CONTEXT: Any = {"ti": SimpleNamespace(dag_id="d", task_id="t")}
SETTINGS: dict[str, Any] = {
    "existing_cluster_id": "1201-my-cluster",
    "notebook_task": {"notebook_path": "/etl", "base_parameters": {"n": 1}},
}
SENT = {
    "name": "train",
    "existing_cluster_id": "1201-my-cluster",
    "notebook_task": {"notebook_path": "/etl", "base_parameters": {"n": "1"}},
}
GONE = answer({"error_code": "INVALID_PARAMETER_VALUE", "message": "Run 7 does not exist."}, 400)
FORBIDDEN = answer({"error_code": 403, "message": "Invalid access token."}, 403)


@pytest.fixture(autouse=True)
def connection(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection to the scripted server."""
    fields = {"conn_type": "databricks_jobs", "host": server.url, "password": TOKEN}
    monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", json.dumps(fields))


def asked(server: ScriptedServer) -> list[tuple[str, Any]]:
    """Return what was asked, in order: the path, and the body or query."""
    return [
        (request.path.partition("/jobs/")[2], request.body or request.query)
        for request in server.requests
    ]


def jobs(*ids: int, name: str = "train") -> Any:
    """Answer with jobs of a name."""
    listed = [{"job_id": job_id, "settings": {"name": name}} for job_id in ids]
    return answer({"jobs": [*listed, {"job_id": 99, "settings": {"name": "other"}}]})


def create(**arguments: Any) -> DatabricksCreateJobsOperator:
    """Make an operator for the job."""
    return DatabricksCreateJobsOperator(task_id="t", **{"name": "train", **SETTINGS, **arguments})


def test_a_new_name_is_created(server: ScriptedServer) -> None:
    """No job of the name: one is made with the settings, and its id returned."""
    server.will(jobs(), answer({"job_id": 3}))
    assert create().execute(CONTEXT) == 3
    assert asked(server) == [("list", {"name": "train"}), ("create", SENT)]


def test_a_known_name_is_reset(server: ScriptedServer) -> None:
    """The job of that name gets the settings."""
    server.will(jobs(5), answer())
    assert create().execute(CONTEXT) == 5
    assert asked(server)[1] == ("reset", {"job_id": 5, "new_settings": SENT})


ACL = [{"user_name": "u", "permission_level": "CAN_MANAGE"}]


@pytest.mark.parametrize(
    "given", [{"access_control_list": ACL}, {"json": {"access_control_list": ACL}}]
)
def test_a_new_job_has_its_permissions_from_the_start(
    server: ScriptedServer, given: dict[str, Any]
) -> None:
    """They are part of the request, so that there is never a job without them."""
    server.will(jobs(), answer({"job_id": 3}))
    assert create(**given).execute(CONTEXT) == 3
    path, body = asked(server)[1]
    assert path.endswith("create")
    assert body == {**SENT, "access_control_list": ACL}


@pytest.mark.parametrize("text", [False, True])
def test_permissions_of_a_known_job_come_before_its_settings(
    server: ScriptedServer, text: bool
) -> None:
    """The Permissions API adds them; they are no settings."""
    server.will(jobs(5), answer({"object_id": "/jobs/5"}), answer())
    operator = create(access_control_list="{{ acl }}" if text else ACL)
    operator.render_template_fields({"acl": ACL})  # type: ignore[typeddict-unknown-key]
    assert operator.execute(CONTEXT) == 5
    permissions, (path, body) = server.requests[1], asked(server)[2]
    assert (permissions.verb, permissions.path) == ("PATCH", "/api/2.0/permissions/jobs/5")
    assert permissions.body == {"access_control_list": ACL}
    assert path.endswith("reset")
    assert body == {"job_id": 5, "new_settings": SENT}


def test_permissions_that_are_refused(server: ScriptedServer) -> None:
    """The job keeps its settings, and the DAG's retries decide."""
    server.will(jobs(5), answer({"error_code": "PERMISSION_DENIED", "message": "not yours"}, 403))
    with pytest.raises(AirflowException, match="not yours") as caught:
        create(access_control_list=ACL).execute(CONTEXT)
    assert not isinstance(caught.value, AirflowFailException)
    assert len(server.requests) == 2


@pytest.mark.parametrize("known", [True, False])
def test_no_permissions_change_nothing(server: ScriptedServer, known: bool) -> None:
    """An empty list is as good as none, for a new job and for one that is there."""
    server.will(jobs(5) if known else jobs(), answer({"job_id": 5}))
    create(access_control_list=[]).execute(CONTEXT)
    assert len(server.requests) == 2
    body = server.requests[1].body
    assert body == ({"job_id": 5, "new_settings": SENT} if known else SENT)


def test_the_hooks_permissions(server: ScriptedServer) -> None:
    """Under the official hook's names, on both faces; a wrong reset changes no permissions."""
    hook = DatabricksJobsHook()
    whole = {"object_id": "/jobs/5", "access_control_list": ACL}
    request = {"access_control_list": ACL}
    server.will(answer(whole), answer(whole), lose, answer(whole))
    assert hook.update_job_permission(5, request) == whole
    assert asyncio.run(hook.a_update_job_permission(5, request)) == whole
    with no_waiting():
        assert hook.update_job_permission(5, request) == whole, "repeated: it does no harm"
    assert {(r.verb, r.path) for r in server.requests} == {("PATCH", "/api/2.0/permissions/jobs/5")}
    server.requests.clear()
    asyncio.run(hook.a_reset_job(5, {**SENT, **request}))
    assert [request.verb for request in server.requests] == ["PATCH", "POST"]
    assert server.requests[1].body == {"job_id": 5, "new_settings": SENT}
    server.requests.clear()
    with pytest.raises(InvalidRequestError):
        hook.reset_job(5, {**SENT, **request, "notebook_task": {"notebook_path": "etl"}})
    assert server.requests == []


def test_an_update_has_no_permissions_among_its_settings(server: ScriptedServer) -> None:
    """They are added before, on both faces; an empty list changes nothing."""
    hook = DatabricksJobsHook()
    settings = {"timeout_seconds": 5}
    hook.update_job(5, {**settings, "access_control_list": ACL}, ["schedule"])
    asyncio.run(hook.a_update_job(5, {**settings, "access_control_list": ACL}, ["schedule"]))
    hook.update_job(5, {**settings, "access_control_list": []}, ["schedule"])
    changed = {"job_id": 5, "new_settings": settings, "fields_to_remove": ["schedule"]}
    added = ("/api/2.0/permissions/jobs/5", {"access_control_list": ACL})
    update = ("/api/2.0/jobs/update", changed)
    assert [(r.path, r.body) for r in server.requests] == [added, update, added, update, update]
    server.requests.clear()
    hook.update_job(5, fields_to_remove=["schedule"])
    assert [r.body for r in server.requests] == [{"job_id": 5, "fields_to_remove": ["schedule"]}]


def test_two_jobs_of_one_name(server: ScriptedServer) -> None:
    """Which is meant cannot be known: the error names both ids."""
    server.will(jobs(5, 6))
    with pytest.raises(AirflowException, match=r"2 jobs have the name 'train' \(job_id 5, 6\)"):
        create().execute(CONTEXT)
    assert len(server.requests) == 1


def test_a_job_needs_a_name(server: ScriptedServer) -> None:
    """Without one it could not be found again; nothing is sent."""
    with pytest.raises(AirflowFailException, match="name must be given"):
        create(name=None).execute(CONTEXT)
    assert server.requests == []


def test_json_and_fields(server: ScriptedServer) -> None:
    """The settings may come as one dict; fields win."""
    server.will(jobs(), answer({"job_id": 3}))
    operator = DatabricksCreateJobsOperator(
        task_id="t", json={**SENT, "name": "old", "queue": {"enabled": True}}, name="train"
    )
    operator.execute(CONTEXT)
    assert asked(server)[1] == ("create", {**SENT, "queue": {"enabled": True}})


def test_a_lost_answer_to_create_makes_no_second_job(server: ScriptedServer) -> None:
    """Creating is not repeated; the next try finds the job."""
    server.will(jobs(), lose)
    with pytest.raises(ResponseLostError):
        create().execute(CONTEXT)
    assert [path for path, _ in asked(server)] == ["list", "create"]


def test_what_rendered_wrong_is_not_sent(server: ScriptedServer) -> None:
    """A template's mistake shows before anything is asked, and Airflow does not retry."""
    operator = create(notebook_task={"notebook_path": "{{ path }}"})
    rendered: Any = {"path": "etl"}
    operator.render_template_fields(rendered)
    with pytest.raises(AirflowFailException, match=r"notebook_task\.notebook_path must be an abs"):
        operator.execute(CONTEXT)
    assert server.requests == []


def test_refused_settings_are_final(server: ScriptedServer) -> None:
    """Airflow does not retry what the service will refuse again."""
    server.will(jobs(), answer({"error_code": "MALFORMED_REQUEST", "message": "bad"}, 400))
    with pytest.raises(AirflowFailException, match="bad"):
        create().execute(CONTEXT)


def export(path: Path | str, **arguments: Any) -> DatabricksExportRunOperator:
    """Make an operator that exports the run."""
    return DatabricksExportRunOperator(task_id="t", run_id="7", path=str(path), **arguments)


def test_views_are_written(server: ScriptedServer, tmp_path: Path) -> None:
    """Each view is a file named after it; running again writes the same files."""
    views = [
        {"content": "<p>ä</p>", "name": "my-notebook", "type": "NOTEBOOK"},
        {"content": "<p>2</p>", "name": "sales", "type": "DASHBOARD"},
        {"content": "<p>3</p>", "name": "sales", "type": "DASHBOARD"},
        {"content": "<p>4</p>", "name": "../../etc/passwd", "type": "NOTEBOOK"},
        {"content": "<p>5</p>"},
    ]
    folder = tmp_path / "a" / "b"
    names = [
        "my-notebook.html",
        "sales.dashboard.html",
        "sales.dashboard-2.html",
        "_.._etc_passwd.html",
        "view.html",
    ]
    for _ in range(2):
        server.will(answer({"run_id": 7}), answer({"views": views}))
        paths = export(folder, views_to_export="ALL").execute(CONTEXT)
        assert paths == [str(folder / name) for name in names]
    assert sorted(file.name for file in folder.iterdir()) == sorted(names)
    assert (folder / "my-notebook.html").read_text(encoding="utf-8") == "<p>ä</p>"
    assert asked(server)[1] == ("runs/export", {"run_id": "7", "views_to_export": "ALL"})


def test_views_of_several_tasks(server: ScriptedServer, tmp_path: Path) -> None:
    """Each notebook's go to a folder named after its task; other kinds have none."""
    tasks = [
        {"task_key": "a", "run_id": 8, "notebook_task": {}},
        {"task_key": "b", "run_id": 9, "notebook_task": {}},
        {"task_key": "c", "run_id": 10, "spark_jar_task": {}},
    ]
    view = {"content": "x", "name": "n", "type": "NOTEBOOK"}
    server.will(answer({"run_id": 7, "tasks": tasks}), *[answer({"views": [view]})] * 2)
    paths = export(tmp_path).execute(CONTEXT)
    assert paths == [str(tmp_path / key / "n.html") for key in "ab"]
    server.will(answer({"run_id": 7, "tasks": tasks[:1]}), answer({"views": [view]}))
    assert export(tmp_path).execute(CONTEXT) == [str(tmp_path / "n.html")]
    exported = [body["run_id"] for path, body in asked(server) if path == "runs/export"]
    assert exported == ["8", "9", "8"]


def test_views_with_long_names(server: ScriptedServer, tmp_path: Path) -> None:
    """A name that is longer than a file's can be is cut; views that then have one name keep apart.

    The service's notebooks have names of any length, and so have the keys of tasks.
    """
    names = ["n" * 300, "n" * 300 + "2", "ä" * 300, "n" * 300]
    types = ["NOTEBOOK", "NOTEBOOK", "NOTEBOOK", "D" * 300]
    views = [{"content": n, "name": n, "type": t} for n, t in zip(names, types, strict=True)]
    tasks = [{"task_key": key * 300, "run_id": 8, "notebook_task": {}} for key in "ab"]
    for _ in range(2):
        server.will(
            answer({"run_id": 7, "tasks": tasks}), answer({"views": views}), answer({"views": []})
        )
        paths = export(tmp_path, views_to_export="ALL").execute(CONTEXT)
        assert [Path(path).read_text(encoding="utf-8") for path in paths] == names
        assert [Path(path).name for path in paths] == [
            f"{'n' * 200}.html",
            f"{'n' * 200}-2.html",
            f"{'ä' * 100}.html",
            f"{'n' * 200}.{'d' * 30}.html",
        ]
    assert len([file for file in tmp_path.rglob("*") if file.is_file()]) == 4


def test_views_to_object_storage(server: ScriptedServer, tmp_path: Path) -> None:
    """A URI of Airflow's ObjectStoragePath will do; the paths returned are URIs, too."""
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    try:
        ObjectStoragePath(f"file://{tmp_path}")
    except TypeError as error:
        pytest.skip(f"this Airflow has an ObjectStoragePath that takes no URI: {error}")
    view = {"content": "<p>1</p>", "name": "n", "type": "NOTEBOOK"}
    server.will(answer({"run_id": 7}), answer({"views": [view]}))
    (path,) = export(f"file://{tmp_path}/today/").execute(CONTEXT)
    assert path == f"file://{tmp_path}/today/n.html"
    assert (tmp_path / "today" / "n.html").read_text() == "<p>1</p>"


def test_a_run_that_cannot_be_exported(server: ScriptedServer, tmp_path: Path) -> None:
    """The service's words end the task for good; nothing is written."""
    server.will(
        answer({"run_id": 7}),
        answer({"error_code": "INVALID_PARAMETER_VALUE", "message": "not a notebook run"}, 400),
    )
    with pytest.raises(AirflowFailException, match="not a notebook run"):
        export(tmp_path / "x").execute(CONTEXT)
    assert not (tmp_path / "x").exists()


def run(run_id: int, life: str) -> dict[str, Any]:
    """Make a run."""
    return {"run_id": run_id, "state": {"life_cycle_state": life}}


def cancel(**arguments: Any) -> DatabricksCancelRunsOperator:
    """Make an operator that polls fast."""
    return DatabricksCancelRunsOperator(task_id="t", polling_period_seconds=0.01, **arguments)


def test_a_run_is_canceled_and_waited_for(server: ScriptedServer) -> None:
    """One cancel, then looks until the run has ended."""
    server.will(answer(), *[answer(run(7, life)) for life in ("TERMINATING", "TERMINATED")])
    cancel(run_id="7").execute(CONTEXT)
    assert [path for path, _ in asked(server)] == ["runs/cancel", "runs/get", "runs/get"]
    assert server.requests[0].body == {"run_id": 7}


def test_all_runs_of_a_job_are_canceled_and_waited_for(server: ScriptedServer) -> None:
    """One cancel for all, then one request a look until none is active."""
    both = answer({"runs": [run(7, "RUNNING"), run(8, "TERMINATING")], "has_more": True})
    server.will(answer(), both, answer({"runs": [run(8, "TERMINATING")]}), answer({}))
    cancel(job_id=3).execute(CONTEXT)
    looks = [("runs/list", {"active_only": "true", "job_id": "3"})] * 3
    assert asked(server) == [("runs/cancel-all", {"job_id": 3}), *looks]


def test_canceling_without_waiting(server: ScriptedServer) -> None:
    """One request, and the task is done."""
    cancel(job_id=3, wait_for_termination=False).execute(CONTEXT)
    assert len(server.requests) == 1


def test_canceling_what_is_not_there(server: ScriptedServer) -> None:
    """The service's words end the task for good."""
    server.will(GONE)
    with pytest.raises(AirflowException, match="does not exist"):
        cancel(run_id=7).execute(CONTEXT)


def delete(**arguments: Any) -> DatabricksDeleteRunOperator:
    """Make an operator that deletes the run."""
    return DatabricksDeleteRunOperator(task_id="t", **{"run_id": "7", **arguments})


def test_a_run_is_deleted(server: ScriptedServer) -> None:
    """One request; a run that is not there is no error."""
    delete().execute(CONTEXT)
    server.will(GONE)
    delete().execute(CONTEXT)
    assert asked(server) == [("runs/delete", {"run_id": 7})] * 2


def test_an_active_run_is_not_deleted(server: ScriptedServer) -> None:
    """The task fails so that a retry may delete it; refused credentials are final."""
    server.will(answer({"message": "Run 7 is active."}, 400), FORBIDDEN)
    with pytest.raises(BadRequestError, match="Run 7 is active"):
        delete().execute(CONTEXT)
    with pytest.raises(AirflowException, match="Invalid access token"):
        delete().execute(CONTEXT)

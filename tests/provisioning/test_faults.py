"""Provisioning or the agent is killed in the middle, and all converges."""

import shutil
import signal

import pytest

from tests.flows.people import credentials, execute, introduce, may_log_in, ready_database
from tests.mesh import TestMesh, eventually
from tests.provisioning.conftest import Home

pytestmark = pytest.mark.processes


@pytest.mark.parametrize("victim", ["provisioning", "agent-local"])
def test_killed_while_people_sign_up_everyone_has_their_database(mesh: TestMesh, victim: str) -> None:
    people = []
    for n in range(4):
        people.append(mesh.sign_up(organization=f"Killed {n}"))
        if n == 1:
            mesh.mesh.kill(victim, signal.SIGKILL)
    mesh.mesh.wait_healthy()
    for person in people:
        assert may_log_in(credentials(person, person.org_id, ready_database(person)["id"]))
        found = person.get("provisioning", f"/orgs/{person.org_id}/databases").json()["items"]
        assert [d["name"] for d in found] == ["main"]


@pytest.mark.parametrize("victim", ["provisioning", "agent-local"])
def test_killed_between_suspend_and_resume_it_ends_open(home: Home, victim: str) -> None:
    dsn = home.dsn()
    execute(dsn, "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (1)", "SELECT 1")
    assert home.owner.post("org", f"/orgs/{home.org_id}/suspend", {"reason": "test"}).status_code == 202
    home.mesh.mesh.kill(victim, signal.SIGKILL)
    assert home.owner.post("org", f"/orgs/{home.org_id}/resume").status_code == 202
    home.mesh.mesh.wait_healthy()
    state = "SELECT state, generation, observed FROM provisioning.tenants WHERE org_id = $1"
    eventually(lambda: home.rows(state) == [{"state": "active", "generation": 3, "observed": 3}], timeout=60)
    home.becomes("ready", timeout=60)
    assert execute(dsn, "SELECT n FROM kept") == 1


def test_while_the_agent_is_away_all_waits_and_is_made_when_it_is_back(home: Home, mesh: TestMesh) -> None:
    mesh.mesh.hold("agent-local")
    mesh.mesh.kill("agent-local")
    try:
        dsn = home.owner.post("provisioning", f"{home.path}/credentials").json()["dsn"]
        assert home.owner.patch("provisioning", home.path, {"connection_limit": 9}).status_code == 202
        assert home.database()["state"] == "changing"
        late = mesh.sign_up()
        introduce(home.owner, late)
    finally:
        mesh.mesh.release("agent-local")
    home.becomes("ready", timeout=60)
    eventually(lambda: may_log_in(dsn), timeout=30)
    assert ready_database(late)["name"] == "main"


def test_an_agent_that_has_lost_its_disk_is_still_heard(home: Home, mesh: TestMesh) -> None:
    dsn = home.dsn()
    mesh.mesh.hold("agent-local")
    mesh.mesh.kill("agent-local")
    shutil.rmtree(mesh.mesh.state.root / "agents" / "local")
    mesh.mesh.release("agent-local")
    assert home.owner.patch("provisioning", home.path, {"connection_limit": 4}).status_code == 202
    home.becomes("ready", timeout=60)
    assert may_log_in(dsn)

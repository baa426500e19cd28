"""What agents report: taken in once, in order, and from the data plane that holds the tenant only."""

import uuid
from typing import Any
from uuid import UUID

from confluent_kafka.admin import AclBindingFilter, AclOperation, AclPermissionType, ResourcePatternType, ResourceType

from tests.flows.people import may_log_in
from tests.mesh import TestMesh, eventually
from tests.provisioning.conftest import Home, Say, report


def kept(mesh: TestMesh, value: bytes) -> dict[str, Any]:
    """The record, as it was kept because nothing could be done with it."""
    sql = "SELECT * FROM provisioning.undecodable WHERE value = $1"
    return eventually(lambda: mesh.rows(sql, value)[0], what="the record that was kept raw")


def read_past(home: Home, say: Say) -> None:
    """All that was said before has been read: something said now, with the same key, is kept."""
    mark = f"read past {uuid.uuid4()}".encode()
    say(mark, home.org_id)
    kept(home.mesh, mark)


def failed(resource: str, generation: int = 1) -> list[dict[str, Any]]:
    return [{"resource": resource, "kind": "database", "generation": generation, "state": "failed", "error": "forged"}]


def test_a_failure_is_shown_with_its_reason_until_it_is_mended(home: Home, say: Say) -> None:
    say(report(home, failed(home.id), later=1), home.org_id)
    assert home.becomes("failed")["error"] == "forged"
    ready = failed(home.id)[0] | {"state": "ready", "error": None}
    say(report(home, [ready], later=1), home.org_id)
    assert home.becomes("ready")["error"] is None


def test_a_report_of_a_data_plane_that_does_not_hold_the_tenant_changes_nothing(home: Home, say: Say, mesh: TestMesh) -> None:
    before = home.database()
    forged = report(home, failed(home.id), data_plane="elsewhere", later=1)
    say(forged, home.org_id)
    assert "elsewhere" in kept(mesh, forged)["reason"]
    assert home.database() == before


def test_a_report_about_a_tenant_that_nobody_knows_leaves_no_trace(home: Home, say: Say, mesh: TestMesh) -> None:
    nobody = uuid.uuid4()
    forged = report(home, failed(home.id), later=1).replace(home.org_id.encode(), str(nobody).encode())
    say(forged, str(nobody))
    assert "does not hold" in kept(mesh, forged)["reason"]
    assert mesh.rows("SELECT 1 FROM provisioning.streams WHERE stream = $1", f"org:{nobody}") == []
    assert mesh.rows("SELECT 1 FROM provisioning.reports WHERE org_id = $1", nobody) == []


def test_bytes_that_are_no_report_are_kept_and_the_next_one_is_heard(home: Home, say: Say, mesh: TestMesh) -> None:
    for value in (b"\xff\x00 not json", b"{}", b'{"kind": "report", "data_plane": "local"}', b"null"):
        say(value, home.org_id)
        assert kept(mesh, value)["topic"] == "dataplane.local.reports"
    say(None, home.org_id)
    say(report(home, failed(home.id), later=1), home.org_id)
    home.becomes("failed")


def test_reports_that_come_again_late_or_out_of_order_change_nothing(home: Home, say: Say) -> None:
    before, heard = home.database(), home.heard()
    for later in (0, -1, -5):
        say(report(home, failed(home.id), later=later), home.org_id)
    older = report(home, failed(home.id), later=1).replace(f'"agent_epoch":{heard["agent_epoch"]}'.encode(), b'"agent_epoch":0')
    say(older, home.org_id)
    read_past(home, say)
    assert home.database() == before
    assert home.heard() == heard


def test_a_report_of_an_older_generation_changes_nothing(home: Home, say: Say) -> None:
    changed = home.owner.patch("provisioning", home.path, {"connection_limit": 4})
    assert changed.status_code == 202
    home.becomes("ready")
    say(report(home, failed(home.id, generation=1), later=1), home.org_id)
    read_past(home, say)
    assert home.database()["state"] == "ready"


def test_what_was_not_confirmed_is_said_again_until_it_is(home: Home) -> None:
    admin, org = home.mesh, UUID(home.org_id)
    real = home.heard()
    admin.rows("UPDATE provisioning.reports SET counter = 1000000000 WHERE org_id = $1", org)  # from here on every report is lost
    assert home.owner.patch("provisioning", home.path, {"connection_limit": 6}).status_code == 202
    server, dbname = admin.status["data_planes"][0]["url"], home.database()["dbname"]
    eventually(lambda: admin.rows("SELECT datconnlimit AS n FROM pg_database WHERE datname = $1", dbname, database=server) == [{"n": 6}], timeout=30)
    assert home.database()["state"] == "changing"
    admin.rows("UPDATE provisioning.reports SET counter = $2 WHERE org_id = $1", org, real["counter"])
    home.say_again_now()
    home.becomes("ready")


def test_a_right_that_kafka_has_lost_is_made_again(home: Home) -> None:
    admin = home.mesh.mesh.broker.admin()
    topic = AclBindingFilter(
        ResourceType.TOPIC, f"tenant.{home.org_id}.feed", ResourcePatternType.LITERAL, None, None, AclOperation.ANY, AclPermissionType.ANY
    )  # fmt: skip
    removed = next(iter(admin.delete_acls([topic]).values())).result(10)
    assert {(r.principal, r.operation) for r in removed} == {("User:agent-local", AclOperation.READ), ("User:agent-local", AclOperation.DESCRIBE)}
    assert home.owner.patch("provisioning", home.path, {"connection_limit": 6}).status_code == 202
    home.say_again_now()
    home.becomes("ready", timeout=60)


def test_a_full_report_that_lacks_something_has_it_said_again(home: Home, say: Say) -> None:
    said = "SELECT count(*) AS n FROM provisioning.tenant_feed WHERE key LIKE $1::uuid || '/%' AND payload IS NOT NULL"
    before = home.rows(said)[0]["n"]
    say(report(home, [], later=1, complete=True), home.org_id)
    eventually(lambda: home.rows(said)[0]["n"] >= before + 4, what="assignment, organization, database and login said again")
    assert home.database()["state"] == "ready"


def test_a_login_that_nobody_knows_is_removed_and_a_database_that_nobody_knows_is_kept(home: Home, say: Say) -> None:
    login, database = uuid.uuid4(), uuid.uuid4()
    strange = [{"resource": str(login), "kind": "login", "generation": 0, "state": "ready"}]
    strange += [{"resource": str(database), "kind": "database", "generation": 0, "state": "ready"}]
    say(report(home, strange, later=1), home.org_id)
    removed = "SELECT key FROM provisioning.tenant_feed WHERE key LIKE $1::uuid || '/%' AND payload IS NULL"
    eventually(lambda: [r["key"] for r in home.rows(removed)] == [f"{home.org_id}/{login}"])


def test_a_resource_that_was_removed_and_is_still_there_is_removed_again(home: Home, say: Say) -> None:
    home.owner.delete("provisioning", home.path)
    home.becomes("deleted")
    home.advance(days=2)
    home.becomes("gone")
    removed = "SELECT count(*) AS n FROM provisioning.tenant_feed WHERE key = $1::uuid || '/' || (SELECT id FROM provisioning.databases WHERE org_id = $1) AND payload IS NULL"
    before = home.rows(removed)[0]["n"]
    still = [{"resource": home.id, "kind": "database", "generation": 2, "state": "deleted"}]
    say(report(home, still, later=1), home.org_id)
    eventually(lambda: home.rows(removed)[0]["n"] > before)
    assert home.database()["state"] == "gone"


def test_an_agent_that_is_ahead_of_a_restored_control_plane_is_told_above_that(home: Home, say: Say) -> None:
    dsn = home.dsn()
    eventually(lambda: not home.rows("SELECT FROM provisioning.logins WHERE org_id = $1 AND observed < generation"), what="the login is reported")
    real = home.heard()
    ahead = [{"resource": home.id, "kind": "database", "generation": 40, "state": "ready"}]
    generation = "SELECT generation, observed FROM provisioning.databases WHERE org_id = $1"

    def is_told() -> bool:
        say(report(home, ahead, later=1), home.org_id)  # said again where the agent itself has said more meanwhile
        return bool(home.rows(generation)[0]["generation"] == 41)

    eventually(is_told)
    home.mesh.rows("UPDATE provisioning.reports SET counter = $2 WHERE org_id = $1", UUID(home.org_id), real["counter"])  # the agent's next one counts
    home.say_again_now()
    eventually(lambda: home.rows(generation) == [{"generation": 41, "observed": 41}], timeout=60)
    assert may_log_in(dsn)

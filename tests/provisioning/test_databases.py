"""Databases through their doors, and as their users meet them."""

import asyncio
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from tests.flows.people import credentials, execute, finished, introduce, may_log_in
from tests.mesh import TestMesh, eventually
from tests.provisioning.conftest import Home


def test_a_sign_up_gets_a_database_that_its_own_credentials_open(home: Home) -> None:
    shown = home.database()
    assert (shown["name"], shown["data_plane"], shown["limits"], shown["error"]) == ("main", "local", {"connections": 20}, None)
    made = home.owner.post("provisioning", f"{home.path}/credentials")
    assert made.status_code == 201
    finished(home.owner, made.json()["flow_id"])
    assert execute(made.json()["dsn"], "CREATE TABLE t (n int)", "INSERT INTO t VALUES (1)", "SELECT n FROM t") == 1


def test_a_wrong_password_does_not_open_it(home: Home) -> None:
    parts = urlsplit(home.dsn())
    wrong = parts._replace(netloc=parts.netloc.replace(str(parts.password), "guessed"))
    with pytest.raises(asyncpg.InvalidPasswordError):
        execute(urlunsplit(wrong), "SELECT 1")


async def test_new_credentials_end_the_old_ones_with_their_sessions(home: Home) -> None:
    old = await asyncio.to_thread(home.dsn)
    session = await asyncpg.connect(old)
    new = await asyncio.to_thread(home.dsn)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await session.fetchval("SELECT 1")
    session.terminate()
    assert not await asyncio.to_thread(may_log_in, old)
    assert await asyncio.to_thread(may_log_in, new)
    assert urlsplit(new).username == urlsplit(old).username, "one login for each member and database"


async def test_the_connection_limit_holds_and_changes(home: Home) -> None:
    dsn = await asyncio.to_thread(home.dsn)

    async def limit(connections: int) -> int:
        answer = await asyncio.to_thread(home.owner.patch, "provisioning", home.path, {"connection_limit": connections})
        assert answer.json()["limits"] == {"connections": connections}
        await asyncio.to_thread(finished, home.owner, answer.json()["flow_id"])
        return int(answer.status_code)

    assert await limit(2) == 202
    sessions = [await asyncpg.connect(dsn), await asyncpg.connect(dsn)]
    with pytest.raises(asyncpg.TooManyConnectionsError):
        await asyncpg.connect(dsn)
    assert await limit(3) == 202
    sessions.append(await asyncpg.connect(dsn))
    for session in sessions:
        await session.close()


def test_nobody_gets_more_connections_than_the_plan_has(home: Home) -> None:
    answer = home.owner.patch("provisioning", home.path, {"connection_limit": 21})
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/connection-limit")
    assert home.owner.patch("provisioning", home.path, {"connection_limit": 0}).status_code == 422


def test_the_plan_bounds_how_many_there_are_and_a_name_is_there_once(home: Home) -> None:
    path = f"/orgs/{home.org_id}/databases"
    assert home.owner.post("provisioning", path, {"name": "second"}).status_code == 403, "its address is not verified"
    owner = home.verified()
    assert owner.post("provisioning", path, {"name": "main"}).json()["type"] == "/problems/database-name-taken"
    for name in ("second", "third-one_3"):
        made = owner.post("provisioning", path, {"name": name})
        assert made.status_code == 202, made.text
        finished(owner, made.json()["flow_id"])
        home.becomes("ready", made.json()["id"])
    assert owner.post("provisioning", path, {"name": "fourth"}).json()["type"] == "/problems/database-limit"
    not_deleted = owner.post("provisioning", f"{path}/{home.id}/undelete")
    assert (not_deleted.status_code, not_deleted.json()["type"]) == (409, "/problems/not-deleted"), "whatever room the plan has"
    assert [d["name"] for d in owner.get("provisioning", path).json()["items"]] == ["main", "second", "third-one_3"]


def test_a_name_that_cannot_be_is_refused(home: Home) -> None:
    owner = home.verified()
    for name in ("", "Main", "1st", "-a", "a b", 'a"; DROP', "x" * 41, "ä"):
        answer = owner.post("provisioning", f"/orgs/{home.org_id}/databases", {"name": name})
        assert answer.status_code == 422, (name, answer.text)


def test_a_stranger_finds_no_door(home: Home, mesh: TestMesh) -> None:
    stranger = mesh.sign_up()
    introduce(home.owner, stranger)
    own, theirs = f"/orgs/{stranger.org_id}/databases", f"/orgs/{home.org_id}/databases"
    assert home.owner.get("provisioning", theirs).status_code == 200
    tries = [("GET", ""), ("POST", ""), ("GET", f"/{home.id}"), ("PATCH", f"/{home.id}"), ("DELETE", f"/{home.id}"),
             ("POST", f"/{home.id}/undelete"), ("POST", f"/{home.id}/credentials")]  # fmt: skip
    bodies = {("POST", ""): {"name": "mine"}, ("PATCH", f"/{home.id}"): {"connection_limit": 1}}
    for method, rest in tries:
        assert stranger.call(method, "provisioning", theirs + rest, bodies.get((method, rest))).status_code in (403, 404), (method, rest)
        if rest:
            assert stranger.call(method, "provisioning", own + rest, bodies.get((method, rest))).status_code == 404, (method, rest)
    assert home.database()["state"] == "ready"


def test_a_change_of_what_was_not_seen_is_refused(home: Home) -> None:
    seen = home.owner.get("provisioning", home.path).headers["ETag"]
    first = home.owner.patch("provisioning", home.path, {"connection_limit": 7}, headers={"If-Match": seen})
    assert first.status_code == 202
    assert home.owner.patch("provisioning", home.path, {"connection_limit": 8}, headers={"If-Match": seen}).status_code == 412
    assert home.owner.delete("provisioning", home.path, headers={"If-Match": seen}).status_code == 412
    assert home.database()["limits"] == {"connections": 7}


def test_a_database_is_restored_only_where_the_plan_has_room(home: Home) -> None:
    owner, path = home.verified(), f"/orgs/{home.org_id}/databases"
    assert owner.delete("provisioning", home.path).status_code == 202
    for name in ("second", "third", "fourth"):
        assert owner.post("provisioning", path, {"name": name}).status_code == 202
    refused = owner.post("provisioning", f"{home.path}/undelete")
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/database-limit")
    assert owner.delete("provisioning", f"{path}/{owner.get('provisioning', path).json()['items'][1]['id']}").status_code == 202
    assert owner.post("provisioning", f"{home.path}/undelete").status_code == 202


def test_a_deleted_database_refuses_and_comes_back_with_its_data(home: Home) -> None:
    dsn = home.dsn()
    execute(dsn, "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (3)", "SELECT 1")
    assert home.database()["undelete_until"] is None
    assert home.owner.delete("provisioning", home.path).json()["state"] == "deleting"
    until = datetime.fromisoformat(home.becomes("deleted")["undelete_until"])
    assert timedelta(hours=23, minutes=55) < until - datetime.now(UTC) <= timedelta(hours=24)
    assert not may_log_in(dsn)
    assert home.owner.delete("provisioning", home.path).status_code == 409
    assert home.owner.patch("provisioning", home.path, {"connection_limit": 3}).status_code == 409
    refused = home.owner.post("provisioning", f"{home.path}/credentials")
    assert refused.status_code == 409
    assert "/undelete" in refused.json()["detail"]
    restored = home.owner.post("provisioning", f"{home.path}/undelete")
    assert restored.status_code == 202, restored.text
    finished(home.owner, restored.json()["flow_id"])
    assert execute(dsn, "SELECT n FROM kept") == 3
    assert home.database()["undelete_until"] is None
    assert home.owner.post("provisioning", f"{home.path}/undelete").status_code == 409


def test_a_deleted_databases_data_is_dropped_when_its_time_is_over(home: Home) -> None:
    dsn, dbname = home.dsn(), home.database()["dbname"]
    started = home.owner.delete("provisioning", home.path)
    home.becomes("deleted")
    home.advance(days=0.9)
    assert home.database()["state"] == "deleted"
    home.advance(days=0.2)
    assert home.becomes("gone")["undelete_until"] is None
    finished(home.owner, started.json()["flow_id"])
    assert home.owner.get("provisioning", f"/orgs/{home.org_id}/databases").json()["items"] == []
    assert home.owner.post("provisioning", f"{home.path}/undelete").status_code == 409
    with pytest.raises(asyncpg.PostgresError):
        execute(dsn, "SELECT 1")
    server = home.mesh.status["data_planes"][0]["url"]
    left = home.mesh.rows("SELECT datname AS n FROM pg_database UNION SELECT rolname FROM pg_roles", database=server)
    assert not [r for r in left if dbname in r["n"] or urlsplit(dsn).username == r["n"]]
    again = home.verified().post("provisioning", f"/orgs/{home.org_id}/databases", {"name": "main"})
    assert again.status_code == 202, again.text
    home.becomes("ready", again.json()["id"])


def test_a_smaller_plan_lowers_the_limits_and_counts_the_first_database(home: Home) -> None:
    home.advance(days=15)
    eventually(lambda: home.database()["limits"] == {"connections": 5}, timeout=30)
    second = home.verified().post("provisioning", f"/orgs/{home.org_id}/databases", {"name": "second"})
    assert (second.status_code, second.json()["type"]) == (409, "/problems/database-limit")
    home.becomes("ready")
    server = home.mesh.status["data_planes"][0]["url"]
    dbname = home.database()["dbname"]
    assert home.mesh.rows("SELECT datconnlimit AS n FROM pg_database WHERE datname = $1", dbname, database=server) == [{"n": 5}]


def test_suspended_nobody_comes_in_and_nothing_changes_until_resumed(home: Home) -> None:
    dsn = home.dsn()
    org = f"/orgs/{home.org_id}"
    assert home.owner.post("org", f"{org}/suspend", {"reason": "test"}).status_code == 202
    home.becomes("suspended")
    assert not may_log_in(dsn)
    assert home.owner.patch("provisioning", home.path, {"connection_limit": 3}).status_code == 423
    assert home.owner.post("provisioning", f"{home.path}/credentials").status_code == 423
    assert home.owner.post("org", f"{org}/resume").status_code == 202
    home.becomes("ready")
    assert may_log_in(dsn)


def test_suspended_and_resumed_again_and_again_ends_open(home: Home) -> None:
    dsn = home.dsn()
    for _ in range(4):
        assert home.owner.post("org", f"/orgs/{home.org_id}/suspend", {"reason": "test"}).status_code == 202
        resumed = home.owner.post("org", f"/orgs/{home.org_id}/resume")
        assert resumed.status_code == 202
    finished(home.owner, resumed.json()["flow_id"])
    home.becomes("ready")
    assert may_log_in(dsn)
    state = "SELECT wanted, state, generation, observed FROM provisioning.tenants WHERE org_id = $1"
    assert home.rows(state) == [{"wanted": "active", "state": "active", "generation": 9, "observed": 9}]


def test_an_idempotent_repeat_shows_the_same_credentials(home: Home) -> None:
    key = {"Idempotency-Key": f"credentials of {home.id}"}
    first = home.owner.post("provisioning", f"{home.path}/credentials", headers=key)
    again = home.owner.post("provisioning", f"{home.path}/credentials", headers=key)
    assert first.json() == again.json()
    eventually(lambda: may_log_in(first.json()["dsn"]))


def test_a_password_is_nowhere_and_its_verifier_travels_to_the_data_plane_alone(home: Home) -> None:
    password = urlsplit(home.dsn()).password
    tables = home.mesh.rows(
        "SELECT quote_ident(table_name) AS t FROM information_schema.tables WHERE table_schema = 'provisioning' AND table_type = 'BASE TABLE'"
    )
    everything = {r["t"]: str(home.mesh.rows(f"SELECT to_jsonb(x)::text AS row FROM provisioning.{r['t']} x")) for r in tables}
    assert not [t for t, text in everything.items() if str(password) in text]
    assert {t for t, text in everything.items() if "SCRAM-SHA-256$" in text} == {"logins", "tenant_feed"}
    feed = home.mesh.rows("SELECT DISTINCT topic FROM provisioning.tenant_feed WHERE payload LIKE '%SCRAM-SHA-256$%'")
    assert [r["topic"] for r in feed] == ["dataplane.local.assignments"]


def test_credentials_of_two_databases_do_not_open_each_other(home: Home) -> None:
    dsn = home.dsn()
    made = home.verified().post("provisioning", f"/orgs/{home.org_id}/databases", {"name": "other"})
    other = home.becomes("ready", made.json()["id"])
    crossed = urlsplit(dsn)._replace(path="/" + other["dbname"])
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        execute(urlunsplit(crossed), "SELECT 1")
    assert may_log_in(credentials(home.owner, home.org_id, other["id"]))

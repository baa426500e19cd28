"""What the control plane wants becomes so on a real server."""

import asyncio
import os
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from services.agent import catalog
from services.agent.inbox import Record
from services.agent.server import Server as Door
from tests.agent.house import House
from tests.agent.server import BIN, Server
from tests.agent.world import ASSIGNMENTS, Db, Member, Org, World

Within = Callable[..., Awaitable[Any]]
REFUSED = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.ObjectNotInPrerequisiteStateError, asyncpg.TooManyConnectionsError)
ENDED = (asyncpg.PostgresConnectionError, asyncpg.AdminShutdownError, asyncpg.InterfaceError)


async def test_a_database_and_its_logins_are_usable(house: House) -> None:
    server = house.world.server
    assert house.state(house.db.id) == house.state(house.org.id) == "ready"
    await house.owner.run(server, "CREATE TABLE things (id serial, name text)")
    await house.member.run(server, "INSERT INTO things (name) VALUES ('a')")
    assert [row["name"] for row in await house.member.run(server, "SELECT name FROM things")] == ["a"]


async def test_a_member_cannot_change_the_schema(house: House) -> None:
    await house.owner.run(house.world.server, "CREATE TABLE things (id int)")
    for sql in ("CREATE TABLE more (id int)", "DROP TABLE things", "ALTER TABLE things ADD x int", "TRUNCATE things"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await house.member.run(house.world.server, sql)


async def test_new_schemas_are_open_to_members_too(house: House) -> None:
    await house.owner.run(house.world.server, "CREATE SCHEMA app CREATE TABLE app.things (id serial)")
    await house.member.run(house.world.server, "INSERT INTO app.things DEFAULT VALUES")


async def test_what_an_admin_makes_belongs_to_the_organization(house: House) -> None:
    await house.owner.run(house.world.server, "CREATE TABLE things (id int)")
    owner = await house.owner.run(house.world.server, "SELECT tableowner::text AS name FROM pg_tables WHERE tablename = 'things'")
    assert owner[0]["name"] == f"{house.db.name}_admin"


async def test_no_tenant_reaches_anothers_database_or_the_servers_own(house: House, world: World, within: Within) -> None:
    world.watch()
    org = Org()
    db = Db(org)
    other = Member(db)
    world.hear(org.assignment(), org.organization(), db.record(), other.record())
    await within(lambda: world.observed.get(other.id))
    assert await other.run(world.server, "SELECT 1")

    async def sealed() -> bool:
        rows = await world.server.fetch(
            "SELECT 1 FROM pg_database WHERE datallowconn AND datconnlimit <> 0 AND has_database_privilege('public', oid, 'CONNECT')"
        )
        return not rows

    await within(sealed)
    for database in (house.db.name, "postgres", "template1"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await other.connect(world.server, database)


async def test_a_tenant_does_not_see_what_others_do(house: House) -> None:
    for view in ("pg_stat_activity", "pg_locks", "pg_stat_database", "pg_authid"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await house.owner.run(house.world.server, f"SELECT * FROM {view}")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await house.owner.run(house.world.server, "SELECT * FROM pg_stat_get_activity(NULL)")


async def test_an_owner_can_dump_the_database(house: House) -> None:
    await house.owner.run(house.world.server, "CREATE TABLE things (id int)")
    server = house.world.server
    dump = await asyncio.create_subprocess_exec(
        BIN / "pg_dump", "-h", server.host, "-p", str(server.port), "-U", house.owner.username, house.db.name,
        env={**os.environ, "PGPASSWORD": house.owner.password}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    out, errors = await dump.communicate()
    assert (dump.returncode, errors) == (0, b"")
    assert b"CREATE TABLE public.things" in out


async def test_an_owner_cannot_raise_the_limit_or_drop_the_database(house: House) -> None:
    for sql in (f"ALTER DATABASE {house.db.name} CONNECTION LIMIT 99", f"DROP DATABASE {house.db.name}", "CREATE ROLE x", "CREATE DATABASE x"):
        with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.ObjectInUseError)):
            await house.owner.run(house.world.server, sql)


async def test_the_connection_limit_holds_and_changes(house: House, within: Within) -> None:
    world = house.world
    world.hear(house.db.record(limit=1))
    await within(lambda: world.observed[house.db.id].generation == house.org.generation)
    first = await house.owner.connect(world.server)
    with pytest.raises(asyncpg.TooManyConnectionsError):
        await house.member.connect(world.server)
    await first.close()


async def test_suspending_ends_sessions_and_refuses_logins_until_resumed(house: House, within: Within) -> None:
    world = house.world
    session = await house.owner.connect(world.server)
    world.hear(house.org.organization("suspended"))
    await within(lambda: house.state(house.org.id) == house.state(house.owner.id) == "suspended")
    with pytest.raises(ENDED):
        await session.fetch("SELECT 1")
    with pytest.raises(REFUSED):
        await house.owner.connect(world.server)
    late = Member(house.db)
    world.hear(late.record())
    await within(lambda: house.state(late.id) == "suspended")
    with pytest.raises(asyncpg.PostgresError):
        await late.connect(world.server)
    world.hear(house.org.organization("active"))
    await within(lambda: house.state(house.org.id) == house.state(late.id) == "ready")
    assert await late.run(world.server, "SELECT 1")
    assert await house.owner.run(world.server, "SELECT 1")


async def test_suspended_and_resumed_at_once_ends_active(house: House, within: Within) -> None:
    house.world.hear(house.org.organization("suspended"))
    house.world.hear(house.org.organization("active"))
    await within(lambda: house.world.observed[house.org.id].generation == house.org.generation)
    await within(lambda: house.state(house.owner.id) == "ready")
    assert await house.owner.run(house.world.server, "SELECT 1")


async def test_a_rotated_verifier_ends_sessions_and_the_old_password(house: House, within: Within) -> None:
    world, old = house.world, house.owner.password
    session = await house.owner.connect(world.server)
    house.owner.rotate()
    world.hear(house.owner.record())
    await within(lambda: world.observed[house.owner.id].generation == house.org.generation)
    with pytest.raises(ENDED):
        await session.fetch("SELECT 1")
    with pytest.raises(asyncpg.InvalidPasswordError):
        await world.server.connect(house.db.name, house.owner.username, old)
    assert await house.owner.run(world.server, "SELECT 1")


async def test_a_login_without_a_verifier_cannot_log_in_until_it_has_one(house: House, within: Within) -> None:
    world = house.world
    newcomer = Member(house.db)
    newcomer.verifier = None
    world.hear(newcomer.record())
    await within(lambda: house.state(newcomer.id) == "ready")
    with pytest.raises(REFUSED):
        await newcomer.connect(world.server)
    newcomer.rotate()
    world.hear(newcomer.record())
    await within(lambda: world.observed[newcomer.id].generation == house.org.generation)
    await newcomer.run(world.server, "CREATE TABLE mine (id int)")


async def test_a_changed_role_changes_what_may_be_done(house: House, within: Within) -> None:
    world = house.world
    session = await house.owner.connect(world.server)
    house.owner.role, house.member.role = "member", "admin"
    world.hear(house.owner.record(), house.member.record())
    await within(lambda: world.observed[house.member.id].generation == house.org.generation)
    with pytest.raises(ENDED):
        await session.fetch("CREATE TABLE sneaked (id int)")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await house.owner.run(world.server, "CREATE TABLE things (id int)")
    await house.member.run(world.server, "CREATE TABLE things (id int)")


async def test_a_removed_member_is_out_and_what_they_made_stays(house: House, within: Within) -> None:
    world = house.world
    session = await house.owner.connect(world.server)
    await session.execute("SET ROLE NONE; CREATE TABLE mine (id int); INSERT INTO mine VALUES (7)")
    world.hear(house.org.gone(house.owner.id, ASSIGNMENTS))
    await within(lambda: house.state(house.owner.id) == "gone")
    with pytest.raises(ENDED):
        await session.fetch("SELECT 1")
    assert not await world.server.fetch("SELECT 1 FROM pg_roles WHERE rolname = $1", house.owner.username)
    kept = await world.server.fetch("SELECT tableowner::text FROM pg_tables WHERE tablename = 'mine'", database=house.db.name)
    assert kept[0]["tableowner"] == f"{house.db.name}_admin"


async def test_a_deleted_database_refuses_keeps_its_data_and_comes_back(house: House, within: Within) -> None:
    world = house.world
    await house.owner.run(world.server, "CREATE TABLE things AS SELECT 42 AS id")
    session = await house.owner.connect(world.server)
    await session.execute("SET ROLE NONE; CREATE TABLE mine (id int)")
    world.hear(house.db.record("deleted"))
    await within(lambda: house.state(house.db.id) == "deleted")
    with pytest.raises(ENDED):
        await session.fetch("SELECT 1")
    with pytest.raises(REFUSED):
        await house.owner.connect(world.server)
    world.hear(house.org.gone(house.owner.id, ASSIGNMENTS))
    await within(lambda: house.state(house.owner.id) == "gone")
    world.hear(house.db.record("present", limit=3))
    await within(lambda: house.state(house.db.id) == "ready")
    assert [row["id"] for row in await house.member.run(world.server, "SELECT id FROM things")] == [42]


async def test_a_tombstone_drops_the_database_its_roles_and_its_logins(house: House, within: Within) -> None:
    world = house.world
    session = await house.owner.connect(world.server)
    old = house.db.record()
    world.hear(house.org.gone(house.db.id))
    await within(lambda: house.state(house.db.id) == house.state(house.owner.id) == house.state(house.member.id) == "gone")
    with pytest.raises(ENDED):
        await session.fetch("SELECT 1")
    left = await catalog.read(world.door, house.org.id, [house.db.name, house.owner.username])
    assert (left.databases, left.roles) == ({}, {})
    heard = world.hear(old._replace(value=old.value and old.value.replace(b'"generation": 6', b'"generation": 1')))
    assert not heard.changed


async def test_an_older_generation_never_goes_over_a_newer_one(house: House, within: Within) -> None:
    newer, older = house.db.record(limit=9, generation=50), house.db.record(limit=2, generation=49)
    house.world.hear(newer)
    assert not house.world.hear(older).changed
    await within(lambda: house.world.observed[house.db.id].generation == 50)
    rows = await house.world.server.fetch("SELECT datconnlimit FROM pg_database WHERE datname = $1", house.db.name)
    assert rows[0]["datconnlimit"] == 9


async def test_a_tenant_that_left_is_fenced_and_then_dropped(house: House, within: Within) -> None:
    world = house.world
    again = house.org.assignment(generation=1)
    world.hear(house.org.gone(house.org.id, ASSIGNMENTS))
    await within(lambda: house.state(house.owner.id) == "suspended")
    with pytest.raises(REFUSED):
        await house.owner.connect(world.server)
    assert not world.hear(again).changed, "the assignment it had must not bring it back"
    world.hear(house.org.gone(house.db.id, ASSIGNMENTS))
    await within(lambda: house.state(house.db.id) == "gone")
    assert not await world.server.fetch("SELECT 1 FROM pg_database WHERE datname = $1", house.db.name)


async def test_one_resources_trouble_blocks_no_other(house: House, within: Within) -> None:
    world = house.world
    other, taken = Db(house.org), Db(house.org, "postgres")
    stolen = Member(house.db)
    stolen.username = "postgres"
    world.hear(taken.record(), stolen.record(), other.record())
    await within(lambda: house.state(other.id) == "ready" and house.state(taken.id) == house.state(stolen.id) == "failed")
    assert "taken" in (world.observed[taken.id].error or "")
    assert await world.server.fetch("SELECT 1"), "the administrator's role is untouched"


@pytest.mark.parametrize("name", ['we"ird; DROP', "spa ce", "ümlaut", "x" * 56])
async def test_any_name_is_quoted(world: World, within: Within, name: str) -> None:
    org = Org()
    db = Db(org, name)
    login = Member(db)
    login.username = name + "_u"
    world.hear(org.assignment(), org.organization(), db.record(), login.record())
    await within(lambda: world.observed.get(login.id))
    assert world.observed[login.id].state == "ready"
    await login.run(world.server, "CREATE TABLE things (id int)")
    world.hear(org.gone(db.id))
    await within(lambda: world.observed[db.id].state == "gone")


async def test_a_name_too_long_fails_and_says_so(world: World, within: Within) -> None:
    org = Org()
    db = Db(org, "x" * 60)
    world.hear(org.assignment(), db.record())
    await within(lambda: db.id in world.observed)
    assert "longer than" in (world.observed[db.id].error or "")


async def test_a_login_that_comes_before_its_database_waits(world: World, within: Within) -> None:
    org = Org()
    db = Db(org)
    login = Member(db)
    world.hear(login.record())
    world.hear(org.assignment())
    world.hear(db.record())
    await within(lambda: login.id in world.observed)
    assert await login.run(world.server, "SELECT 1")


async def test_a_repeated_record_is_reported_again_and_changes_nothing(house: House) -> None:
    again = house.db.record(generation=70)
    house.world.hear(again)
    assert house.db.id in house.world.hear(again).repeated[house.org.id]
    in_another_trace = again._replace(value=(again.value or b"").replace(b'{"', b'{"traceparent": "00-' + b"a" * 32 + b"-" + b"b" * 16 + b'-01", "', 1))
    assert in_another_trace != again
    assert not house.world.hear(again._replace(again=True)).repeated, "a pool read once more for another tenant was not said again"
    assert house.db.id in house.world.hear(in_another_trace).repeated[house.org.id], "said again by a timer it has a span of its own"


@pytest.mark.parametrize(("key", "value"), [(None, None), (b"", b""), (b"\xff", None), (b"a/b", b"{}"), (None, b"{}"), (b"{}/{}", b"[" * 10_000)])
async def test_a_record_that_says_nothing_is_counted(world: World, key: bytes | None, value: bytes | None) -> None:
    heard = world.hear(Record(ASSIGNMENTS, 0, key, value))
    assert (heard.changed, heard.repeated) == (set(), {})
    assert world.inbox.skipped.total() == 1


async def test_spares_make_it_quick_and_are_refilled(own_server: Server, door: Door, tmp_path: Path, within: Within) -> None:
    world = World(own_server, door, tmp_path, spares=2)
    filling = asyncio.create_task(world.spares.keep_filled())
    await within(lambda: len(world.spares._ready) == 2)
    org = Org()
    dbs = [Db(org) for _ in range(4)]
    world.hear(org.assignment(), *(db.record() for db in dbs))
    await within(lambda: all(db.id in world.observed and world.observed[db.id].state == "ready" for db in dbs))
    await within(lambda: len(world.spares._ready) == 2)
    filling.cancel()
    await world.close()

"""What the data plane loses, and an agent that is killed."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from services.agent import catalog, reconciler
from services.agent.backoff import Backoff
from services.agent.disk import Disk
from services.agent.reconciler import SERVER_RETRY_SECONDS
from services.agent.server import Server as Door
from services.agent.server import quoted
from tests.agent.house import House
from tests.agent.server import Server
from tests.agent.world import ASSIGNMENTS, Db, Member, Org, World

Within = Callable[..., Awaitable[Any]]
REFUSED = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.ObjectNotInPrerequisiteStateError, asyncpg.TooManyConnectionsError)


async def test_drift_is_found_and_mended(house: House, within: Within) -> None:
    world, server = house.world, house.world.server
    suspended = House(world)
    world.hear(suspended.org.assignment(), suspended.org.organization("suspended"), suspended.db.record(), suspended.owner.record())
    world.hear(suspended.org.organization("active"))
    await within(lambda: suspended.state(suspended.owner.id) == "ready")
    world.hear(suspended.org.organization("suspended"))
    await within(lambda: suspended.state(suspended.org.id) == "suspended")
    await server.fetch(f"ALTER ROLE {suspended.owner.username} LOGIN")
    await server.fetch(f"ALTER DATABASE {house.db.name} CONNECTION LIMIT 99")
    await server.fetch(f"GRANT CONNECT ON DATABASE {house.db.name} TO PUBLIC")
    await server.fetch(f"DROP ROLE {house.member.username}")
    await server.fetch(f"ALTER ROLE {house.owner.username} SUPERUSER PASSWORD 'other'")
    world.watch()

    async def mended() -> bool:
        actual = await catalog.read(world.door)
        db, roles = actual.databases[house.db.name], actual.roles
        return (
            db.connection_limit == 5 and db.closed_to_public and house.member.username in roles and not roles[house.owner.username].privileged
            and roles[house.owner.username].password == house.owner.verifier and not roles[suspended.owner.username].can_login
        )  # fmt: skip

    await within(mended)
    assert await house.member.run(server, "SELECT 1")


async def test_a_dropped_group_role_is_made_again(house: House, within: Within) -> None:
    world, server = house.world, house.world.server
    await house.owner.run(server, "CREATE TABLE things (id int)")
    member = f"{house.db.name}_member"
    await server.fetch(f"DROP OWNED BY {member}", database=house.db.name)
    await server.fetch(f"DROP ROLE {member}")
    world.watch()

    async def works() -> bool:
        try:
            return bool(await house.member.run(server, "SELECT count(*) FROM things"))
        except asyncpg.PostgresError:
            return False

    await within(works)


async def test_a_database_lost_on_the_server_is_not_hidden_by_an_empty_one(house: House, within: Within) -> None:
    await house.world.server.fetch(f"DROP DATABASE {house.db.name}")
    house.world.watch()
    await within(lambda: house.state(house.db.id) == "failed")
    assert "restore it" in (house.world.observed[house.db.id].error or "")


async def test_killed_between_any_two_steps_it_converges(own_server: Server, tmp_path: Path, within: Within) -> None:
    """Work is cancelled after a growing number of milliseconds and taken up by a new agent on the same disk and server."""
    org = Org()
    db = Db(org)
    owner = Member(db)
    records = [org.assignment(), org.organization(), db.record(), owner.record()]
    for milliseconds in range(1, 60, 4):
        owner.rotate()
        records[-1] = owner.record()
        door = Door(own_server.url, 4)
        world = World(own_server, door, tmp_path)
        world.hear(*records)
        await asyncio.sleep(milliseconds / 1000)
        await world.close()
        await door.close()
    door = Door(own_server.url, 4)
    world = World(own_server, door, tmp_path)
    world.watch()
    try:
        await within(lambda: owner.id in world.observed and world.observed[owner.id].state == "ready")
        await owner.run(own_server, "CREATE TABLE things (id int)")
    finally:
        await world.close()
        await door.close()


async def test_it_starts_from_disk_alone_and_enforces(house: House, own_server: Server, within: Within) -> None:
    world = house.world
    world.hear(house.org.organization("suspended"))
    await within(lambda: house.state(house.owner.id) == "suspended")
    await world.close()
    await own_server.fetch(f"ALTER ROLE {quoted(house.owner.username)} LOGIN")
    later = World(own_server, world.door, world.disk._folder.parent)
    await later.watch().wait()
    await within(lambda: later.observed.get(house.owner.id) and later.observed[house.owner.id].state == "suspended")
    with pytest.raises(REFUSED):
        await house.owner.connect(own_server)
    await later.close()


async def test_while_the_server_is_away_only_what_is_still_to_be_done_there_has_failed(house: House, own_server: Server, within: Within) -> None:
    world = house.world
    own_server.stop()
    try:
        told = len(world.told)
        world.hear(house.db.record(limit=2))
        await within(lambda: house.state(house.db.id) == "failed")
        assert "cannot be reached" in (world.observed[house.db.id].error or "")
    finally:
        own_server.start()
    await within(lambda: house.state(house.db.id) == "ready", 20)
    assert world.observed[house.db.id].generation == house.org.generation
    assert {one.resource for one in world.told[told:]} == {house.db.id}, "nobody heard of what was as it is wanted"


async def test_who_waited_for_the_server_goes_on_when_it_is_back(house: House, own_server: Server, within: Within, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long they had been told to wait."""
    monkeypatch.setattr(reconciler, "Backoff", lambda least, most: Backoff(600, 600) if most > SERVER_RETRY_SECONDS else Backoff(least, most))
    world = house.world
    await world.watch(every=60).wait()
    own_server.stop()
    try:
        world.hear(house.db.record(limit=3))
        await within(lambda: house.state(house.db.id) == "failed")
    finally:
        own_server.start()
    await within(lambda: house.state(house.db.id) == "ready", 20)


async def test_what_its_disk_had_no_room_for_is_remembered_when_it_has(house: House, own_server: Server, within: Within) -> None:
    world = house.world
    memory = world.disk._folder / "tenants"
    away = memory.rename(memory.with_name("away"))
    known = (away / f"{house.org.id}.json").read_bytes()
    world.hear(house.org.organization("suspended"))
    await within(lambda: house.state(house.owner.id) == "suspended")
    assert (away / f"{house.org.id}.json").read_bytes() == known, "it works on what it cannot remember"
    away.rename(memory)
    await within(lambda: (memory / f"{house.org.id}.json").read_bytes() != known)
    await world.close()
    later = World(own_server, world.door, world.disk._folder.parent)
    assert not later.tenants[house.org.id].open
    await later.close()


def test_on_a_disk_that_cannot_be_written_a_start_is_told_from_those_before_all_the_same(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    (tmp_path / "epoch.json").write_text('{"epoch": 9000000000}')
    assert disk.next_epoch() == 9_000_000_001
    (tmp_path / "epoch.new").mkdir()
    assert disk.next_epoch() == 9_000_000_002


async def test_without_its_disk_it_reports_what_is_there_and_obeys_tombstones(house: House, own_server: Server, tmp_path: Path, within: Within) -> None:
    later = World(own_server, house.world.door, tmp_path / "empty")
    await later.watch().wait()
    assert {one.resource for one in later.reconciler.holding(house.org.id).resources} == {house.db.id, house.owner.id, house.member.id}
    later.hear(house.org.gone(house.db.id, ASSIGNMENTS))
    await within(lambda: house.db.id in later.observed and later.observed[house.db.id].state == "gone")
    assert not await own_server.fetch("SELECT 1 FROM pg_database WHERE datname = $1", house.db.name)
    await later.close()

"""The way from Postgres to Kafka breaks, and records are lost on it."""

import asyncio
import contextlib
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg

from deploy import process
from deploy.databases import CDC, PUBLICATION
from deploy.plan import SERVICES
from deploy.units import units
from tests.faults.alarms import is_raised
from tests.faults.customers import at_work
from tests.faults.registry import NeverHit, case
from tests.faults.world import World

_END_CONNECTOR = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1"
_OFFSETS_TOPIC = "_connect_offsets"


@case("kafka away for 30 s")
async def kafka_away(world: World) -> None:
    """Longer, until it is alarmed."""
    async with world.lab.down("kafka"):
        await asyncio.sleep(30)
        await is_raised(world, "MeshChangesWait", within=15)


@case("connect away for 15 s")
async def connect_away(world: World) -> None:
    async with world.lab.down("connect"):
        await asyncio.sleep(15)


@case("the connector's role may not log in for 10 s")
async def role_revoked(world: World) -> None:
    await world.lab.run(f"ALTER ROLE {CDC} NOLOGIN")
    try:
        await world.lab.rows(_END_CONNECTOR, CDC)
        await asyncio.sleep(10)
    finally:
        await world.lab.run(f"ALTER ROLE {CDC} LOGIN")


@case("the connector's slot is dropped")
async def slot_dropped(world: World) -> None:
    """With everything that was written and not yet read."""
    for _ in range(200):
        await world.lab.rows(_END_CONNECTOR, CDC)
        with contextlib.suppress(asyncpg.ObjectInUseError):
            await world.lab.rows("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
            return
    raise NeverHit("the slot was always in use")


@case("connect's offsets are deleted")
async def offsets_deleted(world: World) -> None:
    async with world.lab.down("connect"):
        await asyncio.to_thread(_delete_topic, world, _OFFSETS_TOPIC)


def _delete_topic(world: World, topic: str) -> None:
    admin = world.lab.mesh.broker.admin()
    for done in admin.delete_topics([topic]).values():
        done.result(10)


@case("kafka's data is wiped")
async def kafka_wiped(world: World) -> None:
    async with world.lab.down("kafka"):
        await asyncio.sleep(0.5)
        await asyncio.to_thread(shutil.rmtree, world.lab.mesh.state.kafka_data)


@case("the slot is invalidated by max_slot_wal_keep_size")
async def slot_invalidated(world: World) -> None:
    """Postgres runs with a small limit while Connect is away, and gives up the slot."""
    mesh, name = world.lab.mesh, "postgres"
    unit = next(u for u in units(mesh.state, mesh.plan) if u.name == name)
    command = unit.command()
    small = [o if "max_slot_wal_keep_size" not in o else "max_slot_wal_keep_size=1MB" for o in command.argv]
    async with world.lab.down("connect", name):
        await asyncio.sleep(1)
        process.start(mesh.state, process.Command(name, small, command.environment, command.user, command.folder))
        for _ in range(60):
            await world.lab.rows("SELECT pg_switch_wal()")
            await world.lab.run("CHECKPOINT")
            if {r["wal_status"] for r in await world.lab.rows("SELECT wal_status FROM pg_replication_slots")} == {"lost"}:
                await is_raised(world, "MeshSlotFillsUp", within=10)
                await world.lab.end(name, number=signal.SIGINT)
                return
            await asyncio.sleep(0.2)
        raise NeverHit("the slot survived")


@contextlib.asynccontextmanager
async def unpublished(world: World, *tables: str) -> AsyncIterator[None]:
    """What is written to these tables inside never reaches Kafka."""
    names = ", ".join(tables)
    await world.lab.run(f"ALTER PUBLICATION {PUBLICATION} DROP TABLE {names}")
    try:
        yield
    finally:
        await world.lab.run(f"ALTER PUBLICATION {PUBLICATION} ADD TABLE {names}")


@case("records lost: one in the middle of a stream")
async def lost_in_the_middle(world: World) -> None:
    home = world.load.homes[-1]
    async with unpublished(world, "org.changes"):
        await world.load.rename(home, "Lost")
    await world.load.rename(home, "Not lost")


@case("records lost: the last of a quiet stream", selected=True)
async def lost_tail(world: World) -> None:
    """Nothing is written to this stream afterwards: the load has no lane there."""
    async with unpublished(world, "org.changes"):
        await world.load.rename(world.load.quiet, f"Quiet {world.load.seed}")


@case("records lost: the tails of many streams, of every service and of the feed")
async def lost_tails(world: World) -> None:
    async with unpublished(world, *(f'"{s}".changes' for s in SERVICES), "provisioning.tenant_feed"):
        await asyncio.sleep(4)


@case("the agent's memory is lost")
async def agent_disk_lost(world: World) -> None:
    folder: Path = world.lab.mesh.state.root / "agents" / "local"
    async with world.lab.down("agent-local"):
        await asyncio.sleep(0.5)
        await asyncio.to_thread(shutil.rmtree, folder)


@case("the data plane cut off for 20 s")
async def data_plane_away(world: World) -> None:
    async with world.lab.down("dataplane-local", "agent-local"):
        await asyncio.sleep(20)


@case("the whole control plane away for 60 s")
async def control_plane_away(world: World) -> None:
    """The data plane's agent starts again meanwhile, from what it last knew. Customers work on in their databases and notice nothing."""
    async with at_work(world, 8, 400), world.lab.down(*SERVICES, "kafka", "connect", "postgres", "mail", "stripe"):
        await asyncio.sleep(5)
        await world.lab.kill("agent-local")
        await asyncio.sleep(55)

"""A disk that is full for a while, and has room again."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import asyncpg

from tests.faults.disks import small_disk
from tests.faults.registry import NeverHit, case
from tests.faults.world import World

_FULL = 15.0
_WORD = "No space left on device"


@contextlib.asynccontextmanager
async def _full(world: World, process: str, folder: Path) -> AsyncIterator[None]:
    """Inside, the process has no room to write in this folder. Raises NeverHit when it has not noticed."""
    disk, log = await small_disk(world, process, folder), world.lab.mesh.state.log(process)
    began = log.stat().st_size
    async with disk.full():
        yield
    if _WORD not in log.read_text(errors="replace")[began:]:
        raise NeverHit(f"{process} had room enough all the time")


async def _for_a_while(often: Callable[[], Awaitable[None]]) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_FULL):
            while True:
                await often()
                await asyncio.sleep(0.5)


@case("disk full: the write-ahead log, for 15 s")
async def wal_full(world: World) -> None:
    """Postgres has to give up until there is room again: it needs a new segment soon, as often as it comes back."""
    server = world.lab.mesh.databases.server

    async def end_the_segment() -> None:
        with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
            connection = await asyncpg.connect(server.url(), timeout=2)
            try:
                await connection.execute("SELECT pg_switch_wal()", timeout=5)
            finally:
                connection.terminate()

    async with _full(world, server.name, server.data / "pg_wal"):
        await _for_a_while(end_the_segment)


@case("disk full: Kafka's log, for 15 s")
async def kafka_full(world: World) -> None:
    """Without a folder that it can write to the broker ends; the supervisor starts it until there is room."""
    async with _full(world, "kafka", world.lab.mesh.state.kafka_data):
        await asyncio.sleep(_FULL)


@case("disk full: the agent's memory, for 15 s")
async def agent_full(world: World) -> None:
    """It goes on working, killed meanwhile as well, and remembers all when there is room."""
    async with _full(world, "agent-local", world.lab.mesh.state.root / "agents" / "local"):
        await asyncio.sleep(_FULL / 2)
        await world.lab.kill("agent-local")
        await asyncio.sleep(_FULL / 2)

"""Customers at work in their own databases, whatever happens to the control plane."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import asyncpg

from tests.faults.load import Home
from tests.faults.registry import NeverHit
from tests.faults.world import World

_EVERY = 1.0
_ERRORS = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)


@contextlib.asynccontextmanager
async def at_work(world: World, count: int, least: int) -> AsyncIterator[None]:
    """Inside, the owners of so many organizations run a statement every second, over a session that stays and over a new one.

    Each that fails is a surprise. Raises NeverHit when there were fewer statements than ``least``.
    """
    steady = world.load.homes[world.load.size.suspending :]
    dsns = [await _credentials(world, home) for home in steady[:count]]
    tasks = [asyncio.create_task(_works(world, dsn)) for dsn in dsns]
    await asyncio.sleep(2 * _EVERY)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        done = sum(n for n in await asyncio.gather(*tasks) if n)
    if done < least:
        raise NeverHit(f"customers ran {done} statements only")


async def _credentials(world: World, home: Home) -> str:
    """Of the organization's first database, usable."""
    (database,) = (id for id, owed in world.load.ledger.databases.items() if owed.org_id == home.org_id and owed.name == "main")
    path = f"/orgs/{home.org_id}/databases/{database}/credentials"
    dsn = str((await world.load.client.send("POST", "provisioning", path, None, home.owner))["dsn"])
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(*_ERRORS):
                await _ask(await asyncpg.connect(dsn, timeout=5), stays=False)
                return dsn
            await asyncio.sleep(0.2)


async def _works(world: World, dsn: str) -> int:
    """Until cancelled; how many statements were answered."""
    done, session = 0, await asyncpg.connect(dsn, timeout=5)
    try:
        while True:
            await asyncio.sleep(_EVERY)
            try:
                await _ask(session, stays=True)
                await _ask(await asyncpg.connect(dsn, timeout=5), stays=False)
            except _ERRORS as error:
                world.surprise(f"a customer's statement failed: {error!r}")
            else:
                done += 2
    except asyncio.CancelledError:
        return done
    finally:
        session.terminate()


async def _ask(connection: asyncpg.Connection, *, stays: bool) -> None:
    try:
        await connection.fetchval("SELECT count(*) FROM pg_class", timeout=5)
    finally:
        if not stays:
            connection.terminate()

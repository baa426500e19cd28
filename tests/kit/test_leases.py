"""A lease ends with the process that holds it, and no other one does."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg
import pytest

from shared import leases
from shared.tx import Database
from tests.kit.conftest import Probe


@asynccontextmanager
async def living(database: Database) -> AsyncIterator[None]:
    """A process of a service, as far as leases go."""
    task = asyncio.create_task(leases.keep(database))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def keeper(probe: Probe) -> AsyncIterator[None]:
    """The probe runs as a service does."""
    async with living(probe.database):
        yield


async def session_of(probe: Probe) -> int | None:
    """The database session that shows that the probe lives."""
    return await probe.admin.fetchval("SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = $1::bigint AND granted", probe.database.holder)


async def shown(probe: Probe, but: int | None = None) -> int:
    """That session, as soon as there is one, or another one than that."""
    async with asyncio.timeout(10):
        while (pid := await session_of(probe)) in (None, but):  # noqa: ASYNC110 - another session is it
            await asyncio.sleep(0.05)
    assert pid
    return pid


async def leased(probe: Probe, holder: int | None) -> Callable[[], Awaitable[bool]]:
    """A piece of work leased for half a minute; tells whether it still is."""
    id = uuid.uuid4()
    await probe.admin.execute(
        "INSERT INTO probe.due (kind, target, id, leased_until, holder) VALUES ('lease', 'org:x', $1, now() + interval '30 s', $2)", id, holder
    )

    async def still() -> bool:
        return bool(await probe.admin.fetchval("SELECT leased_until > now() FROM probe.due WHERE id = $1", id))

    return still


async def ended(still: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while await still():  # noqa: ASYNC110 - another session ends it
            await asyncio.sleep(0.1)


async def test_the_leases_of_a_process_end_with_its_session(probe: Probe, probe_url: str, keeper: None) -> None:
    other = await Database.connect(probe_url, "probe")
    async with living(other):
        theirs, mine, backing_off = await leased(probe, other.holder), await leased(probe, probe.database.holder), await leased(probe, None)
        await ended(await leased(probe, 1))
        assert await theirs(), "it lives"
    other.pool.terminate()
    await ended(theirs)
    assert await mine()
    assert await backing_off(), "work that failed waits its time"


async def test_a_process_that_waits_until_somebody_speaks_of_a_restored_database_is_seen_to_live_again(probe: Probe, probe_url: str, keeper: None) -> None:
    other = await Database.connect(probe_url, "probe")
    lost = await shown(probe)
    async with living(other):
        async with probe.restored():
            await probe.admin.execute("SELECT pg_terminate_backend($1)", lost)
            await asyncio.sleep(2.5)  # it notices within a second, and has tried again
            assert await session_of(probe) is None
        await shown(probe)
        mine = await leased(probe, probe.database.holder)
        await ended(await leased(probe, 1))
        assert await mine()
    await other.close()


async def test_a_session_that_met_an_error_shows_nobody_living_and_another_one_does(probe: Probe, keeper: None) -> None:
    """What a failed session of the pool still held would end when the pool closes it, minutes later."""
    first = await shown(probe)
    async with probe.admin.transaction():
        await probe.admin.execute("LOCK TABLE probe.due")
        await asyncio.sleep(1.5)
        await probe.admin.execute("SELECT pg_cancel_backend($1)", first)
    assert await shown(probe, but=first)


async def test_a_lock_that_an_old_session_still_holds_is_taken_when_that_ends(probe: Probe, probe_url: str) -> None:
    old = await asyncpg.connect(probe_url)
    await old.execute("SELECT pg_advisory_lock($1, $2)", leases._KIND, probe.database.holder)
    held = await shown(probe)
    async with living(probe.database):
        await asyncio.sleep(0.2)
        await old.close()
        assert await shown(probe, but=held)

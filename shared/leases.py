"""Leases end with their holder: what a killed process had taken up is taken up again at once, not when the lease has run out.

Every process keeps one database session with an advisory lock of its own, which ends with it however it ends. A process that
is stopped, not dead, keeps its leases until their time is over.
"""

import asyncio
from functools import partial

from shared.healing import every
from shared.log import log
from shared.tx import Connection, Database

_LOOK_EVERY = 1.0
_TRY_EVERY = 0.5
"""Shorter than the time in which others miss a process twice."""
_KIND = 0x6D657368  # tells these locks from others

_GONE = f"""
SELECT DISTINCT holder FROM due WHERE leased_until > now() AND holder IS NOT NULL
AND holder NOT IN (SELECT objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND classid::bigint = {_KIND})"""
_END = "UPDATE due SET leased_until = '-infinity', holder = NULL WHERE holder = ANY($1) AND leased_until > now()"


async def keep(database: Database) -> None:
    """Shows for ever that this process lives, and ends the leases of those that do not."""
    await every(_TRY_EVERY, partial(_live, database), "show that this process lives")


async def _live(database: Database) -> None:
    """Until the session fails, and is closed: a lock that it kept in the pool would end with it later, while this process lives.

    One that failed without the server knowing may still hold the lock: it is ours when the server has noticed.
    """
    async with database.own_session() as connection:
        while not await connection.fetchval("SELECT pg_try_advisory_lock($1, $2)", _KIND, database.holder):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(_TRY_EVERY)
        await _look_after(database, connection)


async def _look_after(database: Database, connection: Connection) -> None:
    """Who is missing twice in a row is gone: after a restart of the server everybody is missing for a moment."""
    missing: set[int] = set()
    while True:
        now = {r["holder"] for r in await connection.fetch(_GONE)}
        gone = missing & now
        if gone:
            ended = await connection.execute(_END, list(gone))
            log.warning("leases of a process that is gone are ended", extra={"leases": ended})
            database.wake_all()
        missing = now - gone
        await asyncio.sleep(_LOOK_EVERY)

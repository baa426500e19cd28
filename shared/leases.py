"""Leases end with their holder: what a killed process had taken up is taken up again at once, not when the lease has run out.

Every process keeps one database session with an advisory lock of its own, which ends with it however it ends. A process that
is stopped, not dead, keeps its leases until their time is over.
"""

import asyncio

from shared.log import log
from shared.tx import Connection, Database, DatabaseAway

_LOOK_EVERY = 1.0
_KIND = 0x6D657368  # tells these locks from others

_GONE = f"""
SELECT DISTINCT holder FROM due WHERE leased_until > now() AND holder IS NOT NULL
AND holder NOT IN (SELECT objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND classid::bigint = {_KIND})"""
_END = "UPDATE due SET leased_until = '-infinity', holder = NULL WHERE holder = ANY($1) AND leased_until > now()"


async def keep(database: Database) -> None:
    """Shows for ever that this process lives, and ends the leases of those that do not."""
    while True:
        try:
            async with database.session() as connection:
                await connection.execute("SELECT pg_try_advisory_lock($1, $2)", _KIND, database.holder)
                await _look_after(database, connection)
        except DatabaseAway as error:
            log.info("nobody sees that this process lives", extra={"error": repr(error)})
            await asyncio.sleep(0.5)


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

"""The user service's timers."""

from uuid import UUID

from services.user import links, sessions
from shared.tx import Database, Tx
from shared.workers import housekeeping, timer


@timer(links.EXPIRES)
async def expire_the_link(tx: Tx, request_id: UUID) -> None:
    await links.expire(tx, request_id)


@housekeeping(every_seconds=3600)
async def keep_signing_keys(database: Database) -> None:
    """Makes the first signing key at start, and a new one every thirty days."""
    async with database.transaction() as tx:
        await sessions.rotate_signing_key(tx)


@housekeeping(every_seconds=3600)
async def forget_old_failures(database: Database) -> None:
    async with database.transaction() as tx:
        await sessions.forget_old_failures(tx)

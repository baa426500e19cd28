"""Databases: asked for, changed, deleted with time to undo, and what the data plane says of them."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from schemas.billing import Limits
from schemas.feed import Observed
from services.provisioning import feed, logins, observations
from services.provisioning.feed import HeldDatabase, HeldTenant
from services.provisioning.observations import Kind
from shared.errors import NotYet, Refused
from shared.tx import Tx

PURGE = "purge_database"
FIRST = "main"
UNDO = "24 hours"


class DatabaseNameTaken(Refused):
    """The organization has a database of this name, perhaps a deleted one that can still be restored. Take another name."""

    constraint = "database_name_taken"


class DatabaseLimit(Refused):
    """The plan has no room for another database. Delete a database, or ask support for a larger plan; GET /plans of billing lists them."""


class ConnectionLimit(Refused):
    """The plan does not allow so many connections to a database. Take a smaller number, or ask support for a larger plan; GET /plans of billing lists them."""


class DatabaseDeleted(Refused):
    """The database is deleted. Restore it first, at POST /orgs/{org_id}/databases/{database_id}/undelete; it says until when that can be done."""


class NotDeleted(Refused):
    """The database is not deleted, or its data is dropped. Only what is deleted can be restored, and only until the time that it says as undelete_until."""


class PlanNotKnown(Refused):
    """The organization is so new that its plan is not known here yet. Try again."""

    status = 503
    retry_after = 1


class NotPlaced(Refused):
    """The database has no data plane yet. Try again in a moment."""

    status = 503
    retry_after = 1


class Shown(BaseModel):
    """A database as members see it: with the address of its data plane once it has one."""

    id: UUID
    name: str
    state: str
    host: str | None
    port: int | None
    dbname: str
    connection_limit: int
    data_plane: str | None
    undo_until: datetime | None
    error: str | None


class Listed(Shown):
    """One of a list, which is in the order of making."""

    created_at: datetime


_SHOWN = "SELECT d.*, p.host, p.port FROM databases d LEFT JOIN data_planes p ON p.id = d.data_plane WHERE d.org_id = (SELECT tenant())"
LIST = f"{_SHOWN} AND NOT (d.wanted = 'gone' AND d.observed = d.generation)"


async def get(tx: Tx, database_id: UUID) -> Shown:
    return await tx.one(Shown, f"{_SHOWN} AND d.id = $1", database_id)


async def get_open(tx: Tx, database_id: UUID) -> Shown:
    """A database that has an address and is not deleted. Raises :class:`NotPlaced`, :class:`DatabaseDeleted`."""
    shown = await get(tx, database_id)
    if not await tx.value("SELECT true FROM databases WHERE id = $1 AND wanted = 'present'", database_id):
        raise DatabaseDeleted
    if shown.host is None or shown.state == "requested":
        raise NotPlaced
    return shown


async def create(tx: Tx, name: str) -> Shown:
    """Raises :class:`DatabaseNameTaken`, :class:`DatabaseLimit`, :class:`PlanNotKnown`."""
    limits = await _limits(tx)
    await _check_room(tx, limits)
    return await get(tx, (await _make(tx, name, limits.connections)).id)


async def create_first(tx: Tx) -> None:
    """Makes the database that comes with a sign-up, if that is where the organization comes from.

    Raises :class:`NotYet` while the organization is not known.
    """
    origin = await tx.value("SELECT origin FROM organizations WHERE org_id = (SELECT tenant())")
    if origin is None:
        raise NotYet("the organization has not come yet")
    if origin == "sign_up" and not await tx.value("SELECT true FROM databases WHERE org_id = (SELECT tenant()) LIMIT 1"):
        await _make(tx, FIRST, (await _limits(tx)).connections)


async def _make(tx: Tx, name: str, connection_limit: int) -> HeldDatabase:
    """Said at once when the tenant's feed is open, else with its opening."""
    made = await tx.one(
        HeldDatabase,
        "INSERT INTO databases (name, connection_limit, flow_id, data_plane, generation) SELECT $1, $2, $3, t.data_plane, (t.opened IS TRUE)::int "
        "FROM (SELECT tenant() AS org_id) me LEFT JOIN tenants t ON t.org_id = me.org_id RETURNING *",
        name, connection_limit, tx.context.flow_id,
    )  # fmt: skip
    if made.generation:
        await _say(tx, [made])
        await logins.make_for_database(tx, made)
    return made


async def say_waiting(tx: Tx, tenant: HeldTenant) -> None:
    """Says the databases that were asked for before the tenant's feed was open, each in its own flow."""
    waiting = await tx.all(
        HeldDatabase,
        "UPDATE databases SET generation = 1, data_plane = $1 WHERE generation = 0 AND wanted = 'present' RETURNING *",
        tenant.data_plane,
    )
    for database in waiting:
        tx.continue_flow(database.flow_id)
        await feed.say_databases(tx, tenant, [database])
        await logins.make_for_database(tx, database)


async def limit_connections(tx: Tx, database_id: UUID, connection_limit: int) -> Shown:
    """Raises :class:`ConnectionLimit`, :class:`DatabaseDeleted`."""
    if connection_limit > (await _limits(tx)).connections:
        raise ConnectionLimit
    changed = await _want(tx, database_id, "connection_limit = $2", "wanted = 'present'", connection_limit)
    if not changed:
        await get(tx, database_id)
        raise DatabaseDeleted
    return await get(tx, database_id)


async def lower_limits(tx: Tx, connections: int) -> None:
    """Brings every database of the organization within what the plan allows now."""
    await _say(
        tx,
        await tx.all(
            HeldDatabase,
            "UPDATE databases SET connection_limit = $1, error = NULL, repeats = 0, generation = generation + (generation > 0)::int "
            "WHERE connection_limit > $1 AND wanted <> 'gone' RETURNING *",
            connections,
        ),
    )


async def delete(tx: Tx, database_id: UUID) -> Shown:
    """Closes the database and keeps its data until the time to undo has ended. Raises :class:`DatabaseDeleted`."""
    deleted = await _want(tx, database_id, f"wanted = 'deleted', undo_until = mesh_now() + interval '{UNDO}'", "wanted = 'present'")
    shown = await get(tx, database_id)
    if not deleted:
        raise DatabaseDeleted
    await tx.schedule(PURGE, database_id, shown.undo_until)
    return shown


async def undelete(tx: Tx, database_id: UUID) -> Shown:
    """Opens a deleted database again, with its data. Raises :class:`NotDeleted`, :class:`DatabaseLimit`."""
    restored = await _want(tx, database_id, "wanted = 'present', undo_until = NULL", "wanted = 'deleted'")
    if not restored:
        await get(tx, database_id)
        raise NotDeleted
    await _check_room(tx, await _limits(tx), beside=database_id)
    await tx.unschedule(PURGE, database_id)
    await logins.make_for_database(tx, restored)
    return await get(tx, database_id)


async def purge(tx: Tx, database_id: UUID) -> None:
    """The time to undo has ended: the data is dropped, and every login with it."""
    if await _want(tx, database_id, "wanted = 'gone', undo_until = NULL", "wanted = 'deleted'"):
        await logins.remove_of_database(tx, database_id)


async def observe(tx: Tx, seen: Observed) -> bool:
    """Takes in what the data plane says of one database. Answers whether it is known here."""
    known = await observations.observe(tx, KIND, seen) or seen.state == "gone"
    return bool(known or await tx.value("SELECT true FROM databases WHERE id = $1", seen.resource))


async def show_suspended(tx: Tx, *, suspended: bool) -> None:
    await tx.run("UPDATE databases SET suspended = $1 WHERE suspended <> $1", suspended)


async def _want(tx: Tx, database_id: UUID, change: str, where: str, *args: Any) -> HeldDatabase | None:
    """Changes what is wanted of one database and says it; None when it is not in a state for that."""
    wanted = await tx.maybe(
        HeldDatabase,
        f"UPDATE databases SET {change}, error = NULL, repeats = 0, data_plane = coalesce(data_plane, (SELECT data_plane FROM tenants)), "
        f"generation = generation + coalesce((SELECT opened FROM tenants), false)::int WHERE id = $1 AND {where} RETURNING *",
        database_id, *args,
    )  # fmt: skip
    if wanted:
        await _say(tx, [wanted])
    return wanted


async def _say(tx: Tx, changed: list[HeldDatabase]) -> None:
    said = [one for one in changed if one.generation]
    if said:
        await feed.say_databases(tx, await feed.tenant(tx), said)


KIND = Kind("database", "databases", HeldDatabase, _say, removed="(wanted = 'gone')", as_wanted="(wanted = 'deleted') = ($3 = 'deleted')")


async def _check_room(tx: Tx, limits: Limits, beside: UUID | None = None) -> None:
    """For one more database, ``beside`` being that one if it is there already."""
    if await tx.value("SELECT count(*) FROM databases WHERE wanted = 'present' AND id IS DISTINCT FROM $1", beside) >= limits.databases:
        raise DatabaseLimit


async def _limits(tx: Tx) -> Limits:
    limits = await tx.value("SELECT limits FROM subscriptions WHERE org_id = (SELECT tenant())")
    if limits is None:
        raise PlanNotKnown
    return Limits.model_validate(limits)

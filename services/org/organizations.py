"""Organizations: made, renamed, suspended, resumed."""

from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID, uuid5

from pydantic import BaseModel

from schemas.org import Organization, Role, TestClock
from services.org import members
from shared.errors import Refused
from shared.http.callers import Caller
from shared.tx import Tx

Level = Literal["owner", "billing", "operator"]
LEVELS: tuple[Level, ...] = ("owner", "billing", "operator")
_FROM_SIGN_UP = UUID("5f0c4f52-8f0a-4c58-9d1a-0e5a1f6f2b11")


class MyOrganization(BaseModel):
    """An organization as a member sees it."""

    id: UUID
    name: str
    state: str
    suspended_by: str | None
    reason: str | None
    role: Role
    created_at: datetime


MINE = (
    "SELECT o.org_id AS id, o.name, o.state, o.suspended_by, o.reason, o.created_at, m.role "
    "FROM organizations o JOIN memberships m ON m.org_id = o.org_id AND m.user_id = (SELECT person())"
)
"""The organizations of the person who asks, with their role."""


class AlreadySuspended(Refused):
    """The organization is suspended already, by this level or a higher one. There is nothing more to do."""


class NotSuspended(Refused):
    """The organization is not suspended. There is nothing to resume."""


class SuspendedAbove(Refused):
    """The organization was suspended by billing or an operator, who alone may resume it. Ask support."""

    status = 403


def id_from_sign_up(user_id: UUID) -> UUID:
    """The organization made with a person's sign-up: derived, so that reacting twice makes one."""
    return uuid5(_FROM_SIGN_UP, str(user_id))


async def create(tx: Tx, name: str, owner: UUID, origin: Literal["sign_up", "created"]) -> Organization:
    """Makes the organization of this transaction with its first owner."""
    made = await tx.one(Organization, "INSERT INTO organizations (name, origin) VALUES ($1, $2) RETURNING *", name, origin)
    await members.add(tx, owner, "owner")
    return made


async def found(tx: Tx, name: str, owner: UUID) -> Organization:
    """Makes an organization that did not come with a sign-up, under a new id."""
    await tx.enter(f"org:{await tx.value('SELECT gen_random_uuid()')}", user=owner)
    return await create(tx, name, owner, "created")


async def rename(tx: Tx, name: str) -> MyOrganization:
    await tx.run("UPDATE organizations SET name = $1", name)
    return await mine(tx)


async def mine(tx: Tx) -> MyOrganization:
    """The organization as its member sees it who asks."""
    return await tx.one(MyOrganization, f"{MINE} WHERE o.org_id = (SELECT tenant())")


async def get(tx: Tx) -> Organization:
    return await tx.one(Organization, "SELECT * FROM organizations WHERE org_id = (SELECT tenant())")


async def suspend(tx: Tx, level: Level, reason: str) -> Organization:
    """Suspends it, or takes a suspension of a lower level over. Raises :class:`AlreadySuspended` when this level or a higher one did."""
    suspended = await tx.maybe(
        Organization,
        "UPDATE organizations SET state = 'suspended', suspended_by = $1, reason = $2 "
        "WHERE org_id = (SELECT tenant()) AND (state = 'active' OR suspended_by = ANY($3)) RETURNING *",
        level, reason, list(LEVELS[: LEVELS.index(level)]),
    )  # fmt: skip
    if suspended is None:
        raise AlreadySuspended
    return suspended


async def resume(tx: Tx, level: Level) -> Organization:
    """Raises :class:`SuspendedAbove` when a higher level suspended it, :class:`NotSuspended` when nobody did."""
    resumed = await tx.maybe(
        Organization,
        "UPDATE organizations SET state = 'active', suspended_by = NULL, reason = NULL "
        "WHERE org_id = (SELECT tenant()) AND state = 'suspended' AND suspended_by = ANY($1) RETURNING *",
        list(LEVELS[: LEVELS.index(level) + 1]),
    )  # fmt: skip
    if resumed is None:
        raise SuspendedAbove if (await get(tx)).state == "suspended" else NotSuspended
    return resumed


async def advance_clock(tx: Tx, by: timedelta) -> TestClock:
    """Moves the organization's business time forward, for tests: timers up to then fall due everywhere."""
    return await tx.one(
        TestClock,
        "INSERT INTO test_clocks (advanced) VALUES ($1) ON CONFLICT (org_id) DO UPDATE SET advanced = test_clocks.advanced + excluded.advanced "
        "RETURNING org_id, advanced::text",
        by,
    )


def level_of(caller: Caller) -> Level:
    return "operator" if caller.kind == "operator" else "owner"

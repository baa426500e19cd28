"""Desired state on its way to the data planes: the one place that writes ``tenant_feed``.

Said again and again until observed: every resource that is said is looked after by a timer, longer apart each time.
"""

from collections.abc import Iterable
from datetime import timedelta
from typing import Literal
from uuid import UUID

from schemas.feed import (
    Assignment,
    DatabaseResource,
    Desired,
    DesiredAssignment,
    DesiredDatabase,
    DesiredLogin,
    DesiredOrganization,
    Login,
    OrganizationResource,
)
from schemas.provisioning import Database, Tenant
from schemas.provisioning import Login as LoginRow
from shared.settings import settings
from shared.tx import Tx

Kind = Literal["tenant", "database", "login"]

POOL = 20
"""Tenants that share a topic, about: an agent reads a pool from its beginning for each tenant that joins it."""

_FIRST, _LONGEST = timedelta(seconds=10), timedelta(minutes=5)


class HeldTenant(Tenant):
    """A tenant with what its data plane is told."""

    topic: str
    assignment_generation: int
    opened: bool
    wanted: Literal["active", "suspended"]
    repeats: int

    @property
    def assignments(self) -> str:
        return f"dataplane.{self.data_plane}.assignments"


class HeldDatabase(Database):
    """A database with what its data plane is told."""

    dbname: str
    flow_id: UUID | None
    repeats: int


class HeldLogin(LoginRow):
    """A login with what its data plane is told."""

    verifier: str | None
    removed: bool
    repeats: int


async def topic_for(tx: Tx, org_id: UUID, data_plane: str) -> str:
    """Where a tenant that is to be placed will be told of: a topic of its own while there is room for one each, else one that it shares
    with others of its data plane. The name is kept with the tenant; all else is the same.
    """
    everywhere, here = (await tx.records("SELECT count(*), count(*) FILTER (WHERE data_plane = $1) FROM placements", data_plane))[0]
    return f"tenant.{org_id}.feed" if everywhere < settings().own_feed_topics else f"pool.{data_plane}.{here // POOL}.feed"


async def tenant(tx: Tx) -> HeldTenant:
    """The tenant of this transaction. Raises :class:`shared.errors.NotFound` before it has a place."""
    return await tx.one(HeldTenant, "SELECT * FROM tenants")


async def say_tenant(tx: Tx, tenant: HeldTenant) -> None:
    """Who holds the tenant, then whether its logins may connect. Nothing before the feed is open."""
    if not tenant.opened:
        return
    org_id, said = tenant.org_id, _in_flow(tx)
    assignment = Assignment(org_id=org_id, resource=org_id, generation=tenant.assignment_generation, desired=DesiredAssignment(topic=tenant.topic), **said)
    organization = OrganizationResource(org_id=org_id, resource=org_id, generation=tenant.generation, desired=DesiredOrganization(state=tenant.wanted), **said)
    await _insert(tx, [(tenant.assignments, assignment), (tenant.topic, organization)])
    await _look_after(tx, "tenant", org_id, tenant.repeats)


async def say_databases(tx: Tx, tenant: HeldTenant, databases: Iterable[HeldDatabase]) -> None:
    """What these databases are to be; a tombstone for one that is to be gone."""
    for database in databases:
        if database.wanted == "gone":
            await _remove(tx, tenant.topic, database.org_id, database.id)
        else:
            desired = DesiredDatabase(name=database.dbname, state=database.wanted, connection_limit=database.connection_limit)
            resource = DatabaseResource(org_id=database.org_id, resource=database.id, generation=database.generation, desired=desired, **_in_flow(tx))
            await _insert(tx, [(tenant.topic, resource)])
        await _look_after(tx, "database", database.id, database.repeats)


async def say_logins(tx: Tx, tenant: HeldTenant, logins: Iterable[HeldLogin]) -> None:
    """What these logins are to be; verifiers travel here alone, to the data plane's own topic."""
    for login in logins:
        if login.removed:
            await _remove(tx, tenant.assignments, login.org_id, login.id)
        else:
            desired = DesiredLogin(database=login.database_id, username=login.username, verifier=login.verifier, role=login.role)
            resource = Login(org_id=login.org_id, resource=login.id, generation=login.generation, desired=desired, **_in_flow(tx))
            await _insert(tx, [(tenant.assignments, resource)])
        await _look_after(tx, "login", login.id, login.repeats)


async def refuse_login(tx: Tx, tenant: HeldTenant, resource: UUID) -> None:
    """Answers a login that nobody here knows: it is to be gone."""
    await _remove(tx, tenant.assignments, tenant.org_id, resource)


async def forget(tx: Tx) -> None:
    """Drops what was said a day ago: the topics keep the newest of each, the tables here know the rest."""
    await tx.run("SELECT forget_feed()")


def unobserved(kind: Kind) -> str:
    """The timer that says a resource again."""
    return f"{kind}_unobserved"


async def _look_after(tx: Tx, kind: Kind, id: UUID, repeats: int) -> None:
    wait = min(_FIRST * 2 ** min(repeats, 8), _LONGEST)
    await tx.schedule(unobserved(kind), id, await tx.value("SELECT mesh_now() + $1", wait))


def _in_flow(tx: Tx) -> dict[str, object]:
    return {"flow_id": tx.context.flow_id, "traceparent": tx.context.traceparent}


async def _insert(tx: Tx, said: list[tuple[str, Desired]]) -> None:
    for topic, resource in said:
        await tx.run("INSERT INTO tenant_feed (topic, key, payload) VALUES ($1, $2, $3)", topic, resource.key, resource.model_dump_json())


async def _remove(tx: Tx, topic: str, org_id: UUID, resource: UUID) -> None:
    await tx.run("INSERT INTO tenant_feed (topic, key) VALUES ($1, $2)", topic, f"{org_id}/{resource}")

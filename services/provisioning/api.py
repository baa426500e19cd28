"""The provisioning service's doors."""

from datetime import datetime
from typing import Annotated, Self
from urllib.parse import quote
from uuid import UUID

from pydantic import BaseModel, Field

from schemas.provisioning import DatabaseState
from services.provisioning import databases, grants
from shared.http.callers import IfMatch, Member, OrgAdmin, TenantTx, VerifiedPerson
from shared.http.pages import Page, Paged, page
from shared.http.routing import Body, Flowing, View, new_router
from shared.tx import Tx

router = new_router(tags=["provisioning"])

Name = Annotated[
    str, Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$", description="Lower-case letters, digits, _ and -, a letter first, at most 40", examples=["main"])
]


class CreateBody(Body):
    name: Name


class ChangeBody(Body):
    connection_limit: Annotated[int, Field(ge=1, le=100_000)]


class DatabaseLimits(View):
    """Connections that the database accepts at the same time."""

    connections: int


class DatabaseView(View):
    """``host`` and ``port`` are null until the organization has a data plane; ``dbname`` is the name to connect with, which follows from the id.

    ``undelete_until`` says of a deleted one until when it can be restored. ``error`` says why the state is ``failed``.
    """

    id: UUID
    name: str
    state: DatabaseState
    host: str | None
    port: int | None
    dbname: str
    limits: DatabaseLimits
    data_plane: str | None
    undelete_until: datetime | None
    error: str | None

    @classmethod
    def showing(cls, database: databases.Shown) -> Self:
        return cls.model_validate(database.model_dump() | {"limits": {"connections": database.connection_limit}, "undelete_until": database.undo_until})


class StartedDatabase(DatabaseView, Flowing):
    @classmethod
    def of(cls, tx: Tx, row: BaseModel | None = None) -> Self:
        return super().of(tx, DatabaseView.showing(row) if isinstance(row, databases.Shown) else row)


class CredentialsView(Flowing):
    """Shown once: the password is stored nowhere. It works as soon as the data plane has it, which the flow tells."""

    username: str
    password: str
    dsn: str


@router.post("/orgs/{org_id}/databases", status_code=202)
async def create(org_id: UUID, body: CreateBody, verified: VerifiedPerson, caller: OrgAdmin, tx: TenantTx) -> StartedDatabase:
    """Makes a database in the organization's data plane, with the plan's number of connections."""
    return StartedDatabase.of(tx, await databases.create(tx, body.name))


@router.get("/orgs/{org_id}/databases")
async def list_databases(org_id: UUID, caller: Member, tx: TenantTx, query: Paged) -> Page[DatabaseView]:
    """All databases that are not gone, deleted ones that can be restored among them."""
    found = await page(tx, databases.Listed, query, databases.LIST)
    return Page[DatabaseView](items=[DatabaseView.showing(one) for one in found.items], next=found.next)


@router.get("/orgs/{org_id}/databases/{database_id}")
async def get(org_id: UUID, database_id: UUID, caller: Member, tx: TenantTx) -> DatabaseView:
    """One database with its address and state."""
    return DatabaseView.showing(await databases.get(tx, database_id))


@router.patch("/orgs/{org_id}/databases/{database_id}", status_code=202)
async def change(org_id: UUID, database_id: UUID, body: ChangeBody, caller: OrgAdmin, tx: TenantTx, if_match: IfMatch) -> StartedDatabase:
    """Changes how many connections the database accepts, within the plan."""
    if_match.check(DatabaseView.showing(await databases.get(tx, database_id)))
    return StartedDatabase.of(tx, await databases.limit_connections(tx, database_id, body.connection_limit))


@router.delete("/orgs/{org_id}/databases/{database_id}", status_code=202)
async def delete(org_id: UUID, database_id: UUID, caller: OrgAdmin, tx: TenantTx, if_match: IfMatch) -> StartedDatabase:
    """Closes the database at once. Its data is dropped after 24 hours, at `undelete_until`; until then it can be restored."""
    if_match.check(DatabaseView.showing(await databases.get(tx, database_id)))
    return StartedDatabase.of(tx, await databases.delete(tx, database_id))


@router.post("/orgs/{org_id}/databases/{database_id}/undelete", status_code=202)
async def undelete(org_id: UUID, database_id: UUID, caller: OrgAdmin, tx: TenantTx) -> StartedDatabase:
    """Restores a deleted database with its data."""
    return StartedDatabase.of(tx, await databases.undelete(tx, database_id))


@router.post("/orgs/{org_id}/databases/{database_id}/credentials", status_code=201)
async def issue_credentials(org_id: UUID, database_id: UUID, caller: Member, tx: TenantTx) -> CredentialsView:
    """The caller's own credentials for the database. A second call makes new ones and ends the old ones with their sessions."""
    database, issued = await grants.issue_credentials(tx, database_id, caller.person)
    dsn = f"postgresql://{issued.username}:{quote(issued.password, safe='')}@{database.host}:{database.port}/{database.dbname}"
    return CredentialsView(username=issued.username, password=issued.password, dsn=dsn, flow_id=tx.context.flow_id)

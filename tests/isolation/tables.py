"""Tables as their service's application role meets them: found in the catalog, entered as somebody."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

from deploy.contracts import services
from tests.isolation.tenants import Tenant, look
from tests.mesh import TestMesh

_CATALOG = """
    SELECT c.relname AS name, c.relkind::text AS kind, s.reason, c.relrowsecurity AND c.relforcerowsecurity AS secured,
           has_table_privilege($1 || '_app', c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')
               OR has_any_column_privilege($1 || '_app', c.oid, 'SELECT, INSERT, UPDATE') AS reachable,
           has_table_privilege($1 || '_app', c.oid, 'INSERT') AS insertable,
           has_table_privilege($1 || '_app', c.oid, 'DELETE') AS deletable,
           NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND 0 = ANY (p.polroles) AND p.polcmd IN ('*', 'r')
               AND pg_get_expr(p.polqual, c.oid) <> 'false') AS hidden,
           ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
               AND a.attgenerated = '' ORDER BY a.attnum) AS columns,
           ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
               AND a.attgenerated = '' AND has_column_privilege($1 || '_app', c.oid, a.attnum, 'UPDATE') ORDER BY a.attnum) AS changeable
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN {schema}.shared_tables s ON s.name = c.relname
     WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'v', 'm', 'f') ORDER BY 1"""


@dataclass(frozen=True)
class Table:
    """A table, partition or view of a service's schema, and what its application role may do with it."""

    service: str
    name: str
    kind: str
    reason: str | None
    """Why it belongs to no tenant, as its migration says."""
    secured: bool
    """Row-level security is on and forced."""
    reachable: bool
    insertable: bool
    deletable: bool
    hidden: bool
    """Its policies show no row to anybody."""
    columns: list[str]
    changeable: list[str]

    def __str__(self) -> str:
        return f"{self.service}.{self.name}"

    @property
    def sql(self) -> str:
        return f'"{self.service}"."{self.name}"'


def every_table(mesh: TestMesh) -> list[Table]:
    found = []
    for service in services():
        found += [Table(service, **row) for row in look(mesh, service, _CATALOG.format(schema=f'"{service}"'), service)]
    return found


@asynccontextmanager
async def entered(mesh: TestMesh, service: str, who: Tenant | None, *, writing: bool = False) -> AsyncIterator[asyncpg.Connection]:
    """The application role's own connection in a transaction of that tenant's owner, or of nobody, taken back at the end."""
    connection = await asyncpg.connect(mesh.mesh.databases.url(service, "app"))
    transaction = connection.transaction()
    await transaction.start()
    try:
        org_id, user_id = (who.org_id, who.owner.user_id) if who else (None, None)
        streams = [f"org:{org_id}", f"user:{user_id}"] if writing and who else []
        await connection.execute("SELECT enter($1::text::uuid, $2::text::uuid, '{}', $3)", org_id, user_id, streams)
        yield connection
    finally:
        await transaction.rollback()
        await connection.close()


async def rows(connection: asyncpg.Connection, table: Table) -> list[str]:
    """Every row that is seen, as JSON text."""
    return [r[0] for r in await connection.fetch(f"SELECT to_jsonb(t)::text FROM {table.sql} t")]


async def attempt(connection: asyncpg.Connection, sql: str, *args: Any) -> list[str] | asyncpg.PostgresError:
    """The rows the statement met, or what the database said instead. It leaves nothing."""
    savepoint = connection.transaction()
    await savepoint.start()
    try:
        return [r[0] for r in await connection.fetch(sql, *args)]
    except asyncpg.PostgresError as error:
        return error
    finally:
        await savepoint.rollback()

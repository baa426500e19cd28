"""Prepares the control plane's databases: each service's schema and roles, the publication, the connector's role."""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

import asyncpg

from deploy.plan import Plan
from deploy.postgres import Server, control_plane
from deploy.state import State
from shared import migrations

CDC = "mesh_cdc"
PUBLICATION = "mesh"
_LOGINS = ("owner", "app")


@dataclass(frozen=True)
class Databases:
    """The databases of one mesh. Preparing them twice changes nothing the second time and loses no row."""

    state: State
    plan: Plan

    @property
    def server(self) -> Server:
        return control_plane(self.state, self.plan)

    def url(self, service: str, role: str) -> str:
        """How ``owner`` or ``app`` of a service enters its database."""
        return self._url(f"{service}_{role}", self.plan.database_of(service))

    def _url(self, role: str, database: str) -> str:
        return f"postgresql://{role}:{self._password(role)}@{self.server.url(database).split('@', 1)[1]}"

    def _password(self, role: str) -> str:
        return self.state.secret(f"postgres:{role}")

    async def prepare(self) -> None:
        await asyncio.to_thread(self.make_secrets)
        server = await asyncpg.connect(self.server.url())
        try:
            for statement in self._roles():
                await server.execute(statement)
            present = {row["datname"] for row in await server.fetch("SELECT datname FROM pg_database")}
            for database in self.plan.placement:
                if database not in present:
                    await server.execute(f'CREATE DATABASE "{database}"')
        finally:
            await server.close()
        await asyncio.gather(*(self._prepare_database(name, services) for name, services in self.plan.placement.items()))

    async def restored(self) -> list[str]:
        """The services whose rows were written in another database than the one they are in now."""
        return [service for services in self.plan.placement.values() for service in services if await self._is_restored(service)]

    async def _is_restored(self, service: str) -> bool:
        connection = await asyncpg.connect(self.url(service, "owner"))
        try:
            return bool(await connection.fetchval("SELECT identity <> database_identity() FROM incarnation"))
        finally:
            await connection.close()

    def make_secrets(self) -> None:
        """A password for everybody who logs in."""
        self._password(CDC)
        for services in self.plan.placement.values():
            for service in services:
                for kind in _LOGINS:
                    self._password(f"{service}_{kind}")

    def _roles(self) -> Iterable[str]:
        """Roles belong to the server, so all of them come first."""
        yield _role(CDC, "LOGIN REPLICATION", self._password(CDC))
        for services in self.plan.placement.values():
            for service in services:
                yield _role(f"{service}_owner", "LOGIN", self._password(f"{service}_owner"))
                yield _role(f"{service}_app", "LOGIN", self._password(f"{service}_app"))
                yield _role(f"{service}_replica", "NOLOGIN", None)
                yield f'GRANT "{service}_replica" TO "{service}_app" WITH INHERIT FALSE, SET TRUE'
                for kind in ("owner", "app", "replica"):
                    yield f'ALTER ROLE "{service}_{kind}" SET search_path = "{service}"'
                yield f"ALTER ROLE \"{service}_app\" SET transaction_timeout = '30s'"

    async def _prepare_database(self, database: str, services: tuple[str, ...]) -> None:
        connection = await asyncpg.connect(self.server.url(database))
        try:
            for statement in self._schemas(database, services):
                await connection.execute(statement)
            await asyncio.gather(*(migrations.migrate(service, self.url(service, "owner")) for service in services))
            await _publish(connection, services)
            await _reserve_log(connection)
        finally:
            await connection.close()

    def _schemas(self, database: str, services: tuple[str, ...]) -> Iterable[str]:
        yield f'REVOKE ALL ON DATABASE "{database}" FROM PUBLIC'
        yield "REVOKE ALL ON SCHEMA public FROM PUBLIC"
        for service in services:
            yield f'GRANT CONNECT ON DATABASE "{database}" TO "{service}_owner", "{service}_app"'
            yield f'CREATE SCHEMA IF NOT EXISTS "{service}" AUTHORIZATION "{service}_owner"'
            yield f'GRANT USAGE ON SCHEMA "{service}" TO "{CDC}"'
        yield f'GRANT CONNECT ON DATABASE "{database}" TO "{CDC}"'
        yield f'CREATE SCHEMA IF NOT EXISTS "{CDC}"'
        yield f'GRANT USAGE ON SCHEMA "{CDC}" TO "{CDC}"'
        yield f'CREATE TABLE IF NOT EXISTS "{CDC}".heartbeat (one boolean PRIMARY KEY DEFAULT true CHECK (one), at timestamptz NOT NULL)'
        yield f'INSERT INTO "{CDC}".heartbeat (at) VALUES (now()) ON CONFLICT DO NOTHING'
        yield f'GRANT SELECT, UPDATE ON "{CDC}".heartbeat TO "{CDC}"'


async def renew_lost_slot(url: str, database: str) -> bool:
    """A slot that Postgres has given up, because its log grew past ``max_slot_wal_keep_size``, only keeps the connector from a new one.

    What was lost with it is missed by its numbers, and sent again. True when there was one.
    """
    connection = await asyncpg.connect(url)
    try:
        lost = "FROM pg_replication_slots WHERE slot_name = $1 AND wal_status = 'lost' AND NOT active"
        dropped = await connection.fetch(f"SELECT pg_drop_replication_slot(slot_name) {lost}", database)
        if dropped:
            await _reserve_log(connection)
        return bool(dropped)
    finally:
        await connection.close()


async def _publish(connection: "asyncpg.Connection[asyncpg.Record]", services: tuple[str, ...]) -> None:
    """One publication a database, of each service's change log and the tenant feed, and nothing else: the connector fails for
    everybody at a table whose topic it may not write. The logs are partitioned: what is inserted travels under the name of the whole table.
    """
    tables = await connection.fetch(
        """SELECT format('%I.%I', n.nspname, c.relname) AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE NOT c.relispartition AND c.relkind IN ('r', 'p') AND n.nspname = ANY($1)
             AND (c.relname = 'changes' OR (n.nspname, c.relname) = ('provisioning', 'tenant_feed')) ORDER BY 1""",
        services,
    )
    names = ", ".join(row["name"] for row in tables)
    if not await connection.fetchval("SELECT 1 FROM pg_publication WHERE pubname = $1", PUBLICATION):
        await connection.execute(f"CREATE PUBLICATION {PUBLICATION} WITH (publish = 'insert', publish_via_partition_root = true)")
    published = await connection.fetch(
        "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_publication_tables WHERE pubname = $1 ORDER BY 1",
        PUBLICATION,
    )
    if tables and published != tables:
        await connection.execute(f"ALTER PUBLICATION {PUBLICATION} SET TABLE {names}")


async def _reserve_log(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Make the connector's slot before any service writes: what is written before Connect is up travels too.

    The connector itself, or the supervisor, may be making it just then; what is written until it is usable is missed by its numbers.
    """
    with contextlib.suppress(asyncpg.DuplicateObjectError):
        await connection.execute(
            "SELECT pg_create_logical_replication_slot(current_database()::name, 'pgoutput') "
            "WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = current_database())"
        )


def _role(name: str, attributes: str, password: str | None) -> str:
    """Make the role, or set it right. Only the verifier of the password reaches the server."""
    secret = f" PASSWORD ''{_verifier(password)}''" if password else ""
    attributes = f"{attributes} NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE{secret}"
    return f"""DO $$ BEGIN
        EXECUTE CASE WHEN EXISTS (SELECT FROM pg_roles WHERE rolname = '{name}') THEN 'ALTER' ELSE 'CREATE' END
             || ' ROLE "{name}" {attributes}';
    END $$"""


def _verifier(password: str, iterations: int = 4096) -> str:
    """SCRAM-SHA-256 as Postgres stores it."""
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    salt_text, stored_text, server_text = (base64.b64encode(part).decode() for part in (salt, stored, server))
    return f"SCRAM-SHA-256${iterations}:{salt_text}${stored_text}:{server_text}"

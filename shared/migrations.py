"""Brings a service's schema to the newest version: the kit's migrations, then the service's own.

Forward only, checksummed, safe when several replicas start together (an advisory lock), each file in its own transaction with
a ``lock_timeout`` so that a migration never queues behind a long reader and blocks everyone else.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from shared.failpoints import failpoint

KIT = Path(__file__).parent / "migrations"
SERVICES = Path(__file__).parent.parent / "services"

_GRANTS = """
GRANT USAGE ON SCHEMA "{s}" TO "{s}_app", "{s}_replica", mesh_cdc;
ALTER DEFAULT PRIVILEGES IN SCHEMA "{s}" GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO "{s}_app";
ALTER DEFAULT PRIVILEGES IN SCHEMA "{s}" GRANT USAGE ON SEQUENCES TO "{s}_app";
CREATE TABLE IF NOT EXISTS migrations (name text PRIMARY KEY, checksum text NOT NULL, at timestamptz NOT NULL DEFAULT now());
"""

_CLOSE_THE_LOG = """
REVOKE ALL ON incarnation, streams, changes, published, heads_sent, shared_tables, migrations, replicas FROM "{s}_app";
GRANT SELECT ON published, replicas, incarnation, streams, migrations TO "{s}_app";
GRANT SELECT ON changes TO mesh_cdc;
"""


class MigrationChanged(Exception):
    """A migration that was already applied has other text now: add a new file instead of editing it."""


@dataclass(frozen=True)
class Migration:
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations_of(service: str) -> list[Migration]:
    """The kit's migrations, then the service's, each in the order of their file names."""
    own = SERVICES / service / "migrations"
    files = [("kit", f) for f in sorted(KIT.glob("*.sql"))] + [(service, f) for f in sorted(own.glob("*.sql"))]
    return [Migration(f"{origin}/{file.name}", file.read_text()) for origin, file in files]


async def migrate(service: str, owner_url: str) -> list[str]:
    """Applies what is missing to the schema named like the service and answers the names applied.

    ``owner_url`` connects as ``<service>_owner``; the roles ``<service>_app``, ``<service>_replica`` and ``mesh_cdc`` exist.
    Raises :class:`MigrationChanged`, or the database's error for a file that fails (nothing of that file stays).
    """
    connection = await asyncpg.connect(owner_url, server_settings={"search_path": f'"{service}"', "TimeZone": "UTC"})
    try:
        await connection.execute("SELECT pg_advisory_lock(hashtext('migrate ' || $1))", service)
        return await _apply_missing(connection, service)
    finally:
        await connection.close()


async def _apply_missing(connection: asyncpg.Connection, service: str) -> list[str]:
    async with connection.transaction():
        await connection.execute(_GRANTS.format(s=service))
    done = {r["name"]: r["checksum"] for r in await connection.fetch("SELECT name, checksum FROM migrations")}
    applied = []
    for migration in migrations_of(service):
        if done.get(migration.name, migration.checksum) != migration.checksum:
            raise MigrationChanged(f"{migration.name} was applied to schema {service} with other text; add a new file instead")
        if migration.name in done:
            continue
        async with connection.transaction():
            await connection.execute("SET LOCAL lock_timeout = '5s'")
            await connection.execute(migration.sql)
            failpoint("migration")
            await connection.execute("INSERT INTO migrations (name, checksum) VALUES ($1, $2)", migration.name, migration.checksum)
        applied.append(migration.name)
    async with connection.transaction():
        await connection.execute(_CLOSE_THE_LOG.format(s=service))
    return applied

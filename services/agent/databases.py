"""Tenants' databases: made, limited, closed, dropped.

A spare is a finished database under a name of its own, with its two group roles. Taking one renames the three, so the slow
part happens before anyone asks, and the part that counts is one transaction: there is no half-made database to clean up.
"""

import asyncio
import secrets
from collections.abc import Iterable
from uuid import UUID

import asyncpg

from services.agent.catalog import SPARE, mark
from services.agent.server import Server, literal, quoted
from shared.log import log

HIDDEN = (
    "pg_stat_activity", "pg_stat_database", "pg_stat_database_conflicts", "pg_stat_ssl", "pg_stat_gssapi", "pg_locks",
    "pg_stat_replication", "pg_replication_slots", "pg_stat_progress_vacuum", "pg_prepared_xacts",
)  # fmt: skip
"""Views of the whole server that say what other tenants do. (Names of databases and roles stay readable: pg_dump needs them.)"""

LONGEST_NAME = 63 - len("_member")
"""In bytes: the group roles' names must fit an identifier too."""


def groups(database: str) -> tuple[str, str]:
    return f"{database}_admin", f"{database}_member"


def _furnish(database: str) -> list[str]:
    """Statements, run inside the database, that give the group roles what they need. They may run again at any time."""
    db, (admin, member) = quoted(database), map(quoted, groups(database))
    theirs = f"ALTER DEFAULT PRIVILEGES FOR ROLE {admin} GRANT"
    return [
        f"REVOKE ALL ON DATABASE {db} FROM PUBLIC",
        f"GRANT CONNECT, CREATE, TEMPORARY ON DATABASE {db} TO {admin}",
        f"GRANT CONNECT, TEMPORARY ON DATABASE {db} TO {member}",
        "CREATE SCHEMA IF NOT EXISTS public",
        f"ALTER SCHEMA public OWNER TO {admin}",
        "REVOKE ALL ON SCHEMA public FROM PUBLIC",
        f"GRANT USAGE ON SCHEMA public TO {member}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {member}",
        f"GRANT USAGE, SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA public TO {member}",
        f"{theirs} USAGE ON SCHEMAS TO {member}",
        f"{theirs} SELECT, INSERT, UPDATE, DELETE ON TABLES TO {member}",
        f"{theirs} USAGE, SELECT, UPDATE ON SEQUENCES TO {member}",
        *(f"REVOKE ALL ON pg_catalog.{view} FROM PUBLIC" for view in HIDDEN),
        "REVOKE ALL ON FUNCTION pg_catalog.pg_stat_get_activity(integer), pg_catalog.pg_lock_status() FROM PUBLIC",
    ]


async def seal(server: Server) -> None:
    """Nobody but the administrator connects to the server's own databases."""
    async with server.admin() as connection:
        for name in await connection.fetch(
            "SELECT datname FROM pg_database WHERE datname IN ('postgres', 'template1', current_database())"
            " AND has_database_privilege('public', oid, 'CONNECT')"
        ):
            await connection.execute(f"REVOKE ALL ON DATABASE {quoted(name['datname'])} FROM PUBLIC")


class Spares:
    """A few databases made ahead of need."""

    def __init__(self, server: Server, size: int) -> None:
        self._server = server
        self._size = size
        self._ready: list[str] = []
        self._made: set[str] = set()
        self._wanted = asyncio.Event()
        self._wanted.set()
        self._building = asyncio.Semaphore(2)

    async def keep_filled(self) -> None:
        """Runs until cancelled. Takes over what an earlier agent left ready, drops what it left unfinished."""
        pause, tidy = 0.5, False
        while True:
            try:
                if not tidy:
                    await self._tidy()
                    tidy = True
                self._wanted.clear()
                while len(self._ready) < self._size:
                    self._ready.append(await self._build())
                pause = 0.5
                await self._wanted.wait()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                log.warning("no spare database could be made, next attempt in %.1f s: %s", pause, type(error).__name__)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 30)

    async def take(self) -> str:
        """The name of a spare that nobody else has; made now if none is ready."""
        if self._ready:
            self._wanted.set()
            return self._ready.pop()
        return await self._build()

    def give_back(self, name: str) -> None:
        self._ready.append(name)

    async def _build(self) -> str:
        name = SPARE + secrets.token_hex(8)
        self._made.add(name)
        async with self._building:
            async with self._server.admin() as connection:
                await connection.execute("".join(f"CREATE ROLE {quoted(group)} NOLOGIN;" for group in groups(name)))
                await connection.execute(f"CREATE DATABASE {quoted(name)} TEMPLATE template0 CONNECTION LIMIT 0")
            async with self._server.inside(name) as connection:
                await connection.execute(";".join([*_furnish(name), f"COMMENT ON DATABASE {quoted(name)} IS 'mesh:spare'"]))
        return name

    async def _tidy(self) -> None:
        """What this process makes meanwhile is not an earlier one's."""
        async with self._server.admin() as connection:
            found = await connection.fetch(
                "SELECT d.datname AS name, coalesce(shobj_description(d.oid, 'pg_database') = 'mesh:spare', false)"
                "       AND (SELECT count(*) = 2 FROM pg_roles WHERE rolname IN (d.datname || '_admin', d.datname || '_member')) AS ready"
                "  FROM pg_database d WHERE starts_with(d.datname, $1)",
                SPARE,
            )
            roles = await connection.fetch("SELECT rolname FROM pg_roles WHERE starts_with(rolname, $1)", SPARE)
            ready = [row["name"] for row in found if row["ready"] and row["name"] not in self._made]
            for row in found:
                if not row["ready"] and row["name"] not in self._made:
                    await connection.execute(f"DROP DATABASE IF EXISTS {quoted(row['name'])} WITH (FORCE)")
            kept = {group for name in (*ready, *self._made) for group in groups(name)}
            for role in {row["rolname"] for row in roles} - kept:
                await connection.execute(f"DROP ROLE IF EXISTS {quoted(role)}")
        self._ready += ready


async def create(server: Server, spares: Spares, org_id: UUID, resource: UUID, name: str, connection_limit: int) -> None:
    """Make the database usable under its name, at once or not at all.

    Raises ``asyncpg.DuplicateDatabaseError`` or ``DuplicateObjectError`` if something else has one of its names.
    """
    while True:
        spare = await spares.take()
        renamed = [f"ALTER DATABASE {quoted(spare)} RENAME TO {quoted(name)}"]
        renamed += [f"ALTER ROLE {quoted(old)} RENAME TO {quoted(new)}" for old, new in zip(groups(spare), groups(name), strict=True)]
        marked = [f"COMMENT ON DATABASE {quoted(name)} IS {literal(mark(org_id, resource))}"]
        marked += [f"COMMENT ON ROLE {quoted(role)} IS {literal(mark(org_id, resource, group=True))}" for role in groups(name)]
        try:
            async with server.admin() as connection:
                await connection.execute(";".join([*renamed, *marked, _limited(name, connection_limit)]))
        except (asyncpg.InvalidCatalogNameError, asyncpg.UndefinedObjectError):
            log.warning("a spare database is not there any more, taking another")
        except asyncpg.PostgresError:
            spares.give_back(spare)
            raise
        else:
            return


def _limited(name: str, connection_limit: int) -> str:
    return f"ALTER DATABASE {quoted(name)} CONNECTION LIMIT {int(connection_limit)}"


async def allow(server: Server, name: str, connection_limit: int) -> None:
    """Open to its logins, within the limit."""
    async with server.admin() as connection:
        await connection.execute(f"ALTER DATABASE {quoted(name)} ALLOW_CONNECTIONS true; {_limited(name, connection_limit)}")


async def refuse(server: Server, name: str) -> None:
    """Close to everyone and end all sessions; the data stays."""
    async with server.admin() as connection:
        await connection.execute(f"ALTER DATABASE {quoted(name)} ALLOW_CONNECTIONS false; {_limited(name, 0)}")
        await connection.execute("SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE datname = $1", name)


async def repair(server: Server, org_id: UUID, resource: UUID, name: str) -> None:
    """Give back what is missing of the group roles and their grants."""
    async with server.admin() as connection:
        there = {row["rolname"] for row in await connection.fetch("SELECT rolname FROM pg_roles WHERE rolname = ANY($1)", groups(name))}
        for group in set(groups(name)) - there:
            comment = literal(mark(org_id, resource, group=True))
            await connection.execute(f"CREATE ROLE {quoted(group)} NOLOGIN; COMMENT ON ROLE {quoted(group)} IS {comment}")
    async with server.inside(name) as inside:
        await inside.execute(";".join(_furnish(name)))


async def drop(server: Server, names: Iterable[str], roles: Iterable[str]) -> None:
    """Drop the databases, then the roles that only they needed."""
    async with server.admin() as connection:
        for name in names:
            await connection.execute(f"DROP DATABASE IF EXISTS {quoted(name)} WITH (FORCE)")
        for role in roles:
            await connection.execute(f"DROP ROLE IF EXISTS {quoted(role)}")

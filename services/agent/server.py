"""The agent's door to its own Postgres server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg

QUIET = {
    "application_name": "mesh-agent",
    "log_statement": "none",
    "log_min_duration_statement": "-1",
    "log_min_error_statement": "panic",
    "client_min_messages": "error",
    "lock_timeout": "10s",
    "statement_timeout": "60s",
}
"""Verifiers stand in statements: the server must not log them. The time limits keep one tenant from holding a worker."""


class Server:
    """Connects as the administrator, lazily: it may be made, and used, while the server is down."""

    def __init__(self, url: str, size: int) -> None:
        self._url = url
        self._size = size
        self._pool: asyncpg.Pool | None = None

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[asyncpg.pool.PoolConnectionProxy]:
        """A pooled connection to the administrator's database.

        Raises ``OSError`` or an ``asyncpg`` error while the server cannot be reached.
        """
        if self._pool is None:
            self._pool = asyncpg.create_pool(
                self._url,
                min_size=0,
                max_size=self._size,
                timeout=5,
                command_timeout=70,
                statement_cache_size=20,
                max_inactive_connection_lifetime=60,
                server_settings=QUIET,
            )
        await self._pool
        async with self._pool.acquire(timeout=30) as connection:
            yield connection

    @asynccontextmanager
    async def inside(self, database: str) -> AsyncIterator[asyncpg.Connection]:
        """A connection of its own into one tenant's database, closed at the end.

        It sets an empty search path: whatever the tenant made in there must not be called by the administrator.
        """
        url = urlsplit(self._url)
        connection = await asyncpg.connect(
            urlunsplit(url._replace(path="/" + quote(database, safe=""))),
            timeout=5,
            command_timeout=70,
            server_settings={**QUIET, "search_path": "", "event_triggers": "off"},
        )
        try:
            yield connection
        finally:
            await connection.close(timeout=5)

    async def close(self) -> None:
        if self._pool is not None:
            self._pool.terminate()


def quoted(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A string constant that means the same whatever ``standard_conforming_strings`` says."""
    return " E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"

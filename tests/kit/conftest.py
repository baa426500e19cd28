"""A scratch service, ``probe``, on the real Postgres: for the kit's rules, without the bus around them."""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import asyncpg
import orjson
import pytest

from deploy.status import Document
from shared.bus import Applier
from shared.changes import Change, Context, decode
from shared.migrations import migrate
from shared.reactions import Reaction
from shared.replicas import replicas_of
from shared.rows import Pattern, Row
from shared.tx import Database, Tx

PASSWORD = "probe"


class Thing(Row):
    """A row of another service, ``other``, that the probe reacts to."""

    table = "other.things"
    id: str
    org_id: str
    value: int


@dataclass
class Log:
    """Makes changes of ``other`` as its change log would."""

    org: str = field(default_factory=lambda: str(uuid.uuid4()))
    seq: int = 0
    epoch: int = 1

    @property
    def stream(self) -> str:
        return f"org:{self.org}"

    def change(
        self, value: int, *, op: str = "insert", table: str = "things", seq: int | None = None, hops: int = 0, after: dict[str, Any] | None = None
    ) -> Change:
        self.seq = self.seq + 1 if seq is None else seq
        row = after or {"id": str(uuid.uuid5(uuid.UUID(self.org), str(value))), "org_id": self.org, "value": value}
        record = {
            "stream": self.stream, "seq": self.seq, "epoch": self.epoch, "table": table, "op": op, "at": datetime.now(UTC).isoformat(),
            "by": "user:1", "flow_id": None, "cause": None, "hops": hops, "traceparent": None, "before": None if op == "insert" else row,
            "after": None if op == "delete" else row,
        }  # fmt: skip
        return decode("other", orjson.dumps(record))


class Probe:
    """The scratch service: what its reactions wrote, and an applier for any set of reactions."""

    def __init__(self, database: Database, admin: asyncpg.Connection) -> None:
        self.database = database
        self.admin = admin

    async def applier(
        self, *functions: Callable[..., Any], many: bool = False, catch_up: bool = False, activated: Mapping[str, datetime] = MappingProxyType({})
    ) -> Applier:
        """An applier whose reactions run these functions for every :class:`Thing` inserted."""
        reactions = [Reaction(f"probe.{f.__name__}", Pattern(Thing, "inserted"), f, None, many, catch_up) for f in functions]
        return Applier(self.database, reactions, await replicas_of(self.database.pool, "probe"), activated=activated)

    async def as_admin(self, statements: str) -> None:
        """One transaction in the probe's schema."""
        await self.admin.execute(f"SET LOCAL search_path = probe; {statements}")

    @asynccontextmanager
    async def restored(self) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """New connections find another database than the one written into, until it is said that nothing was lost."""

        async def say() -> None:
            await self.as_admin("SELECT restored(nothing_lost => true)")

        await self.as_admin("SELECT lock_streams('{global:incarnation}'); UPDATE incarnation SET identity = 'another cluster/00000001'")
        await self.database.pool.expire_connections()
        try:
            yield say
        finally:
            await say()

    async def effects(self, log: Log) -> list[int]:
        """The values that reactions wrote for the log's tenant, in the order they were written."""
        return [r["value"] for r in await self.admin.fetch("SELECT value FROM probe.effects WHERE org_id = $1 ORDER BY n", uuid.UUID(log.org))]

    async def position(self, log: Log, reader: str = "reactions") -> int:
        return int(await self.admin.fetchval("SELECT coalesce(max(seq), 0) FROM probe.positions WHERE reader = $2 AND stream = $1", log.stream, reader))

    async def parked(self, log: Log) -> list[dict[str, Any]]:
        return [dict(r) for r in await self.admin.fetch("SELECT * FROM probe.parked WHERE stream = $1", log.stream)]

    async def changes(self, stream: str) -> list[Change]:
        """What the probe itself published on a stream."""
        return [decode("probe", r["payload"]) for r in await self.admin.fetch("SELECT payload FROM probe.changes WHERE stream = $1 ORDER BY seq", stream)]


async def record(tx: Tx, thing: Thing) -> None:
    """The reaction most tests use: writes what it saw."""
    await tx.run("INSERT INTO effects (value) VALUES ($1)", thing.value)


async def record_many(tx: Tx, things: list[Thing]) -> None:
    note = f"one of {len(things)}"
    await tx.run("INSERT INTO effects (value, note) SELECT v, $2 FROM unnest($1::int[]) v", [t.value for t in things], note)


_TABLES = """
CREATE TABLE effects (org_id uuid NOT NULL DEFAULT tenant(), n bigint GENERATED ALWAYS AS IDENTITY, value int NOT NULL, note text, PRIMARY KEY (org_id, n));
SELECT tenant_table('effects');
SELECT publish_table('effects', stream => 'org', private => '{note}');
CREATE TABLE things (id text, org_id uuid, value int NOT NULL, PRIMARY KEY (id));
SELECT replica_table('things', source => 'other.things');
"""


@pytest.fixture(scope="session")
def ground(request: pytest.FixtureRequest) -> Document:
    """Where the scratch service is: on the bus alone, or on the mesh that is there anyway."""
    there = os.environ.get("MESH_TEST_STATE") or request.config.getoption("--stack") == "containers"
    return request.getfixturevalue("mesh").status if there else request.getfixturevalue("bus").status()


@pytest.fixture(scope="session")
def probe_url(ground: Document) -> str:
    """The application role of the scratch schema, made afresh."""
    admin_url = ground["postgres"]["url"]
    asyncio.run(_make_schema(admin_url))
    return _as("probe_app", admin_url)


def _as(role: str, admin_url: str) -> str:
    return f"postgresql://{role}:{PASSWORD}@{admin_url.rpartition('@')[2]}"


async def _make_schema(admin_url: str) -> None:
    admin = await asyncpg.connect(admin_url)
    await admin.execute("DROP SCHEMA IF EXISTS probe CASCADE")
    for role, rights in (("probe_owner", "LOGIN"), ("probe_app", "LOGIN"), ("probe_replica", "NOLOGIN")):
        if not await admin.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", role):
            await admin.execute(f"CREATE ROLE {role} {rights} PASSWORD '{PASSWORD}'")
        await admin.execute(f"ALTER ROLE {role} SET search_path = probe")
        await admin.execute(f"GRANT CONNECT ON DATABASE {admin_url.rpartition('/')[2]} TO {role}")
    await admin.execute("GRANT probe_replica TO probe_app WITH INHERIT FALSE, SET TRUE; CREATE SCHEMA probe AUTHORIZATION probe_owner")
    await admin.close()
    await migrate("probe", _as("probe_owner", admin_url))
    owner = await asyncpg.connect(_as("probe_owner", admin_url))
    await owner.execute(_TABLES)
    await owner.close()


@pytest.fixture
async def probe(probe_url: str, ground: Document) -> AsyncIterator[Probe]:
    database = await Database.connect(probe_url, "probe")
    admin = await asyncpg.connect(ground["postgres"]["url"])
    await admin.execute("TRUNCATE probe.parked, probe.fuses CASCADE")
    yield Probe(database, admin)
    await admin.close()
    await database.close()


@pytest.fixture
def log() -> Log:
    """A fresh tenant's stream of the other service."""
    return Log()


__all__ = ["Context", "Log", "Probe", "Thing", "record", "record_many"]

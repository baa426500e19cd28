"""Transactions: what an author sees of the database.

A :class:`Tx` knows its tenant, its actor and its flow. Writing transactions lock the streams they write before they read
anything: use :meth:`Database.transaction` with ``writes``, or :meth:`Tx.enter` once the stream is known.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import orjson
from pydantic import BaseModel

from shared.changes import Change, Context, new_flow_id, stream_id
from shared.errors import NotFound, Refused, RowTooLarge

Model = TypeVar("Model", bound=BaseModel)

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy
_PATIENCE = 30.0  # seconds that a statement may take, and that work in the background waits for a connection


_PASSES = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InternalClientError,  # what a statement in flight meets when its server is killed
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.CannotConnectNowError,
)


class DatabaseAway(Exception):
    """The service's own database is away or busy. This passes by itself: wait and try again, nothing is wrong with what was asked.

    Only what was met between us and the database is told as this: an author's own ``OSError`` or ``TimeoutError`` stays what it is.
    """


class Restored(DatabaseAway):
    """This is not the database that the rows were written in: it was restored or failed over. Nothing is read or written until an
    operator says what happened: mesh restored --all, or mesh restored --all --nothing-lost.
    """


class TablesChanged(DatabaseAway):
    """A migration changed a table under statements that were planned before. They are planned anew now: whoever begins again succeeds."""


@dataclass(frozen=True)
class Position:
    """How far a stream of a service had come when something was written; a caller hands it on to read its own write."""

    source: str
    stream: str
    epoch: int
    seq: int

    def __str__(self) -> str:
        return f"{self.source}/{self.stream}/{self.epoch}.{self.seq}"

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Raises ValueError when the text is no position token."""
        source, stream, number = text.strip().split("/")
        epoch, seq = number.split(".")
        return cls(source, stream, int(epoch), int(seq))


class Tx:
    """One transaction: plain SQL in, models out.

    The first statement after :meth:`enter` or a change of :attr:`context` carries the identity into the database.
    """

    def __init__(self, connection: Connection, service: str, context: Context) -> None:
        self._connection = connection
        self.service = service
        self.context = context
        self.org_id: UUID | None = None
        self.user_id: UUID | None = None
        self.change: Change | None = None
        self.streams: list[str] = []
        self.scheduled: set[str] = set()
        self.after_commit: list[Callable[[], None]] = []
        """Called when this transaction has committed, and only then."""
        self._pending = True

    async def enter(self, *writes: str, org: UUID | None = None, user: UUID | None = None, by: str | None = None) -> None:
        """Sets whose rows are seen and locks the streams to be written, in sorted order.

        A stream ``org:<id>`` or ``user:<id>`` names its tenant or person; ``org`` and ``user`` add the other one, or set
        the tenant of a transaction that only reads. ``by`` names who acts when the door could not know.
        """
        if by:
            self.context = replace(self.context, by=by)
        self._set_identity(writes, org, user)
        await self._enter(sorted(writes))
        self.streams.extend(writes)

    def _set_identity(self, writes: Iterable[str], org: UUID | None, user: UUID | None) -> None:
        self.org_id = org or next((i for w in writes if (i := stream_id(w, "org"))), self.org_id)
        self.user_id = user or next((i for w in writes if (i := stream_id(w, "user"))), self.user_id)

    def act_as(self, org: UUID | None, user: UUID | None, context: Context, change: Change | None) -> None:
        """Changes tenant, person and cause for the statements that follow; the streams stay locked."""
        self.org_id, self.user_id, self.context, self.change = org, user, context, change
        self._pending = True

    def continue_flow(self, flow_id: UUID | None) -> None:
        """What is written from here on belongs to a flow that was waiting for this request."""
        if flow_id:
            self.context = replace(self.context, flow_id=flow_id)
            self._pending = True

    def start_flow(self) -> UUID:
        """What is written from here on belongs to a flow of its own."""
        flow_id = new_flow_id()
        self.continue_flow(flow_id)
        return flow_id

    async def _enter(self, writes: Sequence[str]) -> None:
        with translated(self._connection):
            await self._connection.execute("SELECT enter($1, $2, $3, $4)", self.org_id, self.user_id, self.context.as_json(), list(writes))
        self._pending = False

    async def _ready(self) -> Connection:
        if self._pending:
            await self._enter([])
        return self._connection

    async def maybe(self, model: type[Model], sql: str, *args: Any) -> Model | None:
        """The first row, or None."""
        connection = await self._ready()
        with translated(connection):
            record = await connection.fetchrow(sql, *args)
        return None if record is None else model.model_validate(dict(record))

    async def one(self, model: type[Model], sql: str, *args: Any) -> Model:
        """The first row. Raises :class:`NotFound` when there is none: a write that meets no row is an error."""
        row = await self.maybe(model, sql, *args)
        if row is None:
            raise NotFound
        return row

    async def all(self, model: type[Model], sql: str, *args: Any) -> list[Model]:
        connection = await self._ready()
        with translated(connection):
            records = await connection.fetch(sql, *args)
        return [model.model_validate(dict(r)) for r in records]

    async def value(self, sql: str, *args: Any) -> Any:
        """The first column of the first row, or None."""
        connection = await self._ready()
        with translated(connection):
            return await connection.fetchval(sql, *args)

    async def run(self, sql: str, *args: Any) -> int:
        """Executes and answers how many rows it met."""
        connection = await self._ready()
        with translated(connection):
            status = await connection.execute(sql, *args)
        last = status.rpartition(" ")[2]
        return int(last) if last.isdigit() else 0

    async def records(self, sql: str, *args: Any) -> list[asyncpg.Record]:
        """Raw records, for the kit and for sets."""
        connection = await self._ready()
        with translated(connection):
            return list(await connection.fetch(sql, *args))

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """What fails inside leaves nothing; the transaction goes on."""
        await self._ready()
        try:
            async with _begun(self._connection):
                yield
        finally:
            self._pending = True

    @asynccontextmanager
    async def in_bulk(self) -> AsyncIterator[None]:
        """Acts as the service's bulk role, which keeps what the service knows of others, for every tenant at once, and may do nothing else."""
        await self.run(f'SET LOCAL ROLE "{self.service}_replica"')
        yield
        await self.run("RESET ROLE")

    async def schedule(self, kind: str, id: UUID, at: datetime | None = None) -> None:
        """Has the timer or worker ``kind`` take up the row ``id`` at a time of the tenant's clock, at once by default.

        A second call moves it. It acts on the stream of the tenant (or person) of this transaction, in its flow.
        """
        target = f"org:{self.org_id}" if self.org_id else f"user:{self.user_id}"
        await self.run(
            "INSERT INTO due (kind, target, id, due_at, context) VALUES ($1, $2, $3, coalesce($4, '-infinity'::timestamptz), $5) ON CONFLICT (kind, target, id) "
            "DO UPDATE SET due_at = excluded.due_at, attempt = 0, leased_until = '-infinity', since = now(), context = excluded.context",
            kind, target, id, at, self.context.as_json(),
        )  # fmt: skip
        self.scheduled.add(kind)

    async def unschedule(self, kind: str, id: UUID) -> None:
        """Takes a timer or a piece of work back, if it is still to come."""
        await self.run("DELETE FROM due WHERE kind = $1 AND id = $2", kind, id)
        await self.run("DELETE FROM failing_work WHERE kind = $1 AND id = $2", kind, id)

    async def positions(self) -> list[Position]:
        """How far the streams of this transaction have come: what its answer's ``Mesh-Position`` says."""
        if not self.streams:
            return []
        rows = await self.records("SELECT stream, seq, (SELECT epoch FROM incarnation) AS epoch FROM streams WHERE stream = ANY($1) AND seq > 0", self.streams)
        return [Position(self.service, r["stream"], r["epoch"], r["seq"]) for r in rows]


class translated:  # noqa: N801 - reads as a word at its call sites
    """Around what is said to the database, and nothing else: its errors become a refusal, or :class:`DatabaseAway`, where they mean that."""

    def __init__(self, connection: Connection | None = None) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is None:
            return
        if isinstance(error, asyncpg.InvalidCachedStatementError):
            raise TablesChanged(repr(error)) from error
        if self._passes(error):
            raise DatabaseAway(repr(error)) from error
        if isinstance(error, asyncpg.PostgresError):
            _refuse(error)

    def _passes(self, error: BaseException) -> bool:
        if isinstance(error, asyncpg.InterfaceError):  # a lost connection, or a mistake in the call
            return not isinstance(error, ValueError) and (self._connection is None or _is_lost(self._connection))
        return isinstance(error, _PASSES)


def _is_lost(connection: Connection) -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:  # the pool has taken back what was lost, and lets nobody ask about it
        return True


def _refuse(error: asyncpg.PostgresError) -> None:
    if error.sqlstate == "MS002":
        raise RowTooLarge(str(error)) from error
    known = Refused.by_constraint.get(getattr(error, "constraint_name", None) or "")
    if known:
        raise known from error


class Database:
    """The service's own Postgres."""

    def __init__(self, pool: asyncpg.Pool, service: str, url: str = "") -> None:
        self.pool = pool
        self.service = service
        self._url = url
        self.holder = secrets.randbits(31)
        """Names this process in the leases it takes."""
        self._wakers: dict[str, asyncio.Event] = {}

    @classmethod
    async def connect(cls, url: str, service: str, size: int = 8) -> "Database":
        """Connects as the application role. Raises :class:`UnsafeRole` when that role could see past row-level security."""
        with translated():
            pool = await asyncpg.create_pool(
                url,
                init=_prepare,
                reset=_nothing_to_reset,
                min_size=1,
                max_size=size,
                max_inactive_connection_lifetime=300,
                **_session_settings(service),
            )
            await _refuse_unsafe_role(pool, service)
        return cls(pool, service, url)

    async def close(self) -> None:
        await self.pool.close()

    def waker(self, name: str) -> asyncio.Event:
        """Set when there is something to do for the background task of this name, or for the job: ``job <kind>``."""
        return self._wakers.setdefault(name, asyncio.Event())

    def wake_all(self) -> None:
        for wake in self._wakers.values():
            wake.set()

    @asynccontextmanager
    async def transaction(
        self, *writes: str, org: UUID | None = None, user: UUID | None = None, context: Context | None = None, readonly: bool = False, within: float = _PATIENCE
    ) -> AsyncIterator[Tx]:
        """A transaction that writes the named streams (locked first), or reads as the given tenant or person; begun ``within`` seconds or not."""
        async with self._acquired(within) as connection, _begun(connection, readonly=readonly):
            tx = Tx(connection, self.service, context or Context())
            if writes or org or user:
                await tx.enter(*writes, org=org, user=user)
            yield tx
        for kind in tx.scheduled:
            self.waker(f"job {kind}").set()
        for call in tx.after_commit:
            call()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Connection]:
        """A connection outside any transaction, for the kit's own statements: everything in it is said to the database."""
        async with self._acquired(_PATIENCE) as connection:
            with translated(connection):
                yield connection

    @asynccontextmanager
    async def own_session(self) -> AsyncIterator[Connection]:
        """As :meth:`session`, on a connection that waits for no place in the pool and is closed however this ends."""
        with translated():
            connection = await asyncpg.connect(self._url, **_session_settings(self.service))
        try:
            with translated(connection):
                await _prepare(connection)
                yield connection
        finally:
            connection.terminate()

    @asynccontextmanager
    async def _acquired(self, within: float) -> AsyncIterator[Connection]:
        with translated():
            connection = await self.pool.acquire(timeout=within)
        try:
            yield connection
        finally:
            with translated():
                await self.pool.release(connection)


@asynccontextmanager
async def _begun(connection: Connection, *, readonly: bool = False) -> AsyncIterator[None]:
    """A transaction, or a savepoint within one. What the body raises passes as it is."""
    transaction = connection.transaction(readonly=readonly)
    with translated(connection):
        await transaction.start()
    try:
        yield
    except BaseException:
        with translated(connection):
            await transaction.rollback()
        raise
    with translated(connection):
        await transaction.commit()


def _session_settings(service: str) -> dict[str, Any]:
    search_path = f'"{service}"'
    return {"command_timeout": _PATIENCE, "server_settings": {"search_path": search_path, "TimeZone": "UTC", "application_name": f"mesh-{service}"}}


async def _prepare(connection: asyncpg.Connection) -> None:
    """Each new connection is looked at: a failover breaks the old ones."""
    await _set_codecs(connection)
    if await connection.fetchval("SELECT identity <> database_identity() FROM incarnation"):
        raise Restored(" ".join((Restored.__doc__ or "").split()))


async def _set_codecs(connection: asyncpg.Connection) -> None:
    for kind in ("json", "jsonb"):
        await connection.set_type_codec(
            kind, encoder=lambda v: v if isinstance(v, str) else orjson.dumps(v).decode(), decoder=orjson.loads, schema="pg_catalog"
        )


async def _nothing_to_reset(_: asyncpg.Connection) -> None:
    """Identity is set with SET LOCAL only and ends with the transaction; a RESET ALL would cost a round trip each time."""


class UnsafeRole(Exception):
    """The database role could see every tenant's rows: it is a superuser, bypasses row-level security, or owns the schema."""


async def _refuse_unsafe_role(pool: asyncpg.Pool, service: str) -> None:
    unsafe = await pool.fetchval(
        "SELECT r.rolsuper OR r.rolbypassrls OR pg_has_role(r.oid, n.nspowner, 'MEMBER') "
        "FROM pg_roles r, pg_namespace n WHERE r.rolname = current_user AND n.nspname = $1",
        service,
    )
    if unsafe is None:
        raise UnsafeRole(f"Schema {service} does not exist, or this role may not see it. Run the migrations first.")
    if unsafe:
        raise UnsafeRole(f"{UnsafeRole.__doc__} Connect as {service}_app.")

"""Timers and workers: what happens because time has passed, and what happens outside Postgres.

Both are rows of ``due``, leased so that one replica takes each. A *timer* runs in the transaction of its effect. A *worker*
does something outside: it reads its row in one transaction, acts, and marks the row in another; killed in between it runs
again, so that the outside effect needs the row's id as its idempotency key.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from uuid import UUID

from shared.changes import Context, stream_id
from shared.failpoints import failpoint
from shared.healing import SELDOM, every
from shared.log import log, working_on
from shared.metrics import metrics
from shared.parking import Failure
from shared.trace import span, trace_id
from shared.tx import Database, DatabaseAway, Tx

LEASE = timedelta(seconds=30)
AT_ONCE = 20
READY = (
    "o.leased_until < now() AND (o.due_at <= now() OR "
    "(o.target IN (SELECT 'org:' || c.org_id FROM test_clocks c) AND o.due_at <= mesh_now(substr(o.target, 5)::uuid)))"
)
"""A row ``o`` of ``due`` whose time has come."""


@dataclass
class Work:
    """One leased piece of work, for the row ``id`` of a tenant or person."""

    database: Database
    kind: str
    target: str
    id: UUID
    attempt: int
    context: Context
    lease: datetime
    """Names this lease: work that was scheduled again meanwhile is another piece."""
    overdue: bool = False
    """The budget of attempts has ended: this is the last one."""

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Tx]:
        """A transaction as the row's tenant or person, with its stream locked, in the flow that asked for the work."""
        async with self.database.transaction(self.target, context=self.context) as tx:
            yield tx


class GiveUp(Exception):
    """The work cannot succeed however often it is tried; the worker has marked its row. It is not tried again."""


@dataclass(frozen=True)
class Job:
    """A registered timer or worker."""

    kind: str
    service: str
    function: Callable[..., Awaitable[None]]
    outside: bool
    budget: timedelta = field(default=timedelta(hours=24))

    @property
    def name(self) -> str:
        """As flows call it."""
        return f"{self.service}.{self.function.__name__}"


_jobs: dict[tuple[str, str], Job] = {}


def timer(kind: str) -> Callable[[Callable[[Tx, UUID], Awaitable[None]]], Callable[[Tx, UUID], Awaitable[None]]]:
    """``async def fire(tx, id)``: runs once when due, in the transaction that removes the timer."""

    def register(function: Callable[[Tx, UUID], Awaitable[None]]) -> Callable[[Tx, UUID], Awaitable[None]]:
        service = function.__module__.split(".")[1]
        _jobs[service, kind] = Job(kind, service, function, outside=False)
        return function

    return register


def worker(kind: str, budget: timedelta = timedelta(hours=24)) -> Callable[[Callable[[Work], Awaitable[None]]], Callable[[Work], Awaitable[None]]]:
    """``async def act(work)``: retried with back-off until it returns; after the budget it is called with ``work.overdue``."""

    def register(function: Callable[[Work], Awaitable[None]]) -> Callable[[Work], Awaitable[None]]:
        service = function.__module__.split(".")[1]
        _jobs[service, kind] = Job(kind, service, function, outside=True, budget=budget)
        return function

    return register


@dataclass(frozen=True)
class Chore:
    """Something every replica does now and then; safe to do twice."""

    name: str
    service: str
    function: Callable[[Database], Awaitable[None]]
    every_seconds: float


_chores: dict[str, Chore] = {}


def housekeeping(every_seconds: float) -> Callable[[Callable[[Database], Awaitable[None]]], Callable[[Database], Awaitable[None]]]:
    """``async def tidy(database)``: runs at start and then at this interval in every replica."""

    def register(function: Callable[[Database], Awaitable[None]]) -> Callable[[Database], Awaitable[None]]:
        service = function.__module__.split(".")[1]
        _chores[f"{service}.{function.__name__}"] = Chore(function.__name__, service, function, every_seconds)
        return function

    return register


def chores_of(service: str) -> list[Chore]:
    return [c for c in _chores.values() if c.service == service]


def jobs_of(service: str) -> list[Job]:
    return [j for j in _jobs.values() if j.service == service]


_LEASE = f"""
WITH ready AS MATERIALIZED (  -- a plan that looks there more than once would take up more than it may
    SELECT o.kind, o.target, o.id FROM due o WHERE o.kind = $1 AND {READY}
    ORDER BY o.due_at LIMIT $3 FOR UPDATE SKIP LOCKED)
UPDATE due d SET leased_until = now() + $2, attempt = d.attempt + 1, holder = $5 FROM ready
WHERE d.kind = ready.kind AND d.target = ready.target AND d.id = ready.id
RETURNING d.target, d.id, d.attempt, d.context, d.leased_until AS lease, d.since < now() - $4::interval AS overdue"""


_FAILS = """
INSERT INTO failing_work (kind, target, id, worker, attempt, error, flow_id) VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (kind, target, id) DO UPDATE SET attempt = excluded.attempt, error = excluded.error, flow_id = excluded.flow_id"""

_WORKS_AGAIN = "DELETE FROM failing_work WHERE kind = $1 AND target = $2 AND id = $3"


class JobRunner:
    """Runs one timer or worker of a service."""

    def __init__(self, database: Database, job: Job) -> None:
        self.database = database
        self.job = job
        self.wake = database.waker(f"job {job.kind}")
        for outcome in ("done", "retry", "given up"):
            metrics.work_done.labels(job.kind, outcome)

    async def run(self) -> None:
        await every(SELDOM, self.run_due, f"{'worker' if self.job.outside else 'timer'} {self.job.kind}", self.wake)

    async def run_due(self) -> None:
        """Takes up everything that is due, so many pieces at a time; a slow one holds up no other. Ends when all of it is done."""
        running: set[asyncio.Task[None]] = set()
        try:
            while True:
                running |= {asyncio.create_task(self._attempt_logged(w)) for w in await self._lease(AT_ONCE - len(running), idle=not running)}
                if not running:
                    return
                await self._until_done_or_woken(running)
                running = {task for task in running if not task.done()}
        finally:
            for task in running:
                task.cancel()

    async def _lease(self, most: int, *, idle: bool) -> list[Work]:
        """While the database is away what runs goes on, and nothing is added to it."""
        if not most:
            return []
        try:
            async with self.database.transaction() as tx:
                rows = await tx.records(_LEASE, self.job.kind, LEASE, most, self.job.budget, self.database.holder)
        except DatabaseAway:
            if idle:
                raise
            return []
        return [Work(self.database, self.job.kind, r["target"], r["id"], r["attempt"], _context(r["context"]), r["lease"], r["overdue"]) for r in rows]

    async def _until_done_or_woken(self, running: set[asyncio.Task[None]]) -> None:
        """Until one of them is done, or there may be more to take up and a hand is free."""
        if len(running) == AT_ONCE:
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            return
        woken = asyncio.create_task(self.wake.wait())
        await asyncio.wait({*running, woken}, timeout=SELDOM, return_when=asyncio.FIRST_COMPLETED)
        woken.cancel()
        self.wake.clear()

    async def _attempt_logged(self, work: Work) -> None:
        context = work.context
        with working_on(flow_id=context.flow_id, org_id=stream_id(work.target, "org"), trace_id=trace_id(context.traceparent)):
            try:
                await self._attempt(work)
            except DatabaseAway as error:
                log.info("the lease runs out by itself", extra={"kind": work.kind, "error": repr(error)})

    async def _attempt(self, work: Work) -> None:
        outcome = "done"
        try:
            with span(f"{self.job.service}.{work.kind}", work.context.traceparent) as traceparent:
                work.context = replace(work.context, traceparent=traceparent)
                await (self._act(work) if self.job.outside else self._fire(work))
        except GiveUp as error:
            log.warning("a piece of work is given up", extra={"kind": work.kind, "id": str(work.id), "error": repr(error)})
            outcome = "given up"
            await self._remove(work)
        except Exception as error:  # noqa: BLE001 - whatever it is, the work is tried again later
            outcome = "retry"
            log.warning("a piece of work failed and is tried again", extra={"kind": work.kind, "id": str(work.id), "attempt": work.attempt}, exc_info=error)
            await self._postpone(work, error)
        metrics.work_done.labels(work.kind, outcome).inc()

    async def _fire(self, work: Work) -> None:
        async with work.transaction() as tx:
            there = "DELETE FROM due WHERE kind = $1 AND target = $2 AND id = $3 AND due_at <= mesh_now($4)"
            if await tx.run(there, work.kind, work.target, work.id, stream_id(work.target, "org")):
                await self.job.function(tx, work.id)
                await tx.run(_WORKS_AGAIN, work.kind, work.target, work.id)

    async def _act(self, work: Work) -> None:
        async with asyncio.timeout(LEASE.total_seconds() - 2):
            await self.job.function(work)
        failpoint("work")
        await self._remove(work)

    async def _remove(self, work: Work) -> None:
        async with self.database.transaction(context=work.context) as tx:
            if await tx.value("SELECT true FROM failing_work WHERE kind = $1 AND target = $2 AND id = $3", work.kind, work.target, work.id):
                await tx.enter(work.target)
                await tx.run(_WORKS_AGAIN, work.kind, work.target, work.id)
            await tx.run("DELETE FROM due WHERE kind = $1 AND target = $2 AND id = $3 AND leased_until = $4", work.kind, work.target, work.id, work.lease)

    async def _postpone(self, work: Work, error: Exception) -> None:
        """Gives the lease back. While the database is away that waits too: else the work would lie still until its lease runs out."""
        delay = timedelta(seconds=min(300.0, 0.5 * 2 ** min(work.attempt, 12)))
        until = time.monotonic() + LEASE.total_seconds()
        while True:
            try:
                await self._note_failure(work, error, delay)
            except DatabaseAway:
                if time.monotonic() > until:
                    log.info("the lease runs out by itself", extra={"kind": work.kind})
                    return
                await asyncio.sleep(0.5)
            else:
                return

    async def _note_failure(self, work: Work, error: Exception, delay: timedelta) -> None:
        async with work.transaction() as tx:
            await tx.run(
                "UPDATE due SET leased_until = now() + $5, holder = NULL WHERE kind = $1 AND target = $2 AND id = $3 AND leased_until = $4",
                work.kind, work.target, work.id, work.lease, delay,
            )  # fmt: skip
            await tx.run(_FAILS, work.kind, work.target, work.id, self.job.name, work.attempt, Failure(error).text, work.context.flow_id)


def _context(stored: dict[str, object]) -> Context:
    flow_id = stored.get("flow_id")
    return Context(
        by=stored.get("by"),  # type: ignore[arg-type]
        flow_id=UUID(str(flow_id)) if flow_id else None,
        cause=stored.get("cause"),  # type: ignore[arg-type]
        hops=int(stored.get("hops") or 0) + 1,  # type: ignore[call-overload]
        traceparent=stored.get("traceparent"),  # type: ignore[arg-type]
    )

"""Orders: what operators want done about flows, parked work and streams, as rows that every service's kit takes and carries out."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from schemas.console import Act
from services.console import history, troubles
from services.console.folding import FINISHED
from services.console.troubles import Trouble
from shared.changes import stream_id
from shared.errors import NotFound, Refused
from shared.http.callers import Caller
from shared.orders import ORDERS
from shared.settings import settings
from shared.tx import Tx


class FlowIsOver(Refused):
    """The flow has ended. There is nothing left to do about it."""


class NothingWaits(Refused):
    """Nothing of this flow is parked or failing. What is overdue or lost is not waiting anywhere: see mesh lag, or cancel the flow."""


class WaitsBehindAnother(Refused):
    """The flow waits behind a change of another flow. Retry or skip that one: see mesh parked list."""


class CannotBeSkipped(Refused):
    """There is no single change to skip. A fuse goes when one retry succeeds."""


class Order(BaseModel):
    """An order as it was given."""

    id: UUID
    act: Act
    service: str | None
    actors: list[str]
    subject: str | None
    change: str | None
    from_seq: int | None
    to_seq: int | None
    flow_id: UUID | None
    org_id: UUID | None
    reason: str
    by: str
    at: datetime


class Result(BaseModel):
    """What came of it for one reaction or worker of a service."""

    service: str
    actor: str
    subject: str
    did: bool
    outcome: str
    at: datetime


class OrderView(Order):
    """An order with what came of it so far."""

    results: list[Result]


class Parked(BaseModel):
    """A reaction that is parked, work that fails, or a fuse, with what may be done about it.

    ``about``: what waits: ``<source>/<stream>`` for a reaction, ``<kind>/<target>/<id>`` for work. ``change``: the first of what waits.
    """

    id: UUID
    service: str
    actor: str
    about: str
    target: str | None
    org_id: UUID | None
    flow_id: UUID | None
    change: str | None
    state: troubles.State
    attempt: int
    error: str
    since: datetime
    what_to_do: str


PARKED = """
SELECT id, since AS created_at, service, actor, about, target, flow_id, change, state, attempt, error, since,
    CASE WHEN target LIKE 'org:%' THEN substr(target, 5)::uuid END AS org_id,
    CASE WHEN about = 'fuse' THEN 'Mend ' || actor || ', then: mesh parked retry ' || id
        WHEN state = 'dead' THEN 'Mend the cause, then: mesh parked retry ' || id || '. To leave it out: mesh parked skip ' || id
        WHEN state = 'waiting' THEN 'It waits for a row of another service: see mesh lag'
        ELSE 'It is tried again by itself. When the cause is mended: mesh parked retry ' || id END AS what_to_do
FROM troubles WHERE ($1::text IS NULL OR state = $1) AND ($2::text IS NULL OR service = $2) AND ($3::text IS NULL OR actor = $3)"""

LIST = "SELECT *, at AS created_at FROM orders"

_RESULTS = """
SELECT split_part("table", '.', 1) AS service, facts ->> 'actor' AS actor, facts ->> 'subject' AS subject, (facts ->> 'did')::boolean AS did,
    facts ->> 'outcome' AS outcome, at
FROM history WHERE facts ->> 'order_id' = $1 ORDER BY at, name"""


async def get(tx: Tx, order_id: UUID) -> OrderView:
    order = await tx.one(Order, "SELECT * FROM orders WHERE id = $1", order_id)
    return OrderView(**order.model_dump(), results=await tx.all(Result, _RESULTS, str(order_id)))


async def parked(tx: Tx, id: UUID) -> Parked:
    return await tx.one(Parked, f"SELECT * FROM ({PARKED}) p WHERE id = $4", None, None, None, id)


@asynccontextmanager
async def _ordering(tx: Tx) -> AsyncIterator[None]:
    """As the bulk role, which sees what concerns any tenant, with the stream of orders locked."""
    await tx.enter(ORDERS)
    async with tx.in_bulk():
        yield


async def _give(tx: Tx, caller: Caller, act: Act, reason: str, **fields: object) -> Order:
    """Writes an order; whom it concerns takes it. It belongs to the flow it is about."""
    flow_id = fields.get("flow_id")
    tx.continue_flow(flow_id if isinstance(flow_id, UUID) else None)
    row = {"act": act, "reason": reason, "by": str(caller), "actors": []} | fields
    values = ", ".join(f"${n}" for n in range(1, len(row) + 1))
    return await tx.one(Order, f"INSERT INTO orders ({', '.join(row)}) VALUES ({values}) RETURNING *", *row.values())


def _about(trouble: Trouble, flow_id: UUID | None) -> dict[str, object]:
    """What an order says of a trouble. A fuse stands for everything that is parked for its reaction."""
    service = trouble.actor.partition(".")[0]
    named = {"service": service, "actors": [trouble.actor], "subject": None if trouble.is_fuse else trouble.about}
    return named | {"flow_id": flow_id, "org_id": stream_id(trouble.target or "", "org")}


# Flows


async def retry_flow(tx: Tx, caller: Caller, flow_id: UUID, reason: str) -> list[Order]:
    """Has everything tried now that holds the flow up. Raises :class:`NothingWaits`, :class:`FlowIsOver`."""
    async with _ordering(tx):
        found = await _troubles(tx, await _unfinished(tx, flow_id))
        return [await _give(tx, caller, "retry", reason, **_about(t, flow_id)) for t in found]


async def skip_flow(tx: Tx, caller: Caller, flow_id: UUID, reason: str) -> list[Order]:
    """Leaves out what the flow is stuck on. Raises :class:`WaitsBehindAnother`, :class:`NothingWaits`, :class:`FlowIsOver`."""
    async with _ordering(tx):
        own = [t for t in await _troubles(tx, await _unfinished(tx, flow_id)) if t.flow_id == flow_id]
        if not own:
            raise WaitsBehindAnother
        return [await _give(tx, caller, "skip", reason, change=t.change, **_about(t, flow_id)) for t in own]


async def cancel_flow(tx: Tx, caller: Caller, flow_id: UUID, reason: str) -> Order:
    """Stops the flow: no reaction runs for it any more, and work for its steps to come is taken back. Raises :class:`FlowIsOver`."""
    async with _ordering(tx):
        flow = await _unfinished(tx, flow_id)
        actors = [a for a in flow["actors"] if a]
        return await _give(tx, caller, "cancel", reason, actors=actors, flow_id=flow_id, org_id=flow["org_id"])


async def _unfinished(tx: Tx, flow_id: UUID) -> dict[str, Any]:
    rows = await tx.records("SELECT id, state, org_id, actors FROM flows WHERE id = $1", flow_id)
    if not rows:
        raise NotFound
    if rows[0]["state"] in FINISHED:
        raise FlowIsOver(f"It is {rows[0]['state']}.")
    return dict(rows[0])


async def _troubles(tx: Tx, flow: dict[str, Any]) -> list[Trouble]:
    """What is parked or failing for the flow itself, or before it at a step to come."""
    own = (await history.of_flows(tx, [flow["id"]]))[flow["id"]]
    found = (await troubles.of(tx, {flow["id"]: sorted({s.change.stream for s in own})}))[flow["id"]]
    holding = [t for t in found if not t.is_fuse and (t.flow_id == flow["id"] or t.actor in flow["actors"])]
    if not holding:
        raise NothingWaits
    return holding


# Parked work


async def retry_parked(tx: Tx, caller: Caller, id: UUID, reason: str) -> Order:
    """Has it tried now; for a fuse, everything that is parked for its reaction."""
    async with _ordering(tx):
        trouble = await troubles.get(tx, id)
        return await _give(tx, caller, "retry", reason, **_about(trouble, trouble.flow_id))


async def retry_all(tx: Tx, caller: Caller, actor: str, reason: str) -> Order:
    """Has everything tried now that is parked for a reaction, or failing for a worker."""
    async with _ordering(tx):
        return await _give(tx, caller, "retry", reason, service=actor.partition(".")[0], actors=[actor])


async def skip_parked(tx: Tx, caller: Caller, id: UUID, reason: str) -> Order:
    """Leaves out the change that a reaction fails on, or takes back the work that fails. Raises :class:`CannotBeSkipped` for a fuse."""
    async with _ordering(tx):
        trouble = await troubles.get(tx, id)
        if trouble.is_fuse:
            raise CannotBeSkipped
        return await _give(tx, caller, "skip", reason, change=trouble.change, **_about(trouble, trouble.flow_id))


# Streams


async def resend(tx: Tx, caller: Caller, service: str, stream: str, numbers: tuple[int | None, int | None], reason: str) -> Order:
    """Has a service send changes of a stream again, under their old numbers."""
    async with _ordering(tx):
        first, last = numbers
        return await _give(tx, caller, "resend", reason, from_seq=first, to_seq=last, **_stream(service, stream))


async def restate(tx: Tx, caller: Caller, service: str, stream: str | None, reason: str) -> Order:
    """Has a service say what its rows are now: of one stream, or of all."""
    async with _ordering(tx):
        return await _give(tx, caller, "restate", reason, **_stream(service, stream))


def _stream(service: str, stream: str | None) -> dict[str, object]:
    """Raises :class:`NotFound` for a service that is none."""
    if service not in settings().mesh_services.split(","):
        raise NotFound(f"No service is called {service}.")
    return {"service": service, "subject": stream, "org_id": stream_id(stream or "", "org")}

"""Orders: what operators want done about parked work, flows and streams, as rows of the console that every service takes.

Taking one is a row more, so nothing of it can be parked; :mod:`shared.operating` carries it out.
"""

from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

import orjson
from pydantic import BaseModel

from shared.changes import Change, Context, stream_id
from shared.tx import Tx

CONSOLE, ORDERS = "console", "global:orders"
ORDERED = "ordered"
"""Who is woken when an order was taken."""
GOOD_FOR = timedelta(days=1)
"""A service that was away for longer does not carry an order out: the world has changed since it was given."""


class Order(BaseModel):
    """An order as a service took it.

    ``actors``: the reaction or worker that is meant; for ``cancel`` those of the steps to come. ``subject``: what it is stuck on
    (``<source>/<stream>`` for a reaction, ``<kind>/<target>/<id>`` for work), or the stream to be sent again or restated. ``late``: it came
    after the time it is good for.
    """

    id: UUID
    act: str
    actors: list[str]
    subject: str | None
    change: str | None
    from_seq: int | None
    to_seq: int | None
    flow_id: UUID | None
    by: str | None
    cause: str
    late: bool


async def take(tx: Tx, change: Change) -> bool:
    """Takes an order that concerns this service, once however often it comes; whether it did. A restated one was taken before."""
    row = change.after or {}
    if change.table != "orders" or change.source != CONSOLE or change.op != "insert" or row["service"] not in (None, tx.service):
        return False
    taken = row | {"by": change.context.by, "cause": change.name, "given_at": change.at}
    columns = "id, act, actors, subject, change, from_seq, to_seq, flow_id, by, cause, given_at"
    sql = f"INSERT INTO orders_taken ({columns}) SELECT {columns} FROM jsonb_populate_record(NULL::orders_taken, $1) ON CONFLICT DO NOTHING"
    return bool(await tx.run(sql, orjson.dumps(taken, default=str).decode()))


async def to_do(tx: Tx) -> list[Order]:
    return await tx.all(Order, "SELECT *, given_at <= now() - $1::interval AS late FROM orders_taken WHERE done_at IS NULL ORDER BY given_at, id", GOOD_FOR)


async def done(tx: Tx, order: Order) -> bool:
    """Marks an order; False when it was marked before."""
    return bool(await tx.run("UPDATE orders_taken SET done_at = now() WHERE id = $1 AND done_at IS NULL", order.id))


def act_for(tx: Tx, order: Order, target: str, flow_id: UUID | None) -> None:
    """What is written from here on, to the stream ``target``, is the operator's doing, in the flow it concerns."""
    context = Context(by=order.by, flow_id=flow_id or order.flow_id, cause=order.cause, hops=1)
    tx.act_as(stream_id(target, "org"), stream_id(target, "user"), context, None)


class Told(NamedTuple):
    """What came of an order for one reaction or worker. ``did``: whether anything was done. ``target`` is the stream it concerns."""

    actor: str
    subject: str
    outcome: str
    did: bool = True
    target: str = ORDERS
    flow_id: UUID | None = None


async def tell(tx: Tx, order: Order, told: Told) -> None:
    """Publishes what came of an order. The target is locked."""
    act_for(tx, order, told.target, told.flow_id)
    await tx.run(
        "INSERT INTO order_results (order_id, act, actor, subject, target, did, outcome) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
        order.id, order.act, told.actor, told.subject, told.target, told.did, told.outcome,
    )  # fmt: skip

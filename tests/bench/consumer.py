"""A consumer built from the kit, as a process of its own: ``python -m tests.bench.consumer SERVICE KIND``.

It runs under an existing service's identity, in its schema, and prints ``joined`` when it belongs to its group. What it does
is what a service does, without the REST API: it applies changes, announces heads, retries what is parked.
"""

import asyncio
import sys
from collections.abc import Callable
from typing import Any
from uuid import UUID

from shared import healing
from shared.bus import Applier
from shared.consumer import ChangeConsumer, kafka_broker
from shared.healing import Retrier, every
from shared.log import set_up_logs
from shared.parking import PARKED
from shared.reactions import Reaction
from shared.replicas import replicas_of
from shared.rows import Pattern, Row
from shared.settings import settings
from shared.tx import Database, Tx


class BenchRow(Row):
    """What ``org`` publishes for the benchmarks."""

    table = "org.bench_rows"
    org_id: UUID
    id: int
    run: int


class BilledRow(BenchRow):
    """The first hop's effect."""

    table = "billing.bench_effects"


class ProvisionedRow(BenchRow):
    """The second hop's effect."""

    table = "provisioning.bench_effects"


async def publish(tx: Tx, row: BenchRow) -> None:
    """One change, one published row: what most reactions do."""
    await tx.run("INSERT INTO bench_effects (id, run) VALUES ($1, $2)", row.id, row.run)


async def publish_unless_poison(tx: Tx, row: BenchRow) -> None:
    """A row of a run below zero makes it fail."""
    if row.run < 0:
        raise ValueError("poison")
    await publish(tx, row)


async def keep(tx: Tx, row: BenchRow) -> None:
    """One change, one row that does not travel."""
    await tx.run("INSERT INTO bench_kept (id, run) VALUES ($1, $2)", row.id, row.run)


async def keep_all(tx: Tx, rows: list[BenchRow]) -> None:
    """A list of changes of one tenant, one statement."""
    await tx.run("INSERT INTO bench_kept (id, run) SELECT * FROM unnest($1::bigint[], $2::int[])", [r.id for r in rows], [r.run for r in rows])


KINDS: dict[str, tuple[type[BenchRow], Callable[..., Any]] | None] = {
    "publish": (BenchRow, publish),
    "publish unless poison": (BenchRow, publish_unless_poison),
    "keep": (BenchRow, keep),
    "keep_all": (BenchRow, keep_all),
    "replica": None,
    "hop 1": (BenchRow, publish),
    "hop 2": (BilledRow, publish),
    "hop 3": (ProvisionedRow, keep),
}


async def _consume(service: str, kind: str) -> None:
    set_up_logs(service, "WARNING")
    database = await Database.connect(settings().database_url.get_secret_value(), service, settings().database_pool)
    what = KINDS[kind]
    reactions = [Reaction(f"{service}.bench", Pattern(what[0], "inserted"), what[1], None, kind == "keep_all")] if what else []
    replicas = {} if what else {name: r for name, r in (await replicas_of(database.pool, service)).items() if name == BenchRow.table}
    applier = Applier(database, reactions, replicas)
    broker = kafka_broker(settings(), service)
    source = what[0].owner() if what else "org"
    consumer = ChangeConsumer(broker, applier, [f"{source}.changes"])
    background = [
        every(healing.HEADS_EVERY, lambda: healing.announce_heads(database), "announce heads"),
        every(1.0, lambda: healing.check_expected(database), "check heads"),
        every(1.0, Retrier(applier).retry_due, "retry parked", database.waker(PARKED)),
    ]
    tasks = [asyncio.create_task(one) for one in background]
    await broker.start()
    while not consumer.joined.yes:  # noqa: ASYNC110 - the client tells no other way
        await asyncio.sleep(0.01)
    print("joined", flush=True)
    await asyncio.gather(*tasks)


if __name__ == "__main__":
    asyncio.run(_consume(sys.argv[1], sys.argv[2]))

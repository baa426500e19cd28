"""Saying everything once more while life goes on: rows a second, and what the others notice of it."""

import asyncio
import time
from uuid import UUID

from shared import healing
from tests.bench.bus import Bus, a_bus
from tests.bench.registry import Bench, case

LIVE = 200


@case("restate")
async def restate(bench: Bench) -> None:
    """A hundred organizations with a thousand rows each are restated; others write at a steady rate meanwhile."""
    seconds = 8 if bench.quick else 20
    async with a_bus(100) as bus:
        await bus.backlog(20_000 if bench.quick else 100_000, rows=100)
        old = list(bus.orgs)
        async with bus.consumer("billing", "publish"):
            await bus.until("billing", "reactions", await bus.written())
            bus.fresh_orgs(200)
            await bus.steadily(LIVE, 5)
            await _live(bench, bus, "live without", seconds)
            for _ in range(1 if bench.quick else 3):
                await _restated(bench, bus, old, seconds)


async def _live(bench: Bench, bus: Bus, name: str, seconds: float) -> None:
    bus.run += 1
    await bus.steadily(LIVE, seconds)
    await bus.settled("billing.bench_effects")
    bench.saw_times(name, await bus.delays("billing.bench_effects"))


async def _restated(bench: Bench, bus: Bus, old: list[UUID], seconds: float) -> None:
    async with bus.source.transaction() as tx:
        await tx.run("INSERT INTO restatements (stream) SELECT 'org:' || o FROM unnest($1::uuid[]) o ON CONFLICT DO NOTHING", old)
    rows = 'SELECT count(*) FROM org.changes WHERE payload LIKE \'%"op" : "restate"%\''
    before, began = await bus.admin.fetchval(rows), time.monotonic()
    restating = asyncio.create_task(healing.restate_wanted(bus.source))
    await _live(bench, bus, "live while restating", seconds)
    if restating.done():
        await restating
    took = time.monotonic() - began
    restating.cancel()
    await asyncio.gather(restating, return_exceptions=True)
    bench.saw("restated", "rows/s", (await bus.admin.fetchval(rows) - before) / took)
    async with bus.source.transaction() as tx:
        await tx.run("DELETE FROM restatements")

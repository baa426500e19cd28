"""What one poison change in ten thousand costs all others."""

import time

from tests.bench.bus import Bus, a_bus
from tests.bench.registry import Bench, case

ORGS, PER_POISON = 1000, 10_000


@case("poison")
async def poison(bench: Bench) -> None:
    """A consumer drains the same backlog from Kafka with and without poison in it, in turn; each pair of runs gives one loss."""
    poisons, runs = (1, 2) if bench.quick else (4, 6)
    async with a_bus(ORGS) as bus:
        await _drained(bus, 1, poisoned=False)
        for run in range(runs):
            rates = {}
            for poisoned in (run % 2 == 0, run % 2 != 0):
                rates[poisoned] = await _drained(bus, poisons, poisoned=poisoned)
                bench.saw(f"drained {'with' if poisoned else 'without'} poison", "effects/s", rates[poisoned])
                if poisoned:
                    bench.saw("streams that wait, of each that was poisoned", "streams", await _waiting(bus) / poisons, at_most=1)
            bench.saw("lost to one poison in 10 000", "%", 100 * (1 - rates[True] / rates[False]), at_most=5)


async def _drained(bus: Bus, poisons: int, *, poisoned: bool) -> float:
    """Effects a second, from the consumer's joining until the last change is applied; of a poison, until it is parked."""
    await bus.admin.execute("TRUNCATE billing.parked, billing.fuses CASCADE")
    bus.fresh_orgs(ORGS)
    for n in range(poisons):
        await bus.backlog(PER_POISON)
        await bus.source.pool.execute("SELECT bench_write($1, $2)", bus.orgs[n * 100], -bus.run if poisoned else bus.run)
    changes = poisons * (PER_POISON + 1)
    async with bus.consumer("billing", "publish unless poison"):
        began = time.monotonic()
        await bus.until("billing", "reactions", changes)
        return changes / (time.monotonic() - began)


async def _waiting(bus: Bus) -> int:
    return int(await bus.admin.fetchval("SELECT count(*) FROM billing.parked"))

"""What the others notice of one organization at a hundred times their rate."""

import asyncio
import time

from tests.bench.bus import Bus, a_bus
from tests.bench.registry import Bench, case, percentile

ORGS, RATE, TIMES = 100, 4.0, 100
"""Changes a second of each organization, and how many times that the noisy one writes."""
_WRITERS = 2


@case("noisy")
async def noisy(bench: Bench) -> None:
    """The delays of all but the noisy one, from commit to the next service's effect, in runs without and with it, in turn."""
    seconds, runs = (5, 2) if bench.quick else (10, 6)
    async with a_bus(ORGS + 1) as bus, bus.consumer("billing", "publish"):
        loud = bus.orgs.pop()
        await bus.steadily(ORGS * RATE, 5 if bench.quick else 15)
        for run in range(runs):
            p99 = {}
            for disturbed in (run % 2 == 0, run % 2 != 0):
                name = "others, disturbed" if disturbed else "others, undisturbed"
                delays, made = await _others(bus, loud if disturbed else None, seconds)
                bench.saw_times(name, delays)
                p99[disturbed] = percentile(sorted(delays), 99)
                if disturbed:
                    bench.saw("noise", "changes/s", made / seconds)
            bench.saw("p99 of the others, disturbed against undisturbed", "ratio", p99[True] / p99[False], at_most=2)


async def _others(bus: Bus, loud: object, seconds: float) -> tuple[list[float], int]:
    """Milliseconds of each change of the others, and how many the noisy one made meanwhile."""
    bus.run += 1
    noise = asyncio.create_task(_noise(bus, loud, seconds)) if loud else None
    await bus.steadily(ORGS * RATE, seconds)
    made = await noise if noise else 0
    await bus.settled("billing.bench_effects")
    return await bus.delays("billing.bench_effects"), made


async def _noise(bus: Bus, org: object, seconds: float) -> int:
    began = time.monotonic()
    ticks = iter(range(int(RATE * TIMES * seconds)))
    made = 0

    async def writer() -> None:
        nonlocal made
        async with bus.source.pool.acquire() as connection:
            for n in ticks:
                await asyncio.sleep(max(0.0, began + n / (RATE * TIMES) - time.monotonic()))
                await connection.execute("SELECT bench_write($1, $2)", org, -bus.run)
                made += 1

    await asyncio.gather(*(writer() for _ in range(_WRITERS)))
    return made

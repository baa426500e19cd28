"""From the commit of a change to the commit of what the next service made of it, by Postgres's own commit times."""

from tests.bench.bus import Bus, a_bus
from tests.bench.registry import Bench, case

DEFAULTS = {"poll.interval.ms": "500", "max.batch.size": "2048"}
"""How Debezium hands over changes when it is not told otherwise."""


@case("latency")
async def latency(bench: Bench) -> None:
    """One reaction a change, each writing one published row; a thousand organizations in turn."""
    seconds, runs = (5, 1) if bench.quick else (10, 5)
    async with a_bus() as bus, bus.consumer("billing", "publish"):
        await bus.steadily(1000, 5 if bench.quick else 15)
        for _ in range(runs):
            await steady(bench, bus, 50, seconds, "50/s")
        for _ in range(runs):
            await steady(bench, bus, 1000, seconds, "1000/s", p50=8.0, p99=25.0)
        await bus.connector_with(**DEFAULTS)
        await bus.steadily(1000, 5)
        for rate in (50, 1000):
            for _ in range(runs):
                await steady(bench, bus, rate, seconds, f"  {rate}/s, Debezium's default polling")


async def steady(bench: Bench, bus: Bus, rate: int, seconds: float, name: str, p50: float | None = None, p99: float | None = None) -> None:
    bus.run += 1
    held = await bus.steadily(rate, seconds)
    await bus.settled("billing.bench_effects")
    bench.saw_times(name, await bus.delays("billing.bench_effects"), p50=p50, p99=p99)
    bench.saw(f"{name}: rate held", "/s", held)

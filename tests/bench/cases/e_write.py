"""What a published row costs its writer, against the same row in a table that does not travel."""

import asyncio
import time

from tests.bench.bus import Bus, a_bus
from tests.bench.registry import Bench, case

BULK = 500


@case("write")
async def write(bench: Bench) -> None:
    """Each way in turn, several times; the connector reads along, as it does in a mesh."""
    seconds = 1.0 if bench.quick else 3.0
    ways = (
        ("one at a time", 1, 1, False),
        ("one at a time, 8 writers", 1, 8, False),
        (f"in bulk, {BULK} rows a transaction", BULK, 1, False),
        ("8 writers on one hot tenant", 1, 8, True),
    )
    async with a_bus() as bus:
        await bus.steadily(500, 3)
        for _ in range(1 if bench.quick else 5):
            for name, rows, writers, hot in ways:
                plain = await _rate(bus, "bench_write_plain", seconds, rows, writers, hot=hot)
                published = await _rate(bus, "bench_write", seconds, rows, writers, hot=hot)
                bench.saw(f"{name}: plain", "rows/s", plain)
                bench.saw(f"{name}: published", "rows/s", published)
                bench.saw(f"{name}: published against plain", "ratio", published / plain)


async def _rate(bus: Bus, function: str, seconds: float, rows: int, writers: int, *, hot: bool) -> float:
    written, end = 0, time.monotonic() + seconds

    async def writer(first: int) -> None:
        nonlocal written
        async with bus.source.pool.acquire() as connection:
            n = first
            while time.monotonic() < end:
                await connection.execute(f"SELECT {function}($1, $2, $3)", bus.orgs[0 if hot else n % len(bus.orgs)], bus.run, rows)
                written += rows
                n += writers

    began = time.monotonic()
    await asyncio.gather(*(writer(first) for first in range(writers)))
    return written / (time.monotonic() - began)

"""Flows by the second: so many at once, one after the other."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable

AT_ONCE = 32


async def flows(start: Callable[[int], Awaitable[object]], seconds: float, first: int = 1) -> list[float]:
    """Milliseconds of each flow that ended; ``start`` returns when the flow with that number has."""
    end, took, number = time.monotonic() + seconds, [], iter(range(first, 10**9))

    async def one_after_the_other() -> None:
        while time.monotonic() < end:
            began = time.monotonic()
            await start(next(number))
            took.append(1000 * (time.monotonic() - began))

    await asyncio.gather(*(one_after_the_other() for _ in range(AT_ONCE)))
    return took


async def measure(start: Callable[[int], Awaitable[object]], seconds: float, runs: int) -> None:
    """Warms up and prints the times of every run as JSON, one line."""
    await flows(start, 3.0)
    found = []
    for run in range(runs):
        began = time.monotonic()
        took = await flows(start, seconds, first=1_000_000 * (run + 1))
        found.append({"seconds": time.monotonic() - began, "took_ms": took})
    print(json.dumps(found), flush=True)

"""A backlog: how fast it goes through the connector, and through the connector and a consumer together."""

import asyncio
import time

from tests.bench.bus import Bus, a_bus, until
from tests.bench.registry import Bench, case

ORGS = 1000


@case("drain")
async def drain(bench: Bench) -> None:
    """In turn: the connector starts on a backlog alone, and on others of the same size with a consumer that starts beside it."""
    changes = 40_000 if bench.quick else 200_000
    async with a_bus(ORGS) as bus:
        await alone_in(bus, 20_000)
        await from_kafka(bus, 20_000)
        for _ in range(1 if bench.quick else 3):
            alone = await alone_in(bus, changes)
            bench.saw("connector alone", "changes/s", changes / alone)
            bench.saw("one change a reaction, published, from Kafka", "effects/s", changes / await from_kafka(bus, changes), at_least=5000)
            for kind, reader in (("replica", "replicas"), ("keep_all", "reactions")):
                took = await together_in(bus, changes, kind, reader)
                name = "replica" if kind == "replica" else "set-based reaction"
                bench.saw(f"{name}, with the connector", "effects/s", changes / took)
                bench.saw(f"{name}, against the connector alone", "ratio", alone / took, at_least=0.8)
        took = await together_in(bus, changes, "keep", "reactions")
        bench.saw("  one change a reaction, with the connector", "effects/s", changes / took)


async def _backlog(bus: Bus, changes: int) -> int:
    """With the connector stopped; how many records the topic held before."""
    await bus.connector("stop", "STOPPED")
    bus.fresh_orgs(len(bus.orgs))
    await bus.backlog(changes)
    return await bus.sent()


async def alone_in(bus: Bus, changes: int) -> float:
    """Seconds from the connector's start until the last record is in Kafka."""
    before = await _backlog(bus, changes)
    began = time.monotonic()
    await bus.connector("resume", "RUNNING")

    async def done() -> bool:
        return await bus.sent() >= before + changes

    await until(done, 120, 0.02)
    return time.monotonic() - began


async def from_kafka(bus: Bus, changes: int) -> float:
    """Seconds from a consumer's joining until the last effect is committed."""
    async with bus.consumer("billing", "publish"):
        began = time.monotonic()
        await bus.until("billing", "reactions", changes)
        return time.monotonic() - began


async def together_in(bus: Bus, changes: int, kind: str, reader: str) -> float:
    """Seconds from the start of connector and consumer until the last effect is committed."""
    await _backlog(bus, changes)
    began = time.monotonic()
    async with bus.consumer("billing", kind, joined=False) as joined:
        await asyncio.gather(asyncio.wait_for(joined, 30), bus.connector("resume", "RUNNING"))
        await bus.until("billing", reader, changes)
        return time.monotonic() - began

"""Flows of three hops with 32 at once: through three services over the bus, beside two engines that keep a flow in one place."""

import asyncio
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg

from deploy.stack import Mesh
from tests.bench import tables
from tests.bench.bus import Bus, a_bus
from tests.bench.conditions import CHECKOUT
from tests.bench.peers.many import AT_ONCE, flows
from tests.bench.registry import Bench, case

REACH = {"restate": 3.0, "dbos": 5.0}


@case("flows")
async def three_hops(bench: Bench) -> None:
    """A flow is a row of ``org``, from which three services make a row each, one after the other; then the peers, in the same run."""
    seconds, runs = (5.0, 1) if bench.quick else (10.0, 5)
    async with a_bus() as bus:
        own = await _own(bench, bus, seconds, runs)
        for peer, times in REACH.items():
            found = await _peer(bus.mesh, peer, seconds, runs)
            for run in found:
                bench.saw(f"{peer}, {AT_ONCE} at once", "flows/s", len(run["took_ms"]) / run["seconds"])
                bench.saw_times(f"{peer}, one flow", run["took_ms"])
            bench.saw(f"against {peer}", "times", own / statistics.median(len(run["took_ms"]) / run["seconds"] for run in found), at_least=times)


async def _own(bench: Bench, bus: Bus, seconds: float, runs: int) -> float:
    """The median of the rates."""
    async with AsyncExitStack() as stack:
        for n, service in enumerate(tables.REACTING, 1):
            await stack.enter_async_context(bus.consumer(service, f"hop {n}"))
        ends = await stack.enter_async_context(_ends(bus))

        async def start(number: int) -> None:
            org = bus.orgs[number % len(bus.orgs)]
            row = await bus.source.pool.fetchval("SELECT bench_start($1, $2)", org, bus.run)
            await ends.of(row)

        await flows(start, 5.0)
        rates = []
        for run in range(runs):
            began = time.monotonic()
            took = await flows(start, seconds, first=1_000_000 * (run + 1))
            rates.append(len(took) / (time.monotonic() - began))
            bench.saw(f"this mesh, {AT_ONCE} at once", "flows/s", rates[-1])
            bench.saw_times("this mesh, one flow", took)
    return statistics.median(rates)


class Ends:
    """Tells when the last hop of a flow has committed; it may have before anybody asks."""

    def __init__(self) -> None:
        self._flows: dict[int, asyncio.Future[None]] = {}

    async def of(self, row: int) -> None:
        await self._flows.setdefault(row, asyncio.get_running_loop().create_future())
        del self._flows[row]

    def heard(self, _connection: object, _pid: int, _channel: str, row: object) -> None:
        future = self._flows.setdefault(int(str(row)), asyncio.get_running_loop().create_future())
        if not future.done():
            future.set_result(None)


@asynccontextmanager
async def _ends(bus: Bus) -> AsyncIterator[Ends]:
    ends = Ends()
    await bus.admin.add_listener("bench", ends.heard)
    try:
        yield ends
    finally:
        await bus.admin.remove_listener("bench", ends.heard)


async def _peer(mesh: Mesh, peer: str, seconds: float, runs: int) -> list[dict[str, Any]]:
    """Each run with its seconds and the milliseconds of every flow. Raises RuntimeError when the peer could not be measured."""
    url = mesh.databases.server.url(f"peer_{peer}")
    admin = await asyncpg.connect(mesh.databases.server.url())
    await admin.execute(f"CREATE DATABASE peer_{peer}")
    await admin.close()
    argv = [sys.executable, "-m", f"tests.bench.peers.with_{peer}", url, str(seconds), str(runs)]
    process = await asyncio.create_subprocess_exec(*argv, cwd=CHECKOUT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    out, err = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{peer} was not measured (uv sync --group peers): {err.decode()[-500:]}")
    return list(json.loads(out.splitlines()[-1]))

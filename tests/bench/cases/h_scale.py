"""The same figures with more and more organizations: what one more costs must stay flat."""

import asyncio
import time
import uuid

import asyncpg
import httpx

from deploy.stack import Mesh
from shared.changes import Context
from shared.tx import Database
from tests.bench.bus import Bus, a_bus, until
from tests.bench.cases.b_sign_up import series
from tests.bench.cases.c_latency import steady
from tests.bench.cases.d_drain import alone_in, from_kafka, together_in
from tests.bench.meshes import a_mesh, memory, work
from tests.bench.registry import Bench, case

SIZES = (100, 1000, 10_000)
"""The last one is beyond what has topics of its own."""


@case("scale")
async def scale(bench: Bench) -> None:
    """First the bus alone with so many streams; then organizations come through a mesh as they do when somebody makes one: each with its
    subscription, its place, and a topic of its own or its share of one.
    """
    for size in SIZES[:1] if bench.quick else SIZES:
        async with a_bus(size) as bus:
            await _bus(bench, bus, size)
    async with a_mesh() as mesh, httpx.AsyncClient(timeout=60) as client:
        known = 0
        for size in SIZES[:1] if bench.quick else SIZES:
            took = await _organizations(mesh, size - known)
            bench.saw(f"{size} organizations: made and placed", "/s", (size - known) / took)
            known = size
            await asyncio.sleep(20)
            spent = await work(mesh.state, 10 if bench.quick else 30)
            bench.saw(f"{size} organizations: idle", "% of a core", sum(spent.values()))
            bench.saw(f"{size} organizations: memory", "MB", sum(memory(mesh.state).values()))
            await series(client, mesh.status(), 5, at_once=1)
            done = await series(client, mesh.status(), 10, at_once=1)
            bench.saw_times(f"{size} organizations: sign-up to own login", [one.reached["usable"] for one in done])
            bench.saw(f"{size} organizations: broker restart until all is healthy", "s", await asyncio.to_thread(_restart, mesh))


async def _bus(bench: Bench, bus: Bus, size: int) -> None:
    changes = 40_000 if bench.quick else 200_000
    for _ in ("to warm up", "to count"):
        alone = await alone_in(bus, changes)
        await from_kafka(bus, changes)
    took = await together_in(bus, changes, "replica", "replicas")
    bench.saw(f"{size} organizations: replica, against the connector alone", "ratio", alone / took)
    bus.fresh_orgs(size)
    async with bus.consumer("billing", "publish"):
        await bus.steadily(1000, 5 if bench.quick else 15)
        for _ in range(1 if bench.quick else 3):
            await steady(bench, bus, 1000, 5 if bench.quick else 10, f"{size} organizations: commit to effect at 1000/s")


async def _organizations(mesh: Mesh, count: int) -> float:
    """Seconds until the last of them can be told of in its topic."""
    began = time.monotonic()
    database = await Database.connect(mesh.databases.url("org", "app"), "org")
    try:
        for _ in range(count):
            org = uuid.uuid4()
            async with database.transaction(f"org:{org}", context=Context(by="bench")) as tx:
                await tx.run("INSERT INTO organizations (name, origin) VALUES ('Scale', 'created')")
    finally:
        await database.close()
    admin = await asyncpg.connect(mesh.databases.server.url(mesh.plan.database_of("provisioning")))
    try:
        wanted = await admin.fetchval("SELECT count(*) FROM org.organizations")

        async def done() -> bool:
            return bool(await admin.fetchval("SELECT count(*) FROM provisioning.tenants WHERE opened") >= wanted)

        await until(done, 1800, 0.1)
    finally:
        await admin.close()
    return time.monotonic() - began


def _restart(mesh: Mesh) -> float:
    began = time.monotonic()
    mesh.restart("kafka", timeout=180)
    return time.monotonic() - began

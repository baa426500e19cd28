"""The bus with the benchmarks' tables on it: writing changes, consuming them in processes of their own, reading what came of it."""

import asyncio
import contextlib
import os
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import asyncpg
import requests
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from deploy import connectors
from deploy.connect import Worker
from deploy.plan import HOST
from deploy.stack import Mesh
from shared import healing
from shared.healing import every
from shared.tx import Database
from tests.bench import tables
from tests.bench.conditions import CHECKOUT
from tests.bench.meshes import a_mesh

CONNECTOR = "mesh-changes"


@dataclass
class Bus:
    """A mesh without services. ``source`` is the database as ``org``'s application role, ``admin`` sees everything."""

    mesh: Mesh
    admin: asyncpg.Connection
    source: Database
    orgs: list[uuid.UUID] = field(default_factory=list)
    run: int = 0

    # Writing

    def fresh_orgs(self, count: int) -> None:
        """From now on other organizations are written, and a new run begins."""
        self.orgs = [uuid.uuid4() for _ in range(count)]
        self.run += 1

    async def backlog(self, changes: int, rows: int = 10) -> None:
        """Writes so many changes, ``rows`` of them in a transaction, the organizations in turn."""
        waiting = iter([org for _ in range(changes // rows // len(self.orgs)) for org in self.orgs])

        async def writer() -> None:
            async with self.source.pool.acquire() as connection:
                for org in waiting:
                    await connection.execute("SELECT bench_write($1, $2, $3)", org, self.run, rows)

        await asyncio.gather(*(writer() for _ in range(4)))

    async def steadily(self, rate: float, seconds: float) -> float:
        """Writes one change a transaction at this rate, the organizations in turn; the rate that was really held."""
        began = time.monotonic()
        ticks = iter(range(int(rate * seconds)))

        async def writer() -> None:
            async with self.source.pool.acquire() as connection:
                for n in ticks:
                    await asyncio.sleep(max(0.0, began + n / rate - time.monotonic()))
                    await connection.execute("SELECT bench_write($1, $2)", self.orgs[n % len(self.orgs)], self.run)

        await asyncio.gather(*(writer() for _ in range(6)))
        return int(rate * seconds) / (time.monotonic() - began)

    # Reading

    async def written(self) -> int:
        return int(await self.admin.fetchval("SELECT count(*) FROM org.bench_rows WHERE run = $1", self.run))

    async def applied(self, service: str, reader: str) -> int:
        """How many changes of the present organizations this reader has applied."""
        streams = [f"org:{org}" for org in self.orgs]
        return int(await self.admin.fetchval(f"SELECT coalesce(sum(seq), 0) FROM {service}.positions WHERE reader = $1 AND stream = ANY($2)", reader, streams))

    async def until(self, service: str, reader: str, changes: int, timeout: float = 120) -> None:  # noqa: ASYNC109 - handed on
        async def done() -> bool:
            return await self.applied(service, reader) >= changes

        await until(done, timeout, 0.02)

    async def settled(self, effects: str, timeout: float = 60) -> None:  # noqa: ASYNC109 - handed on
        """Until every change of this run has its effect in that table."""

        async def done() -> bool:
            return bool(await self.admin.fetchval(f"SELECT count(*) FROM {effects} WHERE run = $1", self.run) >= await self.written())

        await until(done, timeout, 0.1)

    async def delays(self, effects: str) -> list[float]:
        """Milliseconds from the commit of each change of this run to the commit of its effect in that table.

        Raises RuntimeError when a change has none.
        """
        rows = await self.admin.fetch(
            "SELECT 1000 * extract(epoch FROM pg_xact_commit_timestamp(e.xmin) - pg_xact_commit_timestamp(r.xmin))::float8 AS ms "
            f"FROM org.bench_rows r LEFT JOIN {effects} e USING (org_id, id) WHERE r.run = $1",
            self.run,
        )
        if any(row["ms"] is None for row in rows):
            raise RuntimeError("a change has no effect, or one without a commit time")
        return [row["ms"] for row in rows]

    # The connector and the consumers

    @property
    def worker(self) -> Worker:
        return Worker.of(self.mesh.state, self.mesh.plan)

    async def connector(self, action: str, state: str) -> None:
        """``stop`` or ``resume`` it, and wait until it is so."""
        await asyncio.to_thread(self.ask, action)

        async def done() -> bool:
            return await asyncio.to_thread(self.worker.registry.state, CONNECTOR) == state

        await until(done, 60, 0.02)

    def ask(self, action: str) -> None:
        answer = requests.put(f"{self.worker.url}/connectors/{CONNECTOR}/{action}", auth=("mesh", self.worker.password), timeout=10)
        answer.raise_for_status()

    async def connector_with(self, **settings: str) -> None:
        """Gives the connector other settings; ends the supervisor, which would set them back."""
        with contextlib.suppress(Exception):
            self.mesh.kill("supervisor")
        config = connectors.changes_connector("mesh", HOST, self.mesh.plan.ports["postgres"], self.worker.secret_reference("mesh_cdc"))
        await asyncio.to_thread(self.worker.registry.ensure, CONNECTOR, config | settings)
        await asyncio.to_thread(self.worker.registry.await_running, CONNECTOR)

    @asynccontextmanager
    async def consumer(self, service: str, kind: str, *, joined: bool = True) -> AsyncIterator[asyncio.Future[None]]:
        """A consumer of this kind as this service, while inside; it belongs to its group unless nobody waits for that. The future is done when it does,
        and raises RuntimeError when it has ended before.

        What it logs is shown: a consumer that complains is not measured unseen.
        """
        environment = os.environ | self.mesh.environment.service(service)
        argv = [sys.executable, "-m", "tests.bench.consumer", service, kind]
        process = await asyncio.create_subprocess_exec(*argv, env=environment, cwd=CHECKOUT, stdout=asyncio.subprocess.PIPE)
        has_joined: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        listening = asyncio.create_task(_listen(process, has_joined))
        try:
            if joined:
                await asyncio.wait_for(has_joined, 30)
            yield has_joined
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()
            await listening

    async def sent(self) -> int:
        """How many records ``org.changes`` holds now."""
        return await asyncio.to_thread(_newest, self.mesh.broker.admin(), self.mesh.plan.partitions)


async def until(done: Callable[[], Awaitable[bool]], timeout: float, every: float) -> None:  # noqa: ASYNC109 - handed on
    """Looks every so many seconds. Raises TimeoutError."""
    async with asyncio.timeout(timeout):
        while not await done():  # noqa: ASYNC110 - what is waited for is in other processes
            await asyncio.sleep(every)


def _newest(admin: AdminClient, partitions: int) -> int:
    topic = f"{tables.SOURCE}.changes"
    wanted = {TopicPartition(topic, partition): OffsetSpec.latest() for partition in range(partitions)}
    return sum(future.result().offset for future in admin.list_offsets(wanted).values())


@asynccontextmanager
async def a_bus(orgs: int = 1000) -> AsyncIterator[Bus]:
    """A bus of its own whose Postgres keeps commit times; ``org`` announces its heads as it does in a mesh."""
    async with a_mesh(services=()) as mesh:
        await _keep_commit_times(mesh)
        await tables.make(mesh)
        admin = await asyncpg.connect(mesh.databases.server.url("mesh"))
        source = await Database.connect(mesh.databases.url("org", "app"), "org")
        heads = asyncio.create_task(every(healing.HEADS_EVERY, lambda: healing.announce_heads(source), "announce heads"))
        try:
            bus = Bus(mesh, admin, source)
            bus.fresh_orgs(orgs)
            yield bus
        finally:
            heads.cancel()
            await source.close()
            await admin.close()


async def _listen(process: asyncio.subprocess.Process, has_joined: asyncio.Future[None]) -> None:
    """Reads on whatever it says: who is not read waits."""
    while process.stdout and (line := await process.stdout.readline()):
        if line == b"joined\n" and not has_joined.done():
            has_joined.set_result(None)
        else:
            print(line.decode(), end="", file=sys.stderr, flush=True)
    if not has_joined.done():
        has_joined.set_exception(RuntimeError("the consumer has ended"))


async def _keep_commit_times(mesh: Mesh) -> None:
    connection = await asyncpg.connect(mesh.databases.server.url())
    try:
        await connection.execute("ALTER SYSTEM SET track_commit_timestamp = on")
    finally:
        await connection.close()
    await asyncio.to_thread(mesh.restart, "postgres")

"""A thousand agents that were away come back at once, and find that everything they hold is wanted otherwise."""

import asyncio
import json
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psutil

from deploy import topics
from deploy.plan import Plan
from deploy.process import Command
from deploy.stack import Mesh
from schemas.feed import agent_user
from shared.changes import Context
from shared.tx import Database
from tests.bench.bus import until
from tests.bench.conditions import CHECKOUT
from tests.bench.meshes import a_mesh, work
from tests.bench.registry import Bench, case
from tests.faults.load import Size
from tests.faults.world import World

AGENTS = 1000
_HOMELESS = "provisioning.data_planes p WHERE id LIKE 'sim-%' AND NOT EXISTS (SELECT FROM provisioning.databases WHERE data_plane = p.id)"
_UNPLACED = "org.organizations o WHERE NOT EXISTS (SELECT FROM provisioning.databases d WHERE d.org_id = o.org_id AND d.data_plane IS NOT NULL)"
TOGETHER = 60.0
"""Seconds in which all of them are to be as wanted."""
PATIENCE = 240.0
_FLEETS = 2
_AT_ONCE = 16
_CHUNK = 200
_MEMORY = next((path for path in (Path("/dev/shm"),) if path.exists()), None)  # noqa: S108 - a thousand agents have a thousand disks, not this one's
SIZE = Size(sign_ups=0, organizations=12, suspending=4, inviting=12, databases=6, resets=12, beginning=4)
"""Nobody signs up meanwhile: a new customer would be placed at a server that is only imagined."""

_UNSETTLED = """
SELECT (SELECT count(*) FROM provisioning.data_planes WHERE id LIKE 'sim-%' AND last_seen > $1) AS heard,
       (SELECT count(*) FROM provisioning.tenants WHERE data_plane LIKE 'sim-%' AND observed < generation)
     + (SELECT count(*) FROM provisioning.databases WHERE data_plane LIKE 'sim-%' AND observed < generation)
     + (SELECT count(*) FROM provisioning.reports r JOIN provisioning.data_planes d ON d.id = r.data_plane AND d.agent_epoch > r.agent_epoch) AS open"""
"""``open``: what is not confirmed as wanted, and tenants of which the agent that runs now has not told yet."""


@case("agents")
async def agents(bench: Bench) -> None:
    """Each has a tenant with a database of its own; every tenant is suspended while they are away. Other customers go on throughout."""
    count = 100 if bench.quick else AGENTS
    async with a_mesh() as mesh, World.on(mesh, 1, SIZE) as world, _fleet(world, [f"sim-{n:04}" for n in range(count)]) as fleet:
        bench.saw(f"{count} agents: known, and each with a tenant, after", "s", await _grown(world, fleet, count))
        await fleet.say("go")
        async with world.load.runs():
            await _suspend_all(world)
            requests, failures, began = world.load.client.answers.total(), len(world.load.client.failures), await _now(world)
            took, spent = await asyncio.gather(_back(world, fleet, count, began), work(mesh.state, 20))
            bench.saw(f"{count} agents: back at once, converged after", "s", took, at_most=TOGETHER)
            bench.saw("  requests meanwhile", "requests", world.load.client.answers.total() - requests)
            bench.saw("  requests that had to be repeated", "requests", len(world.load.client.failures) - failures)
        verdict = await world.oracle.settled()
        lost = world.load.ledger.surprises + world.load.stuck
        bench.saw("  requests that failed for good", "requests", len(lost), at_most=0)
        bench.saw("  lost, doubled or disordered", "findings", len(verdict.findings), at_most=0)
        bench.details |= {"percent_of_a_core": spent, "fleets_seconds": fleet.seconds(), "findings": [f.what for f in verdict.findings], "failed": lost}


@dataclass
class Fleet:
    """The processes in which the agents live."""

    processes: list[asyncio.subprocess.Process]

    async def say(self, word: str) -> None:
        """Returns when all have done it."""
        await asyncio.gather(*(self._say(one, word) for one in self.processes))

    @staticmethod
    async def _say(process: asyncio.subprocess.Process, word: str) -> None:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the fleet cannot be spoken to")
        process.stdin.write(f"{word}\n".encode())
        if await asyncio.wait_for(process.stdout.readline(), PATIENCE) != b"done\n":
            raise RuntimeError("the fleet has ended")

    def seconds(self) -> float:
        """Of processor time that it has used: not the mesh's, but taken from the same cores."""
        return sum(sum(psutil.Process(one.pid).cpu_times()[:2]) for one in self.processes)


@asynccontextmanager
async def _fleet(world: World, planes: list[str]) -> AsyncIterator[Fleet]:
    """Users, rights and topics as every data plane has them; provisioning listens to all of them inside."""
    mesh = world.lab.mesh
    for chunk in _chunks(planes):
        await asyncio.to_thread(_welcome, mesh, mesh.plan.model_copy(update={"data_planes": chunk}))

    def listen(command: Command) -> Command:
        return replace(command, environment={**command.environment, "DATA_PLANES": ",".join([command.environment["DATA_PLANES"], *planes])})

    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fleet ", dir=_MEMORY)))
        await stack.enter_async_context(world.lab.otherwise(("provisioning",), listen))
        processes = [await stack.enter_async_context(_ship(mesh, planes[n::_FLEETS], folder)) for n in range(_FLEETS)]
        yield Fleet(processes)


def _chunks(planes: list[str]) -> Iterator[tuple[str, ...]]:
    for n in range(0, len(planes), _CHUNK):
        yield tuple(planes[n : n + _CHUNK])


def _welcome(mesh: Mesh, plan: Plan) -> None:
    admin = mesh.broker.admin()
    topics.ensure_topics(admin, plan)
    topics.ensure_users(admin, mesh.broker, plan)


@asynccontextmanager
async def _ship(mesh: Mesh, planes: list[str], folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """One process with these agents, none of which has come yet."""
    argv = [sys.executable, "-m", "tests.bench.fleet"]
    process = await asyncio.create_subprocess_exec(*argv, cwd=CHECKOUT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    told: dict[str, Any] = {"bootstrap": mesh.broker.bootstrap, "folder": str(folder)}
    told["passwords"] = {plane: mesh.broker.password(agent_user(plane)) for plane in planes}
    try:
        if process.stdin:
            process.stdin.write(json.dumps(told).encode() + b"\n")
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _grown(world: World, fleet: Fleet, count: int) -> float:
    """Seconds until all agents were heard for the first time, each was given a tenant with a database, and holds both."""
    began, since = time.monotonic(), await _now(world)
    await fleet.say("come")
    await _settled(world, count, since, heard_only=True)
    database = await Database.connect(world.lab.mesh.databases.url("org", "app"), "org")
    try:
        while homeless := await _count(world, _HOMELESS):
            await _found(database, homeless)
            await _all_placed(world)
    finally:
        await database.close()
    await _settled(world, count, since)
    return time.monotonic() - began


async def _found(database: Database, organizations: int) -> None:
    """As a sign-up does it: each is given a subscription, a place with fewest tenants, and its first database."""
    for _ in range(organizations):
        async with database.transaction(f"org:{uuid.uuid4()}", context=Context(by="bench")) as tx:
            await tx.run("INSERT INTO organizations (name, origin) VALUES ('Far away', 'sign_up')")


async def _all_placed(world: World) -> None:
    async def placed() -> bool:
        return not await _count(world, _UNPLACED)

    await until(placed, PATIENCE, 0.5)


async def _count(world: World, of: str) -> int:
    return int((await world.lab.rows(f"SELECT count(*) AS n FROM {of}"))[0]["n"])


async def _suspend_all(world: World) -> None:
    """By an operator, every one of their tenants; returns when provisioning wants it so."""
    url, headers = world.lab.document["services"]["org"]["url"], {"Authorization": f"Bearer {world.lab.document['operator_token']}"}
    waiting = iter([r["id"] for r in await world.lab.rows("SELECT org_id::text AS id FROM provisioning.tenants WHERE data_plane LIKE 'sim-%'")])

    async def operator(client: httpx.AsyncClient) -> None:
        for org in waiting:
            answer = await client.post(f"{url}/orgs/{org}/suspend", json={"reason": "bench"}, headers=headers)
            answer.raise_for_status()

    async with httpx.AsyncClient(timeout=60) as client:
        await asyncio.gather(*(operator(client) for _ in range(_AT_ONCE)))

    async def wanted() -> bool:
        return not await _count(world, "provisioning.tenants WHERE data_plane LIKE 'sim-%' AND wanted <> 'suspended'")

    await until(wanted, PATIENCE, 0.2)


async def _back(world: World, fleet: Fleet, count: int, since: datetime) -> float:
    began = time.monotonic()
    coming = asyncio.create_task(fleet.say("come"))
    await _settled(world, count, since)
    await coming
    return time.monotonic() - began


async def _settled(world: World, count: int, since: datetime, *, heard_only: bool = False) -> None:
    """Until provisioning has heard all of them since then, and knows that they hold what is wanted."""

    async def done() -> bool:
        (row,) = await world.lab.rows(_UNSETTLED, since)
        return bool(row["heard"] == count and (heard_only or not row["open"]))

    await until(done, PATIENCE, 0.25)


async def _now(world: World) -> datetime:
    at: datetime = (await world.lab.rows("SELECT now() AS at"))[0]["at"]
    return at

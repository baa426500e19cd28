"""A new version comes while the old one works: both side by side, and a migration under them."""

import asyncio
import io
import os
import signal
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import asyncpg

from deploy import process
from deploy.plan import SERVICES
from deploy.state import CHECKOUT
from shared.changes import Context
from shared.tx import Database
from tests.faults.registry import NeverHit, NotRun, case
from tests.faults.world import World

_OLD = "FAULTS_FROM"
"""In the environment: the commit whose code is the old one; without it the last tag's is."""
_EXPAND = "ALTER TABLE organizations ADD COLUMN motto text"
_MIGRATE = "UPDATE organizations SET motto = 'Onward'"
_CONTRACT = "ALTER TABLE organizations DROP COLUMN motto"
_TRAVELED = """SELECT count(*) FROM console.history WHERE name LIKE 'org/%' AND name IN (
    SELECT 'org/' || stream || '/' || (payload::json ->> 'epoch') || '.' || seq FROM org.changes WHERE payload LIKE '%"motto": "Onward"%')"""


@case("rolling change: the last tag's code beside this one, with an expand-and-contract migration")
async def rolling_change(world: World) -> None:
    """Each service runs once in the old code and once in the new, requests shared among both, and the agent in the old. A published
    table and a copy of it grow, are filled, and shrink again when the services in the old code have ended; the old agent goes on for a while.
    """
    lab, client = world.lab, world.load.client
    twins = tuple(f"{service}-2" for service in SERVICES)
    with tempfile.TemporaryDirectory(prefix="mesh old code ") as folder:
        old = await asyncio.to_thread(_unpack, Path(folder))
        world.load.ledger.surprises += _edited(old)

        def change(command: process.Command) -> process.Command:
            return replace(command, folder=old)

        async with lab.replicas(*SERVICES), lab.otherwise(("agent-local",), change, signal.SIGTERM):
            async with AsyncExitStack() as one_by_one:
                for twin in twins:
                    one_by_one.push_async_callback(lab.healthy)
                    await one_by_one.enter_async_context(lab.otherwise((twin,), change, signal.SIGTERM))
                services, before = (await asyncio.to_thread(lab.mesh.status))["services"], len(client.failures)
                await client.share({name: service["urls"] for name, service in services.items()})
                await asyncio.sleep(5)
                await _as_owners(world, _EXPAND, "org", "provisioning")
                await _fill(world)
                await asyncio.sleep(15)
                await client.share({name: service["urls"][:1] for name, service in services.items()})
            await _as_owners(world, _CONTRACT, "provisioning", "org")
            await asyncio.sleep(10)
        world.load.ledger.surprises += client.failures[before:]
        if not (await lab.rows(_TRAVELED))[0]["count"]:
            raise NeverHit("no change record held the new column")


def _unpack(folder: Path) -> Path:
    """The old code, as it was committed."""
    name = os.environ.get(_OLD) or _git("describe", "--tags", "--abbrev=0").decode().strip()
    with tarfile.open(fileobj=io.BytesIO(_git("archive", name))) as archive:
        archive.extractall(folder, filter="data")
    return folder


def _git(*words: str) -> bytes:
    done = subprocess.run(["git", *words], cwd=CHECKOUT, capture_output=True, check=False)
    if done.returncode:
        why = done.stderr.decode().strip().splitlines()[0]
        raise NotRun(f"no old code ({why}): name a commit that is to be the old one, {_OLD}=<commit> make faults, or tag one, git tag v1 <commit>")
    return done.stdout


def _edited(old: Path) -> Iterator[str]:
    """In words: each migration of the old code that is not the same any more. A database that has it cannot be brought to the new code."""
    for file in sorted([*old.glob("shared/migrations/*.sql"), *old.glob("services/*/migrations/*.sql")]):
        now = CHECKOUT / file.relative_to(old)
        if not now.exists() or now.read_text() != file.read_text():
            yield f"{file.relative_to(old)} was changed since the old code: add a new file instead"


async def _as_owners(world: World, sql: str, *services: str) -> None:
    for service in services:
        await _as_owner(world, service, sql)


async def _as_owner(world: World, service: str, sql: str) -> None:
    """As a migration does it: in a transaction that gives up rather than have everybody wait behind it."""
    connection = await asyncpg.connect(world.lab.mesh.databases.url(service, "owner"))
    try:
        while True:
            try:
                async with connection.transaction():
                    await connection.execute("SET LOCAL lock_timeout = '1s'")
                    await connection.execute(sql)
            except asyncpg.LockNotAvailableError:
                await asyncio.sleep(0.2)
            else:
                return
    finally:
        await connection.close()


async def _fill(world: World) -> None:
    """One organization after the other, as a service's own code would."""
    database = await Database.connect(world.lab.mesh.databases.url("org", "app"), "org")
    try:
        for home in world.load.homes:
            async with database.transaction(f"org:{home.org_id}", context=Context(by="migration")) as tx:
                await tx.run(_MIGRATE)
    finally:
        await database.close()

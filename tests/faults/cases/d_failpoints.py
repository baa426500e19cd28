"""The process ends exactly between two things that belong together."""

import asyncio
import contextlib
import sys
from dataclasses import replace

from deploy import process
from deploy.state import CHECKOUT
from deploy.units import units
from shared.failpoints import FAILPOINTS, Name
from tests.faults.cases.b_bus import unpublished
from tests.faults.cases.h_reactions import failing, is_parked, rename_of
from tests.faults.registry import Harm, NeverHit, case, soon
from tests.faults.world import World

_HIT = 5
_PATIENCE = 60.0


async def _until_hit(world: World, name: str, failpoint: Name, hit: int = _HIT) -> None:
    """The process runs with the failpoint armed until it has ended there."""
    mesh = world.lab.mesh
    unit = next(u for u in units(mesh.state, mesh.plan) if u.name == name)
    async with world.lab.down(name):
        command = unit.command()
        armed = replace(command, environment={**command.environment, "MESH_FAILPOINT": f"{failpoint}:{hit}"})
        began = mesh.state.log(name).stat().st_size
        process.start(mesh.state, armed)
        try:
            await world.lab.until(lambda: mesh.pid(name) is None, _PATIENCE, f"failpoint {failpoint}")
        except Exception as error:
            raise NeverHit(f"{failpoint} was not passed {hit} times in {name} within {_PATIENCE:.0f} s") from error
        if f'"failpoint":"{failpoint}"' not in mesh.state.log(name).read_text(errors="replace")[began:]:
            raise NeverHit(f"{name} ended, but not at {failpoint}")


def _at(name: str, failpoint: Name, hit: int = _HIT) -> Harm:
    async def harm(world: World) -> None:
        await _until_hit(world, name, failpoint, hit)

    return harm


PLACES: tuple[tuple[Name, str, int], ...] = (
    ("answer", "user", 5),
    ("answer", "org", 5),
    ("answer", "provisioning", 4),
    ("reaction", "org", 5),
    ("reaction", "billing", 1),
    ("reaction", "notification", 7),
    ("reaction", "provisioning", 6),
    ("replica", "org", 9),
    ("replica", "provisioning", 9),
    ("follower", "console", 9),
    ("offset", "notification", 5),
    ("offset", "console", 7),
    ("work", "notification", 9),
    ("mail", "notification", 6),
    ("customer", "billing", 1),
    ("feed", "provisioning", 2),
    ("step", "agent-local", 7),
    ("heads", "org", 2),
)
for _failpoint, _name, _times in PLACES:
    case(f"failpoint {_failpoint} in {_name}")(_at(_name, _failpoint, _times))


@case("failpoint retry in billing")
async def in_a_retry(world: World) -> None:
    """What was parked succeeds at last, and the process ends before that is written."""
    quiet = world.load.quiet
    async with contextlib.AsyncExitStack() as stack:
        async with failing(world, rename_of(quiet)):
            await world.load.rename(quiet, "To be tried again")
            await soon(lambda: is_parked(world, quiet), 20, "the change to be parked")
            await stack.enter_async_context(world.lab.down("billing"))
        await _until_hit(world, "billing", "retry", 1)


@case("failpoint resend in org")
async def in_a_resend(world: World) -> None:
    """Killed while it sends again what was lost."""

    async def lose() -> None:
        await asyncio.sleep(12)
        async with unpublished(world, "org.changes"):
            await asyncio.sleep(2)

    losing = asyncio.create_task(lose())
    try:
        await _until_hit(world, "org", "resend", 1)
    finally:
        await losing


_SCHEMA = """
SELECT table_name, column_name, data_type, column_default, is_nullable FROM information_schema.columns WHERE table_schema = $1 AND table_name !~ '^changes_[0-9]'
ORDER BY 1, 2"""
_MIGRATE = "import asyncio, sys; from shared.migrations import migrate; print(asyncio.run(migrate(sys.argv[1], sys.argv[2])))"


@case("failpoint migration in org")
async def in_a_migration(world: World) -> None:
    """A new database is migrated in several attempts, each of which ends in another file, and equals the old one."""
    lab, service, database = world.lab, "org", "faults_migration"
    await lab.run(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
    await lab.run(f"CREATE DATABASE {database}")
    there = lab.mesh.databases.server.url(database)
    await lab.run(f'CREATE SCHEMA "{service}" AUTHORIZATION "{service}_owner"', url=there)
    await lab.run(f'GRANT CONNECT ON DATABASE {database} TO "{service}_owner"', url=there)
    owner = lab.mesh.databases.url(service, "owner").rpartition("/")[0] + f"/{database}"
    for hit in (1, 2, 3):
        if await _migrate(service, owner, f"migration:{hit}") != -9:
            raise NeverHit(f"the migration did not end at its failpoint the time it should have, {hit}")
    if await _migrate(service, owner, "") != 0:
        raise NeverHit("the migration cannot be finished any more")
    made, wanted = await lab.rows(_SCHEMA, service, url=there), await lab.rows(_SCHEMA, service)
    if made != wanted:
        world.load.ledger.surprises.append("a migration in several attempts made another schema")
    await lab.run(f"DROP DATABASE {database} WITH (FORCE)")


async def _migrate(service: str, owner: str, failpoint: str) -> int:
    environment = {"MESH_FAILPOINT": failpoint, "PATH": "/usr/bin:/bin"}
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _MIGRATE, service, owner, cwd=CHECKOUT, env=environment, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    return await running.wait()


ENUMERATED = {failpoint for failpoint, _, _ in PLACES} | {"retry", "resend", "migration"}
"""Every failpoint of the kit has a case."""
if missing := set(FAILPOINTS) - ENUMERATED:
    raise LookupError(f"failpoints without a case: {missing}")

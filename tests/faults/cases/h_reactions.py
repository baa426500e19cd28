"""Reactions that fail, and records that nobody understands: who waits, who goes on, and how it ends."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from deploy.plan import SERVICES
from tests.faults.alarms import is_raised
from tests.faults.load import Home
from tests.faults.registry import case, soon
from tests.faults.world import World

_BUG = "billing.start_the_subscription"
_GOES_ON = 12.0
"""Seconds in which everybody else is seen to go on."""
_NEWCOMERS = 14
"""A fuse blows when so many different organizations fail."""
_SERVED = 40.0
"""Seconds in which somebody who signs up under the load has everything, with the mails."""


@contextlib.asynccontextmanager
async def failing(world: World, when: str) -> AsyncIterator[None]:
    """Inside, billing cannot write its subscriptions in this event and case."""
    lab = world.lab
    await lab.run("CREATE FUNCTION billing.has_a_bug() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'the plan has a hole'; END $$")
    try:
        await lab.run(f"CREATE TRIGGER has_a_bug BEFORE {when} EXECUTE FUNCTION billing.has_a_bug()")
        yield
    finally:
        await lab.run("DROP FUNCTION billing.has_a_bug CASCADE")


@contextlib.asynccontextmanager
async def _newcomers(world: World) -> AsyncIterator[None]:
    """So many sign up at once, and have everything at the end."""
    signing_up = [asyncio.create_task(world.load.make_home()) for _ in range(_NEWCOMERS)]
    try:
        yield
        await asyncio.gather(*signing_up)
    finally:
        for one in signing_up:
            one.cancel()


async def _copy_follows(world: World) -> bool:
    """Whether billing has copied all that was written to the quiet organization."""
    rows = await world.lab.rows(
        "SELECT s.seq = p.seq AS same FROM org.streams s JOIN billing.positions p ON p.source = 'org' AND p.stream = s.stream AND p.reader = 'replicas' "
        "WHERE s.stream = $1",
        f"org:{world.load.quiet.org_id}",
    )
    return bool(rows and rows[0]["same"])


def rename_of(home: Home) -> str:
    """The event in which only this organization's subscription cannot be written."""
    return f"UPDATE OF customer_name ON billing.subscriptions FOR EACH ROW WHEN (NEW.org_id = '{home.org_id}')"


async def is_parked(world: World, home: Home) -> bool:
    return bool(await _parked(world, f"stream = 'org:{home.org_id}' AND state = 'retrying'"))


async def _parked(world: World, where: str) -> int:
    return int((await world.lab.rows(f"SELECT count(*) AS n FROM billing.parked WHERE {where}"))[0]["n"])


@case("poison: one organization's change fails for one reaction")
async def poison(world: World) -> None:
    """Its stream waits, for this reaction alone; when it is mended it goes on by itself."""
    quiet = world.load.quiet
    async with failing(world, rename_of(quiet)):
        for name in ("Poison", "Behind the poison"):
            await world.load.rename(quiet, name)
        await soon(lambda: is_parked(world, quiet), 20, "the poison to be parked")
        try:
            await asyncio.wait_for(world.load.make_home(), _SERVED)
        except TimeoutError:
            world.surprise(f"who signed up while one organization's change was poison did not have everything in {_SERVED:.0f} s")
        if others := await _parked(world, f"stream <> 'org:{quiet.org_id}' AND state <> 'waiting'"):
            world.surprise(f"{others} streams are parked besides the poisoned one")
        if not await _copy_follows(world):
            world.surprise("the copies of the poisoned stream wait as well")


@case("a reaction with a bug on every change")
async def bug(world: World) -> None:
    """Its fuse holds it, which is alarmed; nothing is buried, copies go on. When it is mended an operator has all of it tried."""

    async def is_held() -> bool:
        return bool(await world.lab.rows("SELECT FROM billing.fuses WHERE reaction = $1", _BUG))

    async def copy_follows() -> bool:
        return await _copy_follows(world)

    async with contextlib.AsyncExitStack() as stack:
        async with failing(world, "INSERT ON billing.subscriptions FOR EACH ROW"):
            await stack.enter_async_context(_newcomers(world))
            await soon(is_held, 60, "the fuse of a reaction that always fails")
            await is_raised(world, "MeshFuseBlown", within=10)
            await world.load.rename(world.load.quiet, "While a reaction is held")
            await soon(copy_follows, 20, "copies to go on beside a reaction that is held")
            await asyncio.sleep(_GOES_ON)
            if dead := await _parked(world, "state = 'dead'"):
                world.surprise(f"{dead} streams are buried")
        await world.order("/parked/retry", actor=_BUG, reason="it is mended")


_NEXT_VERSION = """CREATE FUNCTION org.next_version() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    NEW.payload := json_build_object('version', 2, 'stream', NEW.stream, 'seq', NEW.seq, 'change', NEW.payload::json)::text;
    RETURN NEW;
END $$"""
_OF_THE_NEXT_VERSION = """CREATE TRIGGER next_version BEFORE INSERT ON org.changes FOR EACH ROW
    WHEN (NEW.stream = '%s' AND NEW.payload::json ->> 'table' = 'organizations') EXECUTE FUNCTION org.next_version()"""


@case("a record of a version that nobody knows")
async def unknown_version(world: World) -> None:
    """Not with more fields: with others. Each reader keeps it raw, holds its stream and says so; a person has the stream stated anew."""
    home, lab = world.load.quiet, world.lab
    stream = f"org:{home.org_id}"
    readers = [s for s in SERVICES if await lab.rows(f'SELECT FROM "{s}".positions WHERE source = $1 AND stream = $2', "org", stream)]

    async def is_kept() -> bool:
        return bool(readers) and all([await lab.rows(f'SELECT FROM "{s}".undecodable WHERE key = $1', stream.encode()) for s in readers])

    await lab.run(_NEXT_VERSION)
    try:
        await lab.run(_OF_THE_NEXT_VERSION % stream)
        await world.load.rename(home, "Of the next version")
        await soon(is_kept, 20, "the record to be kept raw by all who read it")
    finally:
        await world.lab.run("DROP FUNCTION org.next_version CASCADE")
    await world.load.rename(home, "Of this version")
    await is_raised(world, "MeshChangesMissing", within=45)
    await world.order("/services/org/restate", stream=stream, reason="a version that nobody knows was taken back")

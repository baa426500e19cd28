"""Many at once on the same few rows, and clocks that are wrong."""

import asyncio
import random
from dataclasses import replace
from pathlib import Path

from deploy import process
from tests.faults.registry import Harm, NotRun, case
from tests.faults.world import World

_FAKETIME = ("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1", "/usr/lib/faketime/libfaketime.so.1")
_LIBRARY = next((path for path in _FAKETIME if Path(path).exists()), None)


@case("a storm of writes on one organization")
async def storm(world: World) -> None:
    """Its database, its name and its invitations are changed by twenty at once, while reactions write the same streams."""
    load, home, rng = world.load, world.load.quiet, random.Random(world.load.seed)  # noqa: S311 - which change comes next
    (database,) = (id for id, owed in load.ledger.databases.items() if owed.org_id == home.org_id)
    one = f"/orgs/{home.org_id}/databases/{database}"

    async def writer(number: int) -> None:
        for n in range(10):
            match rng.randrange(3):
                case 0:
                    await load.client.send("PATCH", "provisioning", one, {"connection_limit": rng.randint(1, 20)}, home.owner)
                case 1:
                    await load.client.send("PATCH", "org", f"/orgs/{home.org_id}", {"name": f"Storm {number} {n}"}, home.owner)
                case _:
                    made = await load.client.send("POST", "org", f"/orgs/{home.org_id}/invitations", {"email": f"s{number}@example.com"}, home.owner)
                    await load.client.send("DELETE", "org", f"/orgs/{home.org_id}/invitations/{made['id']}", None, home.owner)

    await asyncio.gather(*(writer(n) for n in range(10)))
    await load.client.send("PATCH", "provisioning", one, {"connection_limit": 7}, home.owner)
    load.ledger.databases[database].limit = 7
    await load.rename(home, "After the storm")


def _clock(name: str, offset: str) -> Harm:
    async def harm(world: World) -> None:
        if _LIBRARY is None:
            raise NotRun("libfaketime is not installed (Debian: apt-get install faketime)")

        def change(command: process.Command) -> process.Command:
            return replace(command, environment={**command.environment, "LD_PRELOAD": _LIBRARY, "FAKETIME": offset, "FAKETIME_DONT_FAKE_MONOTONIC": "1"})

        async with world.lab.otherwise((name,), change):
            await asyncio.sleep(15)

    return harm


for _name, _offset in (("notification", "+1h"), ("notification", "-1h"), ("provisioning", "-1d"), ("org", "+1h")):
    case(f"the clock of {_name} is off by {_offset}")(_clock(_name, _offset))

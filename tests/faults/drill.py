"""The drill: the control plane's database is lost and comes back from its backup, twice, judged by the oracle."""

import asyncio
import copy
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from deploy.stack import Mesh
from tests.command import command
from tests.faults.ledger import Ledger
from tests.faults.load import Size
from tests.faults.oracle import Oracle
from tests.faults.world import World

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300), pytest.mark.processes]

SIZE = Size(sign_ups=0, organizations=3, suspending=0, inviting=0, databases=0, resets=2)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder: Path = tmp_path_factory.mktemp("a drill")
    try:
        mesh = await asyncio.to_thread(Mesh.start, folder)
        async with World.on(mesh, 1, SIZE) as world:
            yield world
    finally:
        await asyncio.to_thread(Mesh.at(folder).reset)


async def say(world: World, *words: str, code: int = 0) -> str:
    """The ``mesh`` command, as an operator types it."""
    done = await asyncio.to_thread(command, world.lab.mesh.state.root, *words)
    assert done.returncode == code, done
    return done.stdout


async def go_on(world: World) -> None:
    """What happens after the backup, in every service and at the data plane."""
    load, home = world.load, world.load.homes[0]
    await load.rename(home, "After the backup")
    (id,) = (id for id, owed in load.ledger.databases.items() if owed.org_id == home.org_id)
    path = f"/orgs/{home.org_id}/databases"
    started = await load.client.send("PATCH", "provisioning", f"{path}/{id}", {"connection_limit": 3}, home.owner)
    await load.client.finished(started["flow_id"])
    started = await load.client.send("POST", "provisioning", path, {"name": "later"}, home.owner)
    await load.client.finished(started["flow_id"])
    await load.make_home()


async def lose_the_database(world: World) -> None:
    """Its server dies and its disk is empty."""
    mesh = world.lab.mesh
    async with world.lab.down("postgres"):
        await asyncio.to_thread(shutil.rmtree, mesh.databases.server.data)


async def is_as(world: World, owed: Ledger) -> None:
    verdict = await Oracle(world.lab, owed).settled(60)
    assert not verdict.findings
    assert not verdict.repeated_mails, "nobody is told anything twice"


async def epochs(world: World) -> set[int]:
    return {r["epoch"] for service in world.lab.document["services"] for r in await world.lab.rows(f'SELECT epoch FROM "{service}".incarnation')}


async def test_a_lost_database_comes_back_from_its_backup_and_everything_follows_it(world: World, tmp_path: Path) -> None:
    backup = tmp_path / "a backup"
    await is_as(world, world.load.ledger)
    await say(world, "backup", str(backup))
    owed = copy.deepcopy(world.load.ledger)
    for _ in range(2):  # a second time from the same backup, which does not know of the first
        await go_on(world)
        seen = await epochs(world)
        await lose_the_database(world)
        assert "mesh restored --all" in await say(world, "restore", str(backup), "--yes")
        sick = await say(world, "doctor", "--json", code=1)
        assert "mesh restored" in sick, "nobody enters it before somebody has said so"
        assert json.loads(sick)["healthy"] is False
        await say(world, "restored", "--all", "--yes")
        await world.lab.healthy()
        assert min(await epochs(world)) > max(seen), "an epoch that nobody has seen"
        world.load.ledger = world.load.client.ledger = copy.deepcopy(owed)
        await is_as(world, owed)
    await world.load.rename(world.load.homes[1], "After the restore")
    await world.load.make_home()
    await is_as(world, world.load.ledger)

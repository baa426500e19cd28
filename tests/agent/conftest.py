import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from services.agent.server import Server as Door
from tests.agent.house import House
from tests.agent.server import Server, running
from tests.agent.world import World


@pytest.fixture(scope="session")
def own_server() -> Iterator[Server]:
    """One real Postgres for the whole suite; each test uses organizations and names of its own."""
    with running() as server:
        yield server


@pytest_asyncio.fixture
async def door(own_server: Server) -> AsyncIterator[Door]:
    door = Door(own_server.url, 6)
    yield door
    await door.close()


@pytest_asyncio.fixture
async def world(own_server: Server, door: Door, tmp_path: Path) -> AsyncIterator[World]:
    world = World(own_server, door, tmp_path)
    yield world
    await world.close()


@pytest.fixture
def within() -> Callable[..., Awaitable[Any]]:
    async def until(condition: Callable[[], object], seconds: float = 5) -> object:
        """Wait for a condition, plain or awaitable, and answer what it became."""
        end = time.monotonic() + seconds
        while True:
            found = condition()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found
            assert time.monotonic() < end, "it did not become so in time"
            await asyncio.sleep(0.01)

    return until


@pytest_asyncio.fixture
async def house(world: World, within: Callable[..., Awaitable[Any]]) -> House:
    house = House(world)
    world.hear(house.org.assignment(), house.org.organization(), house.db.record(), house.owner.record(), house.member.record())
    await within(lambda: house.state(house.owner.id) == house.state(house.member.id) == "ready")
    return house

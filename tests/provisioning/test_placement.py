"""Where a new tenant goes."""

import uuid
from collections import Counter

import pytest

from schemas.feed import Hello
from services.provisioning import data_planes, feed, tenants
from shared.settings import settings
from shared.tx import Tx


def hello(id: str, counter: int = 1, host: str = "db.example.com") -> Hello:
    return Hello.model_validate(
        {"data_plane": id, "agent_epoch": 1, "counter": counter, "at": "2026-01-01T00:00:00Z", "host": host, "port": 5432, "databases": 0}
    )


async def place(tx: Tx, what: str = "data_plane") -> str:
    org_id = uuid.uuid4()
    await tx.enter(f"org:{org_id}")
    await tenants.place(tx, org_id)
    return str(await tx.value(f"SELECT {what} FROM tenants"))


async def test_tenants_spread_over_the_data_planes(tx: Tx) -> None:
    await tx.run("DELETE FROM placements")
    await tx.run("UPDATE data_planes SET last_seen = now() - interval '1 hour'")
    for id in ("east", "west"):
        await data_planes.greet(tx, hello(id))
    assert [await place(tx) for _ in range(4)] == ["east", "west", "east", "west"]


async def test_a_data_plane_that_is_silent_gets_no_tenant_while_another_speaks(tx: Tx) -> None:
    await data_planes.greet(tx, hello("quiet"))
    await tx.run("UPDATE data_planes SET last_seen = now() - interval '1 hour' WHERE id <> 'new'")
    await data_planes.greet(tx, hello("new"))
    assert [await place(tx) for _ in range(3)] == ["new", "new", "new"]


async def test_tenants_share_pool_topics_of_their_data_plane_when_there_is_no_room_for_one_each(tx: Tx, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWN_FEED_TOPICS", "3")
    settings.cache_clear()
    await tx.run("DELETE FROM placements")
    await tx.run("UPDATE data_planes SET last_seen = now() - interval '1 hour'")
    await data_planes.greet(tx, hello("full"))
    try:
        topics = [await place(tx, "topic") for _ in range(2 * feed.POOL + 1)]
    finally:
        settings.cache_clear()
    assert all(topic.startswith("tenant.") for topic in topics[:3])
    assert Counter(topics[3:]) == {"pool.full.0.feed": feed.POOL - 3, "pool.full.1.feed": feed.POOL, "pool.full.2.feed": 1}


async def test_an_older_hello_does_not_move_a_data_plane(tx: Tx) -> None:
    for counter, host in ((2, "new.example.com"), (1, "old.example.com"), (2, "twice.example.com")):
        await data_planes.greet(tx, hello("here", counter, host))
    assert await tx.value("SELECT host FROM data_planes WHERE id = 'here'") == "new.example.com"

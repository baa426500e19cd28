"""Leased work: one replica at a time, again after a failure, again after a crash."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from shared.workers import AT_ONCE, Job, JobRunner, Work
from tests.kit.conftest import Probe


def runner(probe: Probe, kind: str, act: Callable[[Work], Awaitable[None]]) -> JobRunner:
    return JobRunner(probe.database, Job(kind, "probe", act, outside=True))


@pytest.fixture
async def wanted(probe: Probe) -> tuple[str, uuid.UUID]:
    """A piece of work: its kind and id."""
    kind, org, id = f"kind {uuid.uuid4()}", uuid.uuid4(), uuid.uuid4()
    async with probe.database.transaction(f"org:{org}") as tx:
        await tx.schedule(kind, id)
    return kind, id


async def lease(probe: Probe, id: uuid.UUID) -> timedelta | None:
    """How long the work is still leased."""
    left: timedelta | None = await probe.admin.fetchval("SELECT leased_until - now() FROM probe.due WHERE id = $1", id)
    return left


async def test_work_is_leased_for_half_a_minute_and_no_other_replica_takes_it(probe: Probe, wanted: tuple[str, uuid.UUID]) -> None:
    kind, id = wanted
    begun, done, seen = asyncio.Event(), asyncio.Event(), []

    async def act(work: Work) -> None:
        seen.append(work.id)
        begun.set()
        await done.wait()

    first = asyncio.create_task(runner(probe, kind, act).run_due())
    await begun.wait()
    left = await lease(probe, id)
    assert left is not None
    assert timedelta(seconds=25) < left <= timedelta(seconds=30)
    await runner(probe, kind, act).run_due()
    assert seen == [id]
    done.set()
    await first
    assert await lease(probe, id) is None, "what is done is gone"


async def test_work_of_a_replica_that_died_is_taken_up_when_its_lease_ends(probe: Probe, wanted: tuple[str, uuid.UUID]) -> None:
    kind, id = wanted
    begun, attempts = asyncio.Event(), []

    async def is_killed(_: Work) -> None:
        begun.set()
        await asyncio.Event().wait()

    async def act(work: Work) -> None:
        attempts.append(work.attempt)

    dying = asyncio.create_task(runner(probe, kind, is_killed).run_due())
    await begun.wait()
    dying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dying
    await runner(probe, kind, act).run_due()
    assert attempts == []
    await probe.admin.execute("UPDATE probe.due SET leased_until = now() WHERE id = $1", id)
    await runner(probe, kind, act).run_due()
    assert attempts == [2]


async def test_no_more_is_taken_up_at_once_than_may_be(probe: Probe) -> None:
    """Not even by the plan that Postgres chooses for a table that was all but empty when it last looked."""
    kind, running, most, done = f"kind {uuid.uuid4()}", 0, 0, 0
    await probe.admin.execute("TRUNCATE probe.due")
    for count in (1, 2 * AT_ONCE):
        await probe.admin.execute(
            "INSERT INTO probe.due (kind, target, id) SELECT $1, 'org:' || i, i FROM (SELECT gen_random_uuid() AS i FROM generate_series(1, $2)) n", kind, count
        )
        if count == 1:
            await probe.admin.execute("ANALYZE probe.due")

    async def act(_: Work) -> None:
        nonlocal running, most, done
        running += 1
        most, done = max(most, running), done + 1
        await asyncio.sleep(0.01)
        running -= 1

    await runner(probe, kind, act).run_due()
    assert (most, done) == (AT_ONCE, 2 * AT_ONCE + 1)


async def test_a_slow_piece_of_work_holds_up_no_other(probe: Probe) -> None:
    """Neither those that were due with it, nor one that is wanted while it runs."""
    kind, ids, done, slow = f"kind {uuid.uuid4()}", [uuid.uuid4() for _ in range(2 * AT_ONCE)], set[uuid.UUID](), asyncio.Event()

    async def want(id: uuid.UUID) -> None:
        async with probe.database.transaction(f"org:{uuid.uuid4()}") as tx:
            await tx.schedule(kind, id)

    async def act(work: Work) -> None:
        if work.id == ids[0]:
            await slow.wait()
        done.add(work.id)
        if len(done) == len(ids) - 2:
            await want(ids[-1])
        elif len(done) == len(ids) - 1:
            slow.set()

    for id in ids[:-1]:
        await want(id)
    await asyncio.wait_for(runner(probe, kind, act).run_due(), timeout=20)
    assert done == set(ids)


async def test_work_that_fails_is_tried_again_later_and_is_shown_meanwhile(probe: Probe, wanted: tuple[str, uuid.UUID]) -> None:
    kind, id = wanted
    failing = "SELECT attempt, error FROM probe.failing_work WHERE id = $1"

    async def act(work: Work) -> None:
        if work.attempt == 1:
            raise ValueError("not yet")

    await runner(probe, kind, act).run_due()
    left = await lease(probe, id)
    assert left is not None
    assert timedelta(0) < left <= timedelta(seconds=1)
    assert [tuple(r) for r in await probe.admin.fetch(failing, id)] == [(1, "ValueError: not yet")]
    await probe.admin.execute("UPDATE probe.due SET leased_until = now() WHERE id = $1", id)
    await runner(probe, kind, act).run_due()
    assert await lease(probe, id) is None
    assert await probe.admin.fetch(failing, id) == []

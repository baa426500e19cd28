"""Copies of other services' rows follow their sources."""

import asyncio
import uuid

from tests.kit.conftest import Log, Probe, record


async def test_a_copy_that_loses_a_column_under_its_reader_is_kept_all_the_same(probe: Probe, log: Log) -> None:
    """A process knows the columns that its copies had when it started."""
    await probe.admin.execute("ALTER TABLE probe.things ADD COLUMN later int")
    applier = await probe.applier()
    await probe.admin.execute("ALTER TABLE probe.things DROP COLUMN later")
    await asyncio.wait_for(applier.apply([log.change(1)]), timeout=10)
    assert [r["value"] for r in await probe.admin.fetch("SELECT value FROM probe.things WHERE org_id = $1", uuid.UUID(log.org))] == [1]


async def test_replicas_follow_inserts_updates_and_deletes(probe: Probe, log: Log) -> None:
    applier = await probe.applier(record)
    one, two = log.change(1), log.change(2)
    await applier.apply([one, two, log.change(1, op="update", after=one.row | {"value": 10}), log.change(2, op="delete")])
    assert await probe.admin.fetch("SELECT value FROM probe.things WHERE org_id = $1::uuid", log.org) == [(10,)]


async def test_a_restatement_drops_what_it_does_not_name(probe: Probe, log: Log) -> None:
    applier = await probe.applier(record)
    await applier.apply([log.change(n) for n in range(1, 4)])
    since = log.seq + 1
    await applier.apply(
        [
            log.change(0, op="restate", table="_restate", after={"marker": "start"}),
            log.change(2, op="restate", after={"id": "2", "org_id": log.org, "value": 22}),
            log.change(0, op="restate", table="_restate", after={"marker": "end", "since": since}),
        ]
    )
    assert [r["value"] for r in await probe.admin.fetch("SELECT value FROM probe.things WHERE org_id = $1::uuid", log.org)] == [22]
    assert await probe.effects(log) == [1, 2, 3], "a restatement fires no reaction"


async def test_a_higher_epoch_starts_over_from_its_restatement(probe: Probe, log: Log) -> None:
    applier = await probe.applier(record)
    await applier.apply([log.change(n) for n in range(1, 6)])
    log.epoch, log.seq = 2, 3
    await applier.apply(
        [
            log.change(0, op="restate", table="_restate", after={"marker": "start"}),
            log.change(0, op="restate", table="_restate", after={"marker": "end", "since": 4}),
            log.change(9),
        ]
    )
    assert await probe.effects(log) == [1, 2, 3, 4, 5, 9]

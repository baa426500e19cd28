"""Copies of other services' rows follow their sources."""

import asyncio
import uuid

from shared import healing
from shared.changes import decode
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


async def test_copies_of_a_stream_that_its_restored_owner_has_lost_are_asked_for_and_dropped(probe: Probe, log: Log) -> None:
    applier, other = await probe.applier(record), Log()
    await applier.apply([log.change(1), log.change(2), other.change(1)])
    source = Log("00000000-0000-0000-0000-000000000000", epoch=9)
    raised = source.change(1, op="update", table="incarnation", after={"singleton": True, "epoch": 9})
    await applier.apply([decode("other", raised.raw.replace(source.stream, "global:incarnation"))])
    await probe.admin.execute("UPDATE probe.expected SET since = now() - interval '6 seconds', postponed_at = NULL WHERE source = 'other'")
    await healing.check_expected(probe.database)
    asked = await probe.admin.fetch("SELECT from_seq, to_seq FROM probe.resend_requests WHERE stream = $1 AND closed_at IS NULL", log.stream)
    assert [tuple(r) for r in asked] == [(1, 9_000_001)]
    log.epoch, log.seq = 9, 9_000_000
    start = log.change(0, op="restate", table="_restate", after={"marker": "start", "ordered": True})
    await applier.apply([start, log.change(0, op="restate", table="_restate", after={"marker": "end", "since": start.seq})])
    left = await probe.admin.fetch("SELECT org_id FROM probe.things WHERE org_id = ANY($1)", [uuid.UUID(one.org) for one in (log, other)])
    assert [str(r["org_id"]) for r in left] == [other.org]
    assert await probe.admin.fetchval("SELECT closed_at IS NOT NULL FROM probe.resend_requests WHERE stream = $1", log.stream)
    await probe.admin.execute("DELETE FROM probe.positions WHERE source = 'other' AND stream = 'global:incarnation'; DELETE FROM probe.expected")


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

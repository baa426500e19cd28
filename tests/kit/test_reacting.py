"""A reaction sees every change of a stream once and in order, whatever the bus does."""

import asyncio
import itertools
import random
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from shared import healing, positions
from shared.bus import Applier
from shared.changes import decode
from shared.reactions import Reaction, activate
from shared.rows import Pattern
from shared.tx import DatabaseAway, Tx
from tests.kit.conftest import Log, Probe, Thing, record, record_many


async def test_changes_are_applied_once_and_in_order(probe: Probe, log: Log) -> None:
    applier = await probe.applier(record)
    await applier.apply([log.change(n) for n in range(1, 6)])
    assert await probe.effects(log) == [1, 2, 3, 4, 5]
    assert await probe.position(log) == 5


async def test_duplicates_are_skipped_within_and_across_batches(probe: Probe, log: Log) -> None:
    applier = await probe.applier(record)
    changes = [log.change(n) for n in range(1, 4)]
    await applier.apply(changes + changes)
    await applier.apply(changes)
    assert await probe.effects(log) == [1, 2, 3]


async def test_a_reaction_for_many_gets_the_changes_of_a_stream_together(probe: Probe, log: Log) -> None:
    applier = await probe.applier(record_many, many=True)
    other = Log()
    await applier.apply([change for n in range(1, 4) for change in (log.change(n), other.change(n))])
    assert await probe.effects(log) == await probe.effects(other) == [1, 2, 3]
    notes = await probe.admin.fetch("SELECT DISTINCT note FROM probe.effects WHERE org_id = ANY($1)", [uuid.UUID(log.org), uuid.UUID(other.org)])
    assert [r["note"] for r in notes] == ["one of 3"]


async def test_what_is_made_of_changes_of_several_flows_belongs_to_none(probe: Probe, log: Log) -> None:
    applier = await probe.applier(record_many, many=True)
    flows = [str(uuid.uuid4()), str(uuid.uuid4())]
    changes = [log.change(n) for n in range(1, 6)]
    mixed = [replace(c, context=replace(c.context, flow_id=uuid.UUID(flow))) for c, flow in zip(changes[:2], flows, strict=True)]
    await applier.apply(mixed)
    await applier.apply([replace(c, context=replace(c.context, flow_id=uuid.UUID(flows[0]), hops=n)) for n, c in enumerate(changes[2:])])
    made = await probe.changes(log.stream)
    assert [c.context.flow_id for c in made] == [None, None, *[uuid.UUID(flows[0])] * 3]
    assert [c.context.cause for c in made] == [changes[1].name] * 2 + [changes[4].name] * 3
    assert made[-1].context.hops == 3


async def test_changes_that_concern_nobody_are_passed_and_a_gap_among_them_still_holds_the_stream(probe: Probe, log: Log) -> None:
    applier = await probe.applier(record)
    await applier.apply([log.change(1)])
    await applier.apply([log.change(n, table="others") for n in (2, 3)])
    assert await probe.position(log) == await probe.position(log, "replicas") == 3
    four, five, six = log.change(4, table="others"), log.change(5, table="others"), log.change(6)
    await applier.apply([five])
    await applier.apply([six])
    assert await probe.position(log) == 3
    await applier.apply([four])
    assert await probe.position(log) == 6
    assert await probe.effects(log) == [1, 6]
    await applier.apply([four, five])
    assert await probe.position(log) == 6, "duplicates move nothing back"


async def test_a_change_that_concerns_nobody_does_not_move_a_stream_of_another_epoch(probe: Probe, log: Log) -> None:
    applier = await probe.applier(record)
    await applier.apply([log.change(1)])
    restored = Log(log.org, epoch=2)
    await applier.apply([restored.change(2, table="others", seq=2)])
    assert await probe.admin.fetchval("SELECT (epoch, seq) = (2, 0) FROM probe.positions WHERE reader = 'reactions' AND stream = $1", log.stream)


async def test_a_gap_holds_the_stream_asks_for_it_and_closes_in_order(probe: Probe, log: Log) -> None:
    applier = await probe.applier(record)
    one, two, three, four = (log.change(n) for n in range(1, 5))
    await applier.apply([one, three, four])
    assert await probe.effects(log) == [1]
    asked = await probe.admin.fetchrow("SELECT * FROM probe.resend_requests WHERE stream = $1", log.stream)
    assert (asked["source"], asked["from_seq"], asked["to_seq"]) == ("other", 2, 2)
    await applier.apply([two])
    assert await probe.effects(log) == [1, 2, 3, 4]
    await healing.check_expected(probe.database)
    assert await probe.admin.fetchval("SELECT closed_at IS NOT NULL FROM probe.resend_requests WHERE stream = $1", log.stream)


async def test_any_order_and_any_repetition_ends_in_the_same_effects(probe: Probe) -> None:
    applier = await probe.applier(record)
    for seed in range(5):
        log, rng = Log(), random.Random(seed)  # noqa: S311 - a seeded order, no secret
        changes = [log.change(n) for n in range(1, 13)] * 2
        rng.shuffle(changes)
        for batch in itertools.batched(changes, 5) if hasattr(itertools, "batched") else [changes[i : i + 5] for i in range(0, 24, 5)]:
            await applier.apply(list(batch))
        assert await probe.effects(log) == list(range(1, 13)), f"seed {seed}"


async def test_a_zombie_and_its_successor_apply_each_change_once(probe: Probe, log: Log) -> None:
    zombie, successor = await probe.applier(record), await probe.applier(record)
    changes = [log.change(n) for n in range(1, 31)]
    await asyncio.gather(*(a.apply(changes[i : i + 7]) for a in (zombie, successor) for i in range(0, 30, 7)))
    await successor.apply(changes)
    assert await probe.effects(log) == list(range(1, 31))


async def test_a_connection_that_is_lost_in_a_reaction_is_nobodys_mistake(probe: Probe, log: Log) -> None:
    ways: list[str] = ["SELECT pg_terminate_backend(pg_backend_pid())"]

    async def interrupted(tx: Tx, thing: Thing) -> None:
        await record(tx, thing)
        if ways:
            await tx.run(ways.pop())

    applier = await probe.applier(interrupted)
    await applier.apply([log.change(1), log.change(2)])
    assert await probe.effects(log) == [1, 2]
    assert not await probe.parked(log)


async def test_a_table_that_is_migrated_under_a_reaction_parks_nothing(probe: Probe, log: Log) -> None:
    async def returning(tx: Tx, thing: Thing) -> None:
        await tx.records("INSERT INTO effects (value) VALUES ($1) RETURNING *", thing.value)

    applier = await probe.applier(returning)
    await applier.apply([log.change(1)])
    await probe.admin.execute("ALTER TABLE probe.effects ADD COLUMN later int")
    await applier.apply([log.change(2)])
    await probe.admin.execute("ALTER TABLE probe.effects DROP COLUMN later")
    await applier.apply([log.change(3)])
    assert await probe.effects(log) == [1, 2, 3]
    assert not await probe.parked(log)


async def test_a_connection_that_was_lost_earlier_in_a_transaction_is_the_database_being_away(probe: Probe) -> None:
    with pytest.raises(DatabaseAway):
        async with probe.database.transaction() as tx:
            with pytest.raises(DatabaseAway):
                await tx.run("SELECT pg_terminate_backend(pg_backend_pid())")
            await asyncio.sleep(0.05)  # the pool takes it back
            await tx.value("SELECT 1")


async def test_a_chain_of_thirty_two_causes_is_stopped(probe: Probe, log: Log) -> None:
    applier = await probe.applier(record)
    await applier.apply([log.change(1, hops=32)])
    (parked,) = await probe.parked(log)
    assert parked["state"] == "dead"
    assert parked["error"].startswith("TooManyHops")


async def test_what_a_reaction_writes_names_its_cause_and_keeps_the_flow(probe: Probe, log: Log) -> None:
    applier = await probe.applier(record)
    change = log.change(1, hops=4)
    await applier.apply([change])
    (written,) = await probe.changes(log.stream)
    assert written.context.cause == change.name
    assert written.context.hops == 5


async def test_more_than_one_transaction_takes_may_be_held_behind_a_gap(probe: Probe, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(positions, "HELD_AT_ONCE", 3)
    applier = await probe.applier(record)
    first, *rest = [log.change(n) for n in range(1, 12)]
    await applier.apply(rest[:-1])
    assert await probe.effects(log) == []
    await applier.apply([first, rest[-1]])
    assert await probe.effects(log) == list(range(1, 12))
    assert await probe.admin.fetchval("SELECT count(*) FROM probe.held WHERE stream = $1", log.stream) == 0
    asked = await probe.admin.fetch("SELECT from_seq, to_seq FROM probe.resend_requests WHERE stream = $1", log.stream)
    assert [tuple(r) for r in asked] == [(1, 1)], "what is held is not asked for"


async def test_an_announced_head_that_never_came_is_asked_for(probe: Probe, log: Log) -> None:
    applier: Applier = await probe.applier(record)
    await applier.apply([log.change(1)])
    heads = Log()
    change = heads.change(1, table="_heads", after={"heads": {log.stream: 3}})
    record_text = change.raw.replace(heads.stream, "global:heads")
    await applier.apply([decode("other", record_text)])
    await probe.admin.execute("UPDATE probe.expected SET since = now() - interval '6 seconds' WHERE stream = $1", log.stream)
    await healing.postpone_expected(probe.database, ["other"])
    await healing.check_expected(probe.database)
    assert not await probe.admin.fetchval("SELECT EXISTS (SELECT FROM probe.resend_requests WHERE stream = $1)", log.stream), "it may wait in Kafka"
    await probe.admin.execute("UPDATE probe.expected SET postponed_at = since WHERE stream = $1", log.stream)
    await healing.check_expected(probe.database)
    asked = await probe.admin.fetchrow("SELECT from_seq, to_seq FROM probe.resend_requests WHERE stream = $1", log.stream)
    assert tuple(asked) == (2, 3)
    await probe.admin.execute("DELETE FROM probe.positions WHERE stream = 'global:heads'")


async def test_a_new_reaction_acts_on_what_happens_from_its_activation_on(probe: Probe, log: Log) -> None:
    older = [log.change(n) for n in (1, 2)]
    applier = await probe.applier(record, activated={"probe.record": datetime.now(UTC)})
    await applier.apply([*older, log.change(3)])
    assert await probe.effects(log) == [3]
    assert await probe.position(log) == 3


async def test_a_reaction_that_is_to_catch_up_acts_on_what_was_there_before_it(probe: Probe, log: Log) -> None:
    applier = await probe.applier(record, catch_up=True, activated={"probe.record": datetime.now(UTC) + timedelta(hours=1)})
    await applier.apply([log.change(1), log.change(2, op="restate")])
    assert await probe.effects(log) == [1, 2]


async def test_a_reaction_is_activated_when_it_first_starts_and_those_of_a_new_service_with_its_schema(probe: Probe) -> None:
    first, last = (Reaction(f"probe.{name}", Pattern(Thing, "inserted"), record, None, many=False) for name in ("first", "last"))
    await probe.admin.execute("TRUNCATE probe.activations")
    schema_made = await probe.admin.fetchval("SELECT min(at) FROM probe.migrations")
    assert await activate(probe.database, [first]) == {first.name: schema_made}
    before = await probe.admin.fetchval("SELECT now()")
    known = await activate(probe.database, [first, last])
    assert known[first.name] == schema_made
    assert known[last.name] > before
    assert await activate(probe.database, [first, last]) == known, "a second start changes nothing"

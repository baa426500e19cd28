"""A reaction that fails on a stream waits with what follows there, while everything else flows."""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable

import orjson
import pytest

from shared import healing, parking, positions
from shared.changes import decode
from shared.errors import NotYet
from shared.healing import Pair, Retrier
from shared.log import _Json
from shared.parking import Failure
from shared.tx import Tx
from tests.kit.conftest import Log, Probe, Thing, record, record_many


async def fail_on_three(tx: Tx, thing: Thing) -> None:
    await tx.run("INSERT INTO effects (value) VALUES ($1)", thing.value)
    if thing.value == 3:
        raise ValueError("three is not good")


async def fail_on_many_with_three(tx: Tx, things: list[Thing]) -> None:
    await record_many(tx, things)
    if any(t.value == 3 for t in things):
        raise ValueError("three is not good")


async def test_one_poison_among_many_parks_itself_and_what_follows_it_and_nothing_before(probe: Probe, log: Log) -> None:
    applier = await probe.applier(fail_on_many_with_three, many=True)
    other = Log()
    await applier.apply([*(log.change(n) for n in range(1, 5)), other.change(1), other.change(2)])
    assert await probe.effects(log) == [1, 2]
    assert await probe.effects(other) == [1, 2]
    assert [p["reaction"] for p in await probe.parked(log)] == ["probe.fail_on_many_with_three"]


@pytest.mark.parametrize("poisoned", [2, 5])
async def test_several_poisons_in_one_batch_park_their_streams_alone(probe: Probe, poisoned: int) -> None:
    """Two are found one by one; with five all the others run with care as well."""
    applier, logs = await probe.applier(fail_on_three), [Log() for _ in range(7)]
    await applier.apply([one.change(value) for value in (1, 2) for one in logs] + [one.change(3 if n < poisoned else 4) for n, one in enumerate(logs)])
    assert [len(await probe.parked(one)) for one in logs] == [1] * poisoned + [0] * (7 - poisoned)
    assert [await probe.effects(one) for one in logs] == [[1, 2]] * poisoned + [[1, 2, 4]] * (7 - poisoned)
    assert [await probe.position(one) for one in logs] == [3] * 7


async def test_a_poison_change_parks_its_reaction_on_its_stream_alone(probe: Probe, log: Log) -> None:
    other, applier = Log(), await probe.applier(fail_on_three, record)
    mixed = [c for n in range(1, 6) for c in (log.change(n), other.change(n + 10))]
    await applier.apply(mixed)
    assert await probe.effects(other) == [v for n in range(11, 16) for v in (n, n)], "another tenant goes on"
    assert await probe.effects(log) == [1, 1, 2, 2, 3, 4, 5], "the other reaction goes on; of the failed one nothing is half-written"
    (parked,) = await probe.parked(log)
    assert (parked["reaction"], parked["state"], parked["error"]) == ("probe.fail_on_three", "retrying", "ValueError: three is not good")
    assert await probe.position(log) == 5


async def _reads_a_file_that_is_not_there(_: Tx, thing: Thing) -> None:
    raise FileNotFoundError(thing.id)


async def _waits_for_somebody_else(_: Tx, __: Thing) -> None:
    raise TimeoutError("nobody answered")


async def _says_it_wrong(tx: Tx, thing: Thing) -> None:
    await tx.run("INSERT INTO effects (value) VALUES ($1)", thing.id)


@pytest.mark.parametrize("mistaken", [_reads_a_file_that_is_not_there, _waits_for_somebody_else, _says_it_wrong])
async def test_trouble_of_an_authors_code_is_parked_even_if_it_looks_like_the_databases(
    mistaken: Callable[[Tx, Thing], Awaitable[None]], probe: Probe, log: Log
) -> None:
    applier = await probe.applier(mistaken, record)
    await asyncio.wait_for(applier.apply([log.change(1), log.change(2)]), timeout=10)
    assert [p["state"] for p in await probe.parked(log)] == ["retrying"]
    assert await probe.effects(log) == [1, 2]


async def test_parked_changes_are_applied_in_order_when_the_reaction_is_mended(probe: Probe, log: Log) -> None:
    healthy = False

    async def mended(tx: Tx, thing: Thing) -> None:
        if not healthy and thing.value == 2:
            raise ValueError("not yet mended")
        await record(tx, thing)

    applier = await probe.applier(mended)
    await applier.apply([log.change(n) for n in range(1, 5)])
    await applier.apply([log.change(5)])
    retrier = Retrier(applier)
    await retrier.retry(Pair("probe.mended", "other", log.stream, log.stream))
    (parked,) = await probe.parked(log)
    assert parked["attempt"] == 2
    assert await probe.effects(log) == [1]
    healthy = True
    await retrier.retry(Pair("probe.mended", "other", log.stream, log.stream))
    assert await probe.effects(log) == [1, 2, 3, 4, 5]
    assert await probe.parked(log) == []
    await applier.apply([log.change(6)])
    assert await probe.effects(log) == [1, 2, 3, 4, 5, 6]


async def test_many_parked_changes_are_applied_some_at_a_time(probe: Probe, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """One transaction for all that waits could last longer than a transaction may."""
    monkeypatch.setattr(healing, "AT_ONCE", 2)
    mended = False

    async def fails_first(tx: Tx, thing: Thing) -> None:
        if not mended:
            raise ValueError("not yet mended")
        await record(tx, thing)

    applier = await probe.applier(fails_first)
    await applier.apply([log.change(n) for n in range(1, 6)])
    mended, pair, seen = True, Pair("probe.fails_first", "other", log.stream, log.stream), []
    while await probe.parked(log):
        await Retrier(applier).retry(pair)
        seen.append(len(await probe.effects(log)))
    assert seen == [2, 4, 5]
    assert await probe.effects(log) == [1, 2, 3, 4, 5]


async def test_what_cannot_even_be_tried_keeps_no_other_from_its_turn(probe: Probe, log: Log) -> None:
    applier, other = await probe.applier(fail_on_three), Log()
    await applier.apply([log.change(3), other.change(3)])
    await probe.admin.execute("UPDATE probe.parked_changes SET record = 'no record' WHERE stream = $1", log.stream)
    async with probe.database.transaction(log.stream, other.stream) as tx:
        await tx.run("UPDATE parked SET next_at = now() - (stream = $1)::int * interval '1 hour'", log.stream)
    await Retrier(applier).retry_due()
    assert [(await probe.parked(one))[0]["attempt"] for one in (log, other)] == [1, 2]


async def test_who_waited_for_a_stream_sees_what_was_parked_meanwhile(probe: Probe, log: Log) -> None:
    """A zombie's successor has parked the first change while the zombie waited with the second."""
    applier, key = await probe.applier(record), ("other", log.stream)
    first, second = log.change(1), log.change(2)
    async with probe.database.transaction() as tx:
        (progress,) = await positions.lock(tx, "reactions", {key: [first]}, jump=False)
        waiting = asyncio.create_task(applier.apply([second]))
        async with asyncio.timeout(10):
            while not await probe.admin.fetchval(  # noqa: ASYNC110 - it becomes so in the database
                "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%lock_positions%')"
            ):
                await asyncio.sleep(0.02)
        await tx.enter(log.stream)
        await parking.park(tx, "probe.record", first, log.stream, Failure(ValueError("meanwhile")))
        await positions.save(tx, "reactions", [progress])
    await waiting
    assert await probe.effects(log) == [], "the second waits behind the first"
    assert await probe.admin.fetchval("SELECT count(*) FROM probe.parked_changes WHERE stream = $1", log.stream) == 2


async def test_a_row_that_has_not_come_is_waited_for(probe: Probe, log: Log) -> None:
    async def needs_a_replica(tx: Tx, thing: Thing) -> None:
        if not await tx.value("SELECT true FROM things WHERE value = 100"):
            raise NotYet("the hundredth thing")
        await record(tx, thing)

    applier = await probe.applier(needs_a_replica)
    await applier.apply([log.change(1)])
    assert [p["state"] for p in await probe.parked(log)] == ["waiting"]
    await applier.apply([log.change(100)])
    await Retrier(applier).retry(Pair("probe.needs_a_replica", "other", log.stream, log.stream))
    assert await probe.effects(log) == [1, 100]


async def test_a_reaction_that_fails_everywhere_blows_its_fuse_and_nothing_is_buried(probe: Probe) -> None:
    broken = True

    async def buggy(tx: Tx, thing: Thing) -> None:
        if broken:
            raise RuntimeError("a bad deployment")
        await record(tx, thing)

    applier = await probe.applier(buggy)
    logs = [Log() for _ in range(14)]
    for one in logs:
        await applier.apply([one.change(1)])
    assert await probe.admin.fetchval("SELECT count(*) FROM probe.fuses WHERE reaction = 'probe.buggy'") == 1
    assert await probe.admin.fetchval("SELECT count(*) FROM probe.parked WHERE reaction = 'probe.buggy'") == 14
    replicas = [await probe.admin.fetchval("SELECT count(*) FROM probe.things WHERE org_id = $1::uuid", one.org) for one in logs]
    assert replicas == [1] * 14, "replicas go on"
    broken = False
    retrier = Retrier(applier)
    for one in logs:
        await retrier.retry(Pair("probe.buggy", "other", one.stream, one.stream))
    assert [await probe.effects(one) for one in logs] == [[1]] * 14
    assert await probe.admin.fetchval("SELECT count(*) FROM probe.fuses") == 0


async def test_a_fuse_is_tried_by_the_oldest_that_is_not_dead(probe: Probe) -> None:
    broken = True

    async def often_bad(tx: Tx, thing: Thing) -> None:
        if broken:
            raise RuntimeError("a bad deployment")
        await record(tx, thing)

    applier, logs = await probe.applier(often_bad), [Log() for _ in range(12)]
    for one in logs:
        await applier.apply([one.change(1)])
    async with probe.database.transaction(logs[0].stream) as tx:
        await tx.run("UPDATE parked SET state = 'dead', since = now() - interval '2 days' WHERE stream = $1", logs[0].stream)
    broken = False
    async with probe.database.transaction(*(one.stream for one in logs)) as tx:
        await tx.run("UPDATE parked SET next_at = now() WHERE state <> 'dead'")
    await Retrier(applier).retry_due()
    assert await probe.admin.fetchval("SELECT count(*) FROM probe.fuses WHERE reaction = 'probe.often_bad'") == 0


def test_attempts_come_later_and_later_from_a_second_to_five_minutes() -> None:
    delays = [Failure(ValueError()).delay(attempt).total_seconds() for attempt in range(1, 12)]
    assert delays == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


async def test_what_fails_for_a_day_is_dead_until_a_person_acts(probe: Probe, log: Log) -> None:
    applier = await probe.applier(fail_on_three)
    await applier.apply([log.change(3)])
    pair = Pair("probe.fail_on_three", "other", log.stream, log.stream)
    for hours, state in ((23, "retrying"), (25, "dead")):
        async with probe.database.transaction(log.stream) as tx:
            await tx.run("UPDATE parked SET since = now() - make_interval(hours => $2), next_at = now() WHERE stream = $1", log.stream, hours)
        await Retrier(applier).retry(pair)
        assert [p["state"] for p in await probe.parked(log)] == [state]
    await Retrier(applier).retry_due()
    assert [p["attempt"] for p in await probe.parked(log)] == [3], "the dead are not tried again"


async def test_the_line_of_a_failed_reaction_names_flow_tenant_and_trace(probe: Probe, log: Log, caplog: pytest.LogCaptureFixture) -> None:
    flow, trace = uuid.uuid4(), "4bf92f3577b34da6a3ce929d0e0e4736"
    applier = await probe.applier(fail_on_three)
    raw = orjson.loads(log.change(3).raw) | {"flow_id": str(flow), "traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    with caplog.at_level(logging.WARNING, "mesh"):
        caplog.handler.setFormatter(_Json("probe"))
        await applier.apply([decode("other", orjson.dumps(raw))])
    (line,) = [orjson.loads(text) for text in caplog.text.splitlines() if "is parked" in text]
    assert (line["flow_id"], line["org_id"], line["trace_id"]) == (str(flow), log.org, trace)
    assert line["reaction"] == "probe.fail_on_three"

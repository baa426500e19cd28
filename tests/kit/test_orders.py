"""Orders of operators: taken once, carried out once, and never in the way of anything."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from shared import healing, orders
from shared.bus import Applier
from shared.changes import Change, decode
from shared.healing import Retrier
from shared.operating import Operating
from shared.tx import Tx
from tests.kit.conftest import Log, Probe, Thing, record

STUCK = "probe.fail_on_two"


async def fail_on_two(tx: Tx, thing: Thing) -> None:
    if thing.value == 2:
        raise ValueError("two is not good")
    await record(tx, thing)


def order(act: str, **fields: Any) -> Change:
    """As the console's change log would hold it."""
    at = fields.pop("at", datetime.now(UTC))
    row = dict.fromkeys(("service", "subject", "change", "from_seq", "to_seq", "flow_id", "org_id")) | {"id": str(uuid.uuid4()), "act": act, "actors": []}
    envelope = {"stream": "global:orders", "seq": 1, "epoch": 1, "table": "orders", "op": "insert", "at": at.isoformat(), "by": "operator"}
    return decode("console", orjson.dumps(envelope | {"before": None, "after": row | fields}))


async def carried_out(probe: Probe, applier: Applier, *given: Change) -> list[dict[str, Any]]:
    """What came of the orders here."""
    async with probe.database.transaction() as tx:
        for one in given:
            await orders.take(tx, one)
    await Operating(Retrier(applier)).carry_out()
    rows = await probe.admin.fetch("SELECT * FROM probe.order_results WHERE order_id = ANY($1)", [uuid.UUID(one.row["id"]) for one in given])
    return [dict(r) for r in rows]


@pytest.fixture
async def stuck(probe: Probe, log: Log) -> Applier:
    """A tenant's stream whose second of four changes fails."""
    applier = await probe.applier(fail_on_two)
    await applier.apply([log.change(n) for n in range(1, 5)])
    assert await probe.effects(log) == [1]
    return applier


def about(log: Log, **fields: Any) -> dict[str, Any]:
    return {"service": "probe", "actors": [STUCK], "subject": f"other/{log.stream}"} | fields


async def test_a_skipped_change_is_left_out_and_the_rest_applied_in_order(probe: Probe, log: Log, stuck: Applier) -> None:
    (parked,) = await probe.parked(log)
    (told,) = await carried_out(probe, stuck, order("skip", change=parked["change"], **about(log)))
    assert (told["actor"], told["did"], told["outcome"]) == (STUCK, True, "skipped; 2 later changes applied")
    assert await probe.effects(log) == [1, 3, 4]
    assert await probe.parked(log) == []
    (written,) = [c for c in await probe.changes(log.stream) if c.table == "order_results"]
    assert written.context.by == "operator"


async def test_only_the_change_that_the_operator_saw_is_skipped(probe: Probe, log: Log, stuck: Applier) -> None:
    (told,) = await carried_out(probe, stuck, order("skip", change=f"other/{log.stream}/1.1", **about(log)))
    assert not told["did"]
    assert len(await probe.parked(log)) == 1


async def test_an_order_that_comes_twice_is_carried_out_once(probe: Probe, log: Log, stuck: Applier) -> None:
    retry = order("retry", **about(log))
    await carried_out(probe, stuck, retry, retry)
    (parked,) = await probe.parked(log)
    assert parked["attempt"] == 2
    await carried_out(probe, stuck, retry)
    assert (await probe.parked(log))[0]["attempt"] == 2


async def test_what_is_dead_is_tried_at_once_and_has_another_day(probe: Probe, log: Log, stuck: Applier) -> None:
    async with probe.database.transaction(log.stream) as tx:
        await tx.run("UPDATE parked SET state = 'dead', since = now() - interval '2 days' WHERE stream = $1", log.stream)
    await Retrier(stuck).retry_due()
    assert (await probe.parked(log))[0]["attempt"] == 1, "the dead are not tried"
    (told,) = await carried_out(probe, stuck, order("retry", **about(log)))
    assert told["outcome"] == "tried, and failed again: ValueError: two is not good"
    (parked,) = await probe.parked(log)
    assert (parked["state"], parked["attempt"]) == ("retrying", 2)


async def test_nothing_of_a_cancelled_flow_runs_any_more_and_others_go_on(probe: Probe, log: Log) -> None:
    applier, flow = await probe.applier(fail_on_two), str(uuid.uuid4())
    first, second = (decode("other", orjson.dumps(orjson.loads(log.change(n).raw) | {"flow_id": flow})) for n in (2, 3))
    await applier.apply([first, second, log.change(4)])
    assert await probe.effects(log) == []
    (told,) = await carried_out(probe, applier, order("cancel", flow_id=flow))
    assert told["outcome"] == "what the flow had waiting is left out"
    assert await probe.effects(log) == [4]
    third = decode("other", orjson.dumps(orjson.loads(log.change(5).raw) | {"flow_id": flow}))
    await applier.apply([third, log.change(6)])
    assert await probe.effects(log) == [4, 6]


async def test_an_order_for_another_service_is_not_carried_out(probe: Probe, log: Log, stuck: Applier) -> None:
    assert await carried_out(probe, stuck, order("retry", **about(log, service="other"))) == []
    assert (await probe.parked(log))[0]["attempt"] == 1


async def test_an_order_of_another_day_is_told_to_be_too_late_and_not_carried_out(probe: Probe, log: Log, stuck: Applier) -> None:
    (told,) = await carried_out(probe, stuck, order("retry", **about(log, at=datetime.now(UTC) - timedelta(days=2))))
    assert not told["did"]
    assert "more than a day" in told["outcome"]
    assert (await probe.parked(log))[0]["attempt"] == 1
    assert not await probe.admin.fetchval("SELECT EXISTS (SELECT FROM probe.orders_taken WHERE done_at IS NULL)"), "nobody is woken for it any more"


async def test_an_order_that_fails_tells_so_and_holds_up_no_other(probe: Probe, log: Log, stuck: Applier) -> None:
    unknown, retry = order("dance", service="probe"), order("retry", **about(log))
    told = await carried_out(probe, stuck, unknown, retry)
    assert sorted(t["outcome"].partition(":")[0] for t in told) == ["failed", "tried, and failed again"]


async def test_a_service_restates_all_its_streams_when_none_is_named(probe: Probe, log: Log) -> None:
    async with probe.database.transaction(log.stream) as tx:
        await tx.run("INSERT INTO effects (value) VALUES (7)")
    await carried_out(probe, await probe.applier(record), order("restate", service="probe"))
    await healing.restate_wanted(probe.database)
    first, *_, last = [c for c in await probe.changes(log.stream) if c.op == "restate"]
    assert first.after == {"marker": "start", "ordered": True}
    assert last.row["marker"] == "end"

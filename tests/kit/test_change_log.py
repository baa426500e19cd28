"""Every committed change of a published table is one numbered record."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from deploy.status import Document
from shared import healing
from shared.changes import Context
from shared.errors import RowTooLarge
from shared.tx import Database, Restored, UnsafeRole
from tests.kit.conftest import Log, Probe, record
from tests.kit.doors import application, client


def tenant() -> tuple[uuid.UUID, str]:
    org = uuid.uuid4()
    return org, f"org:{org}"


async def test_an_insert_update_and_delete_are_records_one_two_three(probe: Probe) -> None:
    _, stream = tenant()
    flow = uuid.uuid4()
    async with probe.database.transaction(stream, context=Context(by="user:7", flow_id=flow, hops=2, cause="a/b/1.1", traceparent="00-1-2-01")) as tx:
        await tx.run("INSERT INTO effects (value, note) VALUES (1, 'secret')")
        await tx.run("UPDATE effects SET value = 2")
        await tx.run("DELETE FROM effects")
    inserted, updated, deleted = await probe.changes(stream)
    assert [(c.seq, c.op) for c in (inserted, updated, deleted)] == [(1, "insert"), (2, "update"), (3, "delete")]
    assert inserted.context == Context("user:7", flow, "a/b/1.1", 2, "00-1-2-01")
    assert (updated.before, updated.row["value"]) == ({"value": 1}, 2)
    assert deleted.after is None
    assert deleted.row["value"] == 2


async def test_a_private_column_never_enters_a_record(probe: Probe) -> None:
    _, stream = tenant()
    async with probe.database.transaction(stream) as tx:
        await tx.run("INSERT INTO effects (value, note) VALUES (1, 'secret')")
        await tx.run("UPDATE effects SET note = 'another secret'")
    changes = await probe.changes(stream)
    assert len(changes) == 1, "a change of private columns alone is no change to the world"
    assert "secret" not in changes[0].raw


async def test_an_update_that_changes_nothing_makes_no_record(probe: Probe) -> None:
    _, stream = tenant()
    async with probe.database.transaction(stream) as tx:
        await tx.run("INSERT INTO effects (value) VALUES (1)")
        await tx.run("UPDATE effects SET value = 1")
    assert len(await probe.changes(stream)) == 1


async def test_a_rolled_back_write_uses_no_number(probe: Probe) -> None:
    _, stream = tenant()
    with pytest.raises(asyncpg.DivisionByZeroError):
        async with probe.database.transaction(stream) as tx:
            await tx.run("INSERT INTO effects (value) VALUES (1)")
            await tx.run("SELECT 1 / 0")
    async with probe.database.transaction(stream) as tx:
        await tx.run("INSERT INTO effects (value) VALUES (2)")
    assert [c.seq for c in await probe.changes(stream)] == [1]


async def test_a_write_to_a_stream_that_is_not_locked_is_refused(probe: Probe) -> None:
    org, _ = tenant()
    with pytest.raises(asyncpg.PostgresError, match="was not locked"):
        async with probe.database.transaction(org=org) as tx:
            await tx.run("INSERT INTO effects (value) VALUES (1)")


async def test_no_record_is_made_by_hand(probe: Probe) -> None:
    """Neither straight into the log nor by a trigger of one's own."""
    _, stream = tenant()
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append_change"):
        async with probe.database.transaction(stream) as tx:
            await tx.run("SELECT append_change($1, 'effects', 'insert', NULL, '{}')", stream)
    made = "SELECT has_function_privilege('probe_app', 'probe.log_change()', 'EXECUTE')"
    assert not await probe.admin.fetchval(made)
    assert await probe.changes(stream) == []


async def test_a_row_over_the_size_limit_is_refused_and_leaves_nothing(probe: Probe) -> None:
    _, stream = tenant()
    await probe.admin.execute("ALTER TABLE probe.effects ADD COLUMN IF NOT EXISTS long text")
    with pytest.raises(RowTooLarge):
        async with probe.database.transaction(stream) as tx:
            await tx.run("INSERT INTO effects (value, long) VALUES (1, repeat('x', 300000))")
    assert await probe.changes(stream) == []


async def test_numbers_have_no_gap_and_follow_commit_order_under_concurrency(probe: Probe) -> None:
    _, stream = tenant()

    async def write() -> None:
        async with probe.database.transaction(stream) as tx:
            seen = await tx.value("SELECT count(*) FROM effects")
            await tx.run("INSERT INTO effects (value) VALUES ($1)", seen)

    await asyncio.gather(*(write() for _ in range(40)))
    changes = await probe.changes(stream)
    assert [c.seq for c in changes] == list(range(1, 41))
    assert [c.row["value"] for c in changes] == list(range(40)), "each writer saw all earlier writers"


async def test_transactions_over_the_same_streams_in_opposite_order_do_not_deadlock(probe: Probe) -> None:
    (_, a), (_, b) = tenant(), tenant()

    async def write(*streams: str) -> None:
        async with probe.database.transaction(*streams) as tx:
            await tx.run("INSERT INTO effects (value) VALUES (1)")

    await asyncio.gather(*(write(*pair) for n in range(20) for pair in ((a, b), (b, a))))
    assert len(await probe.changes(a)) + len(await probe.changes(b)) == 40


async def test_a_database_that_was_restored_is_entered_only_when_somebody_has_said_so(probe: Probe, probe_url: str) -> None:
    async with probe.restored() as say_nothing_was_lost:
        with pytest.raises(Restored, match="mesh restored"):
            await Database.connect(probe_url, "probe")
        await say_nothing_was_lost()
        database = await Database.connect(probe_url, "probe")
    assert await database.pool.fetchval("SELECT epoch FROM incarnation") == 1
    await database.close()


async def test_until_somebody_has_said_so_requests_are_told_to_come_again_and_changes_wait(probe: Probe, log: Log) -> None:
    applier, caller = await probe.applier(record), client(application(probe.database), "127.0.0.1")
    async with probe.restored() as say_nothing_was_lost:
        refused = await caller.get("/open")
        assert (refused.status_code, refused.headers.get("Retry-After")) == (503, "1")
        applying = asyncio.create_task(applier.apply([log.change(1)]))
        await asyncio.sleep(0.3)
        assert not applying.done()
        await say_nothing_was_lost()
        await asyncio.wait_for(applying, 10)
    assert await probe.effects(log) == [1]
    assert (await caller.get("/open")).status_code == 200


async def test_a_restored_database_restates_all_it_holds_in_a_new_epoch(probe: Probe) -> None:
    _, stream = tenant()
    async with probe.database.transaction(stream) as tx:
        await tx.run("INSERT INTO effects (value) VALUES (5)")
    await probe.as_admin("SELECT restored()")
    try:
        await healing.restate_wanted(probe.database)
        old, *new = await probe.changes(stream)
        (epoch,) = {c.epoch for c in new}
        assert old.epoch == 1 < epoch
        assert [c.row.get("value") for c in new if c.table == "effects"] == [5]
        *_, raised = [c for c in await probe.changes("global:incarnation") if c.op == "update" and c.epoch == epoch]
        assert (raised.context.by, raised.row["epoch"]) == ("operator", epoch)
        assert min(c.seq for c in new) > old.seq + 1_000_000, "above whatever was given out and lost"
    finally:
        await probe.as_admin("SELECT lock_streams('{global:incarnation}'); UPDATE incarnation SET epoch = 1")


async def test_a_stream_that_a_restored_database_does_not_know_is_restated_as_empty(probe: Probe) -> None:
    """Somebody who holds copies of it asks for its beginning."""
    _, lost = tenant()
    await probe.as_admin("SELECT restored()")
    try:
        async with probe.database.transaction() as tx:
            await tx.run("SELECT send_again($1, 1, 1)", lost)
        await healing.restate_wanted(probe.database)
        start, end = await probe.changes(lost)
        assert start.after == {"marker": "start", "ordered": True}
        assert end.after == {"marker": "end", "since": start.seq}
        assert start.seq == start.epoch * 1_000_000 + 1
    finally:
        await probe.as_admin("SELECT lock_streams('{global:incarnation}'); UPDATE incarnation SET epoch = 1")


async def test_no_tenant_means_no_rows_and_another_tenant_sees_none(probe: Probe) -> None:
    org, stream = tenant()
    async with probe.database.transaction(stream) as tx:
        await tx.run("INSERT INTO effects (value) VALUES (1)")
        assert await tx.value("SELECT count(*) FROM effects") == 1, "its owner sees it"
    async with probe.database.transaction() as tx:
        assert await tx.value("SELECT count(*) FROM effects") == 0
    async with probe.database.transaction(org=uuid.uuid4()) as tx:
        assert await tx.value("SELECT count(*) FROM effects") == 0
        with pytest.raises(asyncpg.PostgresError, match="row-level security"):
            await tx.run("INSERT INTO effects (org_id, value) VALUES ($1, 1)", org)


async def test_the_application_cannot_write_the_log_or_a_replica_itself(probe: Probe) -> None:
    _, stream = tenant()
    for statement in (
        "INSERT INTO changes (stream, seq, payload) VALUES ('x', 1, '')",
        "UPDATE streams SET seq = 9",
        "SELECT count(*) FROM changes",
        "INSERT INTO things (id, org_id, value) VALUES ('1', tenant(), 1)",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with probe.database.transaction(stream) as tx:
                await tx.run(statement)


async def test_a_role_that_bypasses_row_level_security_is_refused_at_start(ground: Document, probe: Probe) -> None:
    with pytest.raises(UnsafeRole):
        await Database.connect(ground["postgres"]["url"], "probe")


async def test_a_pooled_connection_never_carries_the_previous_tenant(probe_url: str, probe: Probe) -> None:
    database = await Database.connect(probe_url, "probe", size=1)
    try:
        _, stream = tenant()
        async with database.transaction(stream) as tx:
            await tx.run("INSERT INTO effects (value) VALUES (1)")
        async with database.pool.acquire() as connection:
            assert await connection.fetchval("SELECT count(*) FROM effects") == 0
            assert await connection.fetchval("SELECT coalesce(current_setting('app.org_id', true), '')") == ""
    finally:
        await database.close()


async def test_changes_are_kept_for_35_days_and_the_weeks_before_are_dropped_whole(probe: Probe) -> None:
    def week(ago: int) -> tuple[str, datetime]:
        monday = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        monday -= timedelta(days=monday.weekday() + 7 * ago)
        return f"changes_{monday:%Y%m%d}", monday

    for ago in (5, 7):
        name, monday = week(ago)
        await probe.admin.execute(
            f"CREATE TABLE probe.{name} PARTITION OF probe.changes FOR VALUES FROM ('{monday}') TO ('{monday + timedelta(days=7)}'); "
            f"ALTER TABLE probe.{name} OWNER TO probe_owner"
        )
    await probe.admin.execute("SELECT probe.keep_changes()")
    there = [await probe.admin.fetchval("SELECT to_regclass('probe.' || $1) IS NOT NULL", week(ago)[0]) for ago in (7, 5, 0, -1)]
    assert there == [False, True, True, True], "the present week and the next are ready"
    await probe.admin.execute(f"DROP TABLE probe.{week(5)[0]}")

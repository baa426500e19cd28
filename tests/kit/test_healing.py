"""The owner's side of healing: sending again, and restating what the log does not hold any more."""

import asyncio
import uuid

from shared import healing, positions
from tests.kit.conftest import Probe


async def written(probe: Probe, count: int) -> str:
    """A stream of the probe with so many changes."""
    stream = f"org:{uuid.uuid4()}"
    async with probe.database.transaction(stream) as tx:
        await tx.run("INSERT INTO effects (value) SELECT * FROM generate_series(1, $1)", count)
    return stream


async def send_again(probe: Probe, stream: str, first: int, last: int) -> int:
    async with probe.database.transaction() as tx:
        return int(await tx.value("SELECT send_again($1, $2, $3)", stream, first, last))


async def test_missing_numbers_are_sent_again_under_the_same_numbers_once_for_all_who_ask(probe: Probe) -> None:
    stream = await written(probe, 5)
    assert await send_again(probe, stream, 2, 3) == 2
    assert await send_again(probe, stream, 2, 3) == 0, "another reader asked meanwhile: it is on its way"
    assert [c.seq for c in await probe.changes(stream)] == [1, 2, 2, 3, 3, 4, 5]


async def test_a_service_that_misses_its_own_changes_sends_them_again_without_being_asked_by_the_bus(probe: Probe) -> None:
    stream = await written(probe, 4)
    async with probe.database.transaction("global:resend") as tx:
        await positions.ask_again(tx, "probe", stream, 2, 3)
    assert [c.seq for c in await probe.changes(stream)] == [1, 2, 2, 3, 3, 4]


async def test_what_the_log_has_lost_is_restated_with_the_tenants_rows_and_no_others(probe: Probe) -> None:
    stream, other = await written(probe, 3), await written(probe, 2)
    await probe.admin.execute("DELETE FROM probe.changes WHERE stream = $1 AND seq < 3", stream)
    await send_again(probe, stream, 1, 2)
    await healing.restate_wanted(probe.database)
    restated = [c for c in await probe.changes(stream) if c.op == "restate"]
    assert [c.table for c in restated] == ["_restate", "effects", "effects", "effects", "_restate"]
    assert [c.row["value"] for c in restated[1:4]] == [1, 2, 3]
    assert restated[-1].after == {"marker": "end", "since": 4}
    assert all(c.op != "restate" for c in await probe.changes(other))


async def test_heads_name_every_stream_that_was_written_since_the_last_time(probe: Probe) -> None:
    await healing.announce_heads(probe.database)
    stream = await written(probe, 4)
    heads: dict[str, int] = {}
    async with asyncio.timeout(20):
        while stream not in heads:  # not as long as anybody's older transaction goes on: nothing below it may be missing
            await healing.announce_heads(probe.database)
            *_, last = await probe.changes("global:heads")
            heads = last.row["heads"]
    assert heads[stream] == 4

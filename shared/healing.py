"""What a service does by itself to notice and mend losses: announce heads, check those of others, retry what is parked."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import NamedTuple

from shared import parking, positions
from shared.bus import FUSES, RESEND, Applier
from shared.calls import Call, act_for, invoke
from shared.changes import Change, decode
from shared.failpoints import failpoint
from shared.log import log
from shared.metrics import metrics
from shared.positions import REACTIONS
from shared.tx import Database, DatabaseAway, Tx

HEADS_EVERY = 2.0
SELDOM = 15.0
"""Seconds until a task asks by itself what there is to do, which :mod:`shared.watching` tells it at once."""
MISSING, TO_RESTATE = "missing", "to restate"
"""Who is woken when changes are missing, and when streams are to be restated."""
GRACE = "5 seconds"
ROUND = "3 seconds"
ROUNDS = 3
SELDOM_FROM = 9
"""The round from which on asking again is only for what nobody knows: it has been alarmed for minutes."""


async def every(seconds: float, work: Callable[[], Awaitable[object]], name: str, wake: asyncio.Event | None = None) -> None:
    """Repeats the work for ever, sooner when woken. What it raises is logged and does not end it."""
    while True:
        try:
            await work()
        except DatabaseAway as error:
            log.warning("a background task waits for the database", extra={"task": name, "error": repr(error)})
        except Exception as error:  # noqa: BLE001 - a background task outlives whatever one round meets
            log.error("a background task failed and goes on", extra={"task": name}, exc_info=error)
        if wake is None:
            await asyncio.sleep(seconds)
            continue
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(wake.wait(), timeout=seconds)
        wake.clear()


async def announce_heads(database: Database) -> None:
    """Tells all readers how far each stream has come that was written since the last time."""
    async with database.transaction() as tx:
        await tx.run("SELECT announce_heads()")
        slot = await tx.records("SELECT age_seconds, slot_held() AS held FROM slot_lag()")
        heard = await tx.records("SELECT source, extract(epoch FROM at)::float8 AS at FROM heard")
        failpoint("heads")
    for one in slot:
        metrics.slot_held.set(one["held"] or 0)
        if one["age_seconds"] is not None:
            metrics.oldest_change.set(one["age_seconds"])
    for one in heard:
        metrics.heard.labels(one["source"]).set(one["at"])


async def postpone_expected(database: Database, sources: list[str]) -> None:
    """Gives what these sources have announced another grace: who has not read that far yet misses nothing."""
    async with database.transaction() as tx:
        await tx.run("UPDATE expected SET postponed_at = now() WHERE source = ANY($1)", sources)


async def check_expected(database: Database) -> None:
    """Asks for announced changes that did not come within the grace, and asks again for holes that stay open."""
    async with database.transaction() as tx:
        open_ones = await tx.value("SELECT EXISTS (SELECT FROM expected) OR EXISTS (SELECT FROM resend_requests WHERE closed_at IS NULL)")
        if not open_ones:
            return
        await tx.run("SELECT lock_streams($1)", [RESEND])
        await tx.run(
            "DELETE FROM expected e USING positions p "
            "WHERE p.reader = e.reader AND p.source = e.source AND p.stream = e.stream AND (p.epoch, p.seq) >= (e.epoch, e.seq)"
        )
        late = await tx.records(
            "SELECT e.source, e.stream, min(CASE p.epoch WHEN e.epoch THEN p.seq ELSE 0 END) AS seq, max(e.seq) AS head "
            "FROM expected e LEFT JOIN positions p USING (reader, source, stream) "
            f"WHERE greatest(e.since, e.postponed_at) < now() - interval '{GRACE}' GROUP BY 1, 2"
        )
        for r in late:
            metrics.gaps.labels(r["source"]).inc()
            await positions.ask_again(tx, r["source"], r["stream"], r["seq"] + 1, r["head"])
        await tx.run(
            "UPDATE resend_requests q SET closed_at = now() FROM (SELECT source, stream, min(seq) AS seq FROM positions GROUP BY 1, 2) p "
            "WHERE q.closed_at IS NULL AND p.source = q.source AND p.stream = q.stream AND p.seq >= q.to_seq"
        )
        again = await tx.records(
            "UPDATE resend_requests SET round = round + 1, asked_at = now() WHERE closed_at IS NULL AND "
            f"asked_at < now() - CASE WHEN round < {SELDOM_FROM} THEN least(interval '{ROUND}' * 2 ^ (round - 1), interval '1 minute') "
            "ELSE interval '15 minutes' END RETURNING source, stream, from_seq, to_seq"
        )
        for r in again:
            if r["source"] == tx.service:
                await tx.run("SELECT send_again($1, $2, $3)", r["stream"], r["from_seq"], r["to_seq"])
        stuck = await tx.records("SELECT source, stream, from_seq, to_seq FROM resend_requests WHERE closed_at IS NULL AND round >= $1", ROUNDS)
    metrics.gap_alarms.set(len(stuck))
    for r in stuck:
        log.error("changes stay missing: run mesh restate for this stream", extra=dict(r))


RESTATE_ROWS_A_SECOND = 5000
"""Leaves the live changes their speed: unpaced, their p99 grows to more than half a second."""


async def restate_wanted(database: Database) -> None:
    """Restates the streams that are asked for, one transaction each; first those by which the kits of the services speak to each other."""
    while stream := await _next_restatement(database):
        began = time.monotonic()
        async with database.transaction(stream) as tx:
            ordered = await tx.value("DELETE FROM restatements WHERE stream = $1 RETURNING ordered", stream)
            if ordered is None:
                continue
            rows = await tx.value("SELECT restate($1, $2)", stream, ordered)
        log.info("a stream was restated", extra={"stream": stream, "rows": rows})
        await asyncio.sleep(max(0.0, rows / RESTATE_ROWS_A_SECOND - (time.monotonic() - began)))


async def _next_restatement(database: Database) -> str | None:
    async with database.transaction(readonly=True) as tx:
        stream: str | None = await tx.value("SELECT stream FROM restatements ORDER BY stream NOT LIKE 'global:%', asked_at LIMIT 1")
        return stream


async def tidy(database: Database) -> None:
    """Drops what has served its time: old partitions of the log, remembered answers, records kept raw, closed requests."""
    async with database.transaction() as tx:  # alone, and not for long: it stops all who write
        await tx.run("SET LOCAL lock_timeout = '2s'")
        await tx.run("SELECT keep_changes()")
    async with database.transaction() as tx:
        await tx.run("DELETE FROM idempotency WHERE at < now() - interval '24 hours'")
        await tx.run("DELETE FROM undecodable WHERE at < now() - interval '35 days'")
    async with database.transaction(RESEND) as tx:
        await tx.run("DELETE FROM resend_requests WHERE closed_at < now() - interval '7 days'")


class Pair(NamedTuple):
    """A reaction that is parked for a stream of changes, with the stream it writes."""

    reaction: str
    source: str
    stream: str
    target: str

    @property
    def key(self) -> tuple[str, str, str]:
        return self.reaction, self.source, self.stream

    @property
    def subject(self) -> str:
        return f"{self.source}/{self.stream}"


AT_ONCE = 500
"""Parked changes that one transaction tries: it has half a minute."""
_PAIR = "reaction = $1 AND source = $2 AND stream = $3"


class Retrier:
    """Retries parked reactions with back-off, in the order their changes came."""

    def __init__(self, applier: Applier) -> None:
        self.applier = applier
        self.database = applier.database

    async def retry_due(self) -> None:
        """One attempt for every parked pair whose time has come; for a fused reaction only its oldest."""
        async with self.database.transaction(readonly=True) as tx:
            due = await tx.records(
                "SELECT reaction, source, stream, target FROM parked p WHERE state <> 'dead' AND next_at <= now() AND "
                "(NOT EXISTS (SELECT FROM fuses f WHERE f.reaction = p.reaction) OR p.since = (SELECT min(since) FROM parked o WHERE o.reaction = p.reaction AND o.state <> 'dead')) "
                "ORDER BY next_at LIMIT 50"
            )
            counts = await tx.records("SELECT state, count(*) AS n FROM parked GROUP BY 1")
            metrics.fuses_now.set(await tx.value("SELECT count(*) FROM fuses"))
        for state in ("waiting", "retrying", "dead"):
            metrics.parked_now.labels(state).set(next((r["n"] for r in counts if r["state"] == state), 0))
        for r in due:
            await self._retry_or_tell(Pair(*r))
        if any(r["state"] == "waiting" for r in counts):
            asyncio.get_running_loop().call_later(0.05, self.database.waker(parking.PARKED).set)

    async def _retry_or_tell(self, pair: Pair) -> None:
        """One that cannot even be tried, or that the database gives up, keeps no other from its turn."""
        try:
            await self.retry(pair)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is one pair's
            log.error("what is parked could not be tried", extra={"reaction": pair.reaction, "subject": pair.subject}, exc_info=error)

    async def retry(self, pair: Pair) -> None:
        """Runs what waits for one pair, as far as it goes."""
        async with self.database.transaction() as tx:
            calls = await self.waiting(tx, pair)
            if calls is not None:
                await self.attempt(tx, pair, calls)

    async def waiting(self, tx: Tx, pair: Pair) -> list[Call] | None:
        """Locks the pair and all that running it writes; answers the first of what waits, but for flows that were cancelled. None: it is not parked any more."""
        await positions.lock(tx, REACTIONS, {(pair.source, pair.stream): []}, jump=False)
        rows = await tx.records(f"SELECT record FROM parked_changes WHERE {_PAIR} ORDER BY epoch, seq LIMIT {AT_ONCE}", *pair.key)
        changes = [decode(pair.source, r["record"]) for r in rows]
        cancelled = (await parking.held_back(tx, changes)).flows
        calls = [self._call(pair.reaction, c, pair.target) for c in changes if c.context.flow_id not in cancelled]
        await tx.run("SELECT lock_streams($1)", sorted({pair.target, FUSES} | {c.target for c in calls}))
        return calls if await tx.value(f"SELECT true FROM parked WHERE {_PAIR} FOR UPDATE", *pair.key) else None

    async def attempt(self, tx: Tx, pair: Pair, calls: list[Call]) -> parking.Failure | None:
        """Runs these calls, the first of what waits, in order. When all succeed the pair is free, or the rest is tried next; else it is parked
        at the first that fails, whose failure is answered.
        """
        failed = await self._run(tx, calls)
        if failed is None:
            failpoint("retry")
            await self._free(tx, pair)
            if calls:
                await tx.run("DELETE FROM fuses WHERE reaction = $1", pair.reaction)
            return None
        call, failure = failed
        change = call.change
        await tx.run(f"DELETE FROM parked_changes WHERE {_PAIR} AND (epoch, seq) < ($4, $5)", *pair.key, change.epoch, change.seq)
        before = await tx.value(f"SELECT attempt FROM parked WHERE {_PAIR} AND change = $4", *pair.key, change.name) or 0
        act_for(tx, replace(call, target=pair.target))
        await tx.run(
            "UPDATE parked SET attempt = $4, error = $5, next_at = now() + $6, change = $7, flow_id = $8, since = CASE change WHEN $7 THEN since ELSE now() END, "
            f"state = CASE WHEN change = $7 AND since < now() - $9::interval THEN 'dead' ELSE $10 END WHERE {_PAIR}",
            *pair.key, before + 1, failure.text, failure.delay(before + 1), change.name, change.context.flow_id, parking.DEAD_AFTER, failure.state,
        )  # fmt: skip
        return failure

    async def _free(self, tx: Tx, pair: Pair) -> None:
        """Ends the wait of the changes that were done, and that of the pair when there are no others."""
        first = f"SELECT epoch, seq FROM parked_changes WHERE {_PAIR} ORDER BY epoch, seq LIMIT {AT_ONCE}"
        await tx.run(f"DELETE FROM parked_changes WHERE {_PAIR} AND (epoch, seq) IN ({first})", *pair.key)
        if await tx.value(f"SELECT EXISTS (SELECT FROM parked_changes WHERE {_PAIR})", *pair.key):
            await tx.run(f"UPDATE parked SET next_at = now() WHERE {_PAIR}", *pair.key)
            tx.after_commit.append(self.database.waker(parking.PARKED).set)
        else:
            await tx.run(f"DELETE FROM parked WHERE {_PAIR}", *pair.key)

    def _call(self, name: str, change: Change, target: str) -> Call:
        reaction = self.applier.by_name.get(name)
        if reaction is None:
            return Call(None, change, target, parking.Failure(LookupError(f"no reaction is called {name} now")))  # type: ignore[arg-type]
        try:
            return Call(reaction, change, reaction.target(change))
        except Exception as error:  # noqa: BLE001 - an author's mistake keeps it parked
            return Call(reaction, change, target, parking.Failure(error))

    async def _run(self, tx: Tx, calls: list[Call]) -> tuple[Call, parking.Failure] | None:
        for call in calls:
            if call.failure:
                return call, call.failure
            try:
                async with tx.savepoint():
                    await invoke(tx, call)
            except DatabaseAway:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it raises, it stays parked
                return call, parking.Failure(error)
        return None

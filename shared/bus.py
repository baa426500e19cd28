"""Applies batches of change records: replicas first, then reactions, each exactly once and in the order of their stream.

A batch is cut into lanes by the streams it writes, one transaction a lane. A lane that fails is run once more with a savepoint
around what failed, so that one poison change costs one reaction on one stream, and the others as little as can be.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType

import asyncpg

from shared import orders, parking, positions, replicas
from shared.changes import HEADS, Change, stream_id, stream_kind
from shared.failpoints import failpoint
from shared.log import log, working_on
from shared.metrics import metrics
from shared.orders import CONSOLE, ORDERS
from shared.positions import FOLLOWERS, REACTIONS, READERS, REPLICAS, Key, Progress
from shared.reactions import Follower, Reaction, sources_of
from shared.replicas import Replica, replicas_of
from shared.trace import span, trace_id
from shared.tx import Database, DatabaseAway, TablesChanged, Tx

Groups = dict[Key, list[Change]]
Suspect = tuple[str, str, str]
"""A reaction on a stream of a source."""
LANES = 4
SUSPICIONS = 3
"""Runs of a lane in which one more failing reaction is looked for, before all are run with care: most often there is one."""
RESEND, FUSES, INCARNATION = "global:resend", "global:fuses", "global:incarnation"
NOTHING_HELD_BACK = parking.HeldBack(frozenset(), frozenset())


@dataclass(frozen=True)
class Call:
    """One reaction to be run for one change, with the stream it writes. ``failure`` when that could not even be told."""

    reaction: Reaction
    change: Change
    target: str
    failure: parking.Failure | None = None


class Applier:
    """Applies changes to one service: its replicas, its reactions, and its followers."""

    def __init__(
        self, database: Database, reactions: Iterable[Reaction], replicas_by_source: dict[str, Replica],
        followers: Iterable[Follower] = (), activated: Mapping[str, datetime] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        """``activated``: since when each reaction acts, by its name; one that is not named acts on everything."""
        self.database = database
        self.activated = activated
        self.service = database.service
        self.reactions: dict[str, list[Reaction]] = defaultdict(list)
        for reaction in reactions:
            self.reactions[reaction.pattern.row.table].append(reaction)
        self.by_name = {r.name: r for rs in self.reactions.values() for r in rs}
        self.replicas = replicas_by_source
        self.followers = list(followers)
        self._replica_sources = {source.partition(".")[0] for source in replicas_by_source}
        self._kinds = sources_of(list(self.by_name.values()))

    def follows(self, reader: str, source: str, stream: str) -> bool:
        """Whether this reader keeps a position for the stream."""
        kind = stream_kind(stream)
        if kind == RESEND:
            return reader == REACTIONS and source != self.service
        if reader == FOLLOWERS:
            return bool(self.followers)
        if kind == ORDERS:
            return reader == REACTIONS and source == CONSOLE
        if kind == "global:heads":
            return reader == REACTIONS and (bool(self.followers) or source == CONSOLE or source in self._replica_sources or source in self._kinds)
        if reader == REPLICAS:
            return source in self._replica_sources and kind not in (FUSES, INCARNATION)
        return kind in self._kinds.get(source, ())

    async def apply(self, changes: list[Change]) -> None:
        """Applies a batch. Returns when everything of it is committed, parked or held; waits out a database that is away."""
        for_replicas = self._groups(REPLICAS, changes)
        if for_replicas:
            await self._until_done(self._apply_replicas, for_replicas)
        for_followers = self._groups(FOLLOWERS, changes)
        if for_followers:
            await self._until_done(self._apply_followers, for_followers)
        for_reactions = self._groups(REACTIONS, changes)
        if for_reactions:
            async with asyncio.TaskGroup() as lanes:
                for lane in self._lanes(for_reactions):
                    lanes.create_task(self._apply_lane(lane))

    def _groups(self, reader: str, changes: list[Change]) -> Groups:
        groups: Groups = {}
        for c in changes:
            key = (c.source, c.stream)
            if key in groups:
                groups[key].append(c)
            elif self.follows(reader, c.source, c.stream):
                groups[key] = [c]
        return groups

    async def _until_done(self, work: Callable[[Groups], Awaitable[None]], groups: Groups, *, wait: float = 0.05) -> None:
        """Repeats while the trouble passes by itself; what fails otherwise is tried a stream at a time."""
        while True:
            try:
                await work(groups)
            except DatabaseAway as error:
                log.warning("the database is away or busy, trying again", extra={"error": repr(error), "wait": wait})
                metrics.transient_retries.inc()
                await asyncio.sleep(wait)
                wait = min(wait * 2, 2)
            except Exception as error:  # noqa: BLE001 - one stream's trouble, whatever it is, must not stop the others
                await self._one_by_one(work, groups, error)
                return
            else:
                return

    async def _one_by_one(self, work: Callable[[Groups], Awaitable[None]], groups: Groups, error: Exception) -> None:
        """A stream that cannot be applied at all stays behind; its announced head has it sent and tried again."""
        if len(groups) == 1:
            key = next(iter(groups))
            log.error("a stream cannot be applied and stays behind", extra={"source": key[0], "stream": key[1]}, exc_info=error)
            metrics.left_behind.inc()
            return
        for key, changes in groups.items():
            await self._until_done(work, {key: changes})

    async def keep_undecodable(self, topic: str, partition: int, offset: int, key: bytes | None, value: bytes | None, reason: str) -> None:
        """Keeps a record that is no change record, whole; the number that is missing now heals as a gap."""

        async def keep(_: Groups) -> None:
            async with self.database.transaction() as tx:
                await tx.run(
                    "INSERT INTO undecodable (topic, partition, kafka_offset, key, value, reason) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
                    topic, partition, offset, key, value, reason,
                )  # fmt: skip

        await self._until_done(keep, {})

    # Replicas

    async def _apply_replicas(self, groups: Groups) -> None:
        try:
            await self._write_replicas(groups)
        except asyncpg.UndefinedColumnError as error:
            known, self.replicas = self.replicas, await replicas_of(self.database.pool, self.service)
            if self.replicas == known:
                raise
            raise TablesChanged(repr(error)) from error

    async def _write_replicas(self, groups: Groups) -> None:
        async with self.database.transaction() as tx:
            progresses = await positions.lock(tx, REPLICAS, groups, jump=True)
            await self._lock_streams(tx, progresses, set())
            await replicas.apply(tx, self.replicas, (c for p in progresses for c in p.ready))
            failpoint("replica")
            await positions.save(tx, REPLICAS, progresses)
        metrics.changes_applied.labels(REPLICAS).inc(sum(len(p.ready) for p in progresses))

    # Followers

    async def _apply_followers(self, groups: Groups) -> None:
        async with self.database.transaction() as tx:
            progresses = await positions.lock(tx, FOLLOWERS, groups, jump=True)
            await self._lock_streams(tx, progresses, set())
            ready = [c for p in progresses for c in p.ready]
            async with tx.in_bulk():
                for follower in self.followers:
                    await follower.function(tx, ready)
            failpoint("follower")
            await positions.save(tx, FOLLOWERS, progresses)
        metrics.changes_applied.labels(FOLLOWERS).inc(len(ready))

    # Reactions

    def _calls(self, change: Change) -> list[Call]:
        calls = []
        for reaction in self.reactions.get(f"{change.source}.{change.table}", ()):
            if not reaction.concerns(change, self.activated.get(reaction.name)):
                continue
            try:
                if change.context.hops >= parking.MAX_HOPS:
                    raise parking.TooManyHops(change.name)
                calls.append(Call(reaction, change, reaction.target(change)))
            except Exception as error:  # noqa: BLE001 - an author's mistake parks, whatever it is
                calls.append(Call(reaction, change, change.stream, parking.Failure(error)))
        return calls

    def _lanes(self, groups: Groups) -> list[Groups]:
        """Cuts the groups so that no two lanes write the same stream."""
        if len(groups) < 2 * LANES:
            return [groups]
        lane_of: dict[str, int] = {}
        lanes: list[Groups] = [{} for _ in range(LANES)]
        for n, (key, changes) in enumerate(groups.items()):
            targets = {call.target for c in changes if self._leads_elsewhere(c) for call in self._calls(c)} | {key[1]}
            known = {lane_of[t] for t in targets if t in lane_of}
            lane = min(known) if known else n % LANES
            for other in known - {lane}:
                lanes[lane].update(lanes[other])
                lanes[other] = {}
                lane_of.update({t: lane for t, at in lane_of.items() if at == other})
            lane_of.update(dict.fromkeys(targets, lane))
            lanes[lane][key] = changes
        return [lane for lane in lanes if lane]

    def _leads_elsewhere(self, change: Change) -> bool:
        """Whether a reaction to it may write another stream than its own."""
        return any(reaction.writes for reaction in self.reactions.get(f"{change.source}.{change.table}", ()))

    async def _apply_lane(self, groups: Groups) -> None:
        await self._until_done(self._attempt_lane, groups)

    async def _attempt_lane(self, groups: Groups) -> None:
        """Runs a lane, and again when a reaction fails in it: first with a savepoint around that reaction on that stream, in the end around all."""
        suspects: set[Suspect] = set()
        for _ in range(SUSPICIONS):
            try:
                return await self._run_lane(groups, suspects)
            except _Failed as failed:
                log.info("a lane failed, running it with savepoints", extra={"error": repr(failed.__cause__)})
                suspects |= failed.suspects
        return await self._run_lane(groups, None)

    async def _run_lane(self, groups: Groups, suspects: set[Suspect] | None) -> None:
        """``suspects`` run in a savepoint each, and are parked when they fail; None: all do."""
        careful = suspects is None or bool(suspects)
        async with self.database.transaction() as tx:
            progresses = await positions.lock(tx, REACTIONS, groups, jump=False)
            calls = [(p, call) for p in progresses for c in p.ready for call in self._calls(c)]
            await self._lock_streams(tx, progresses, {call.target for _, call in calls} | ({FUSES} if careful and calls else set()))
            runner = _Runner(tx, await parking.held_back(tx, (call.change for _, call in calls)) if calls else NOTHING_HELD_BACK, suspects)
            for p, call in calls:
                await runner.run(p, call)
            await runner.run_set()
            await self._kit_records(tx, progresses)
            if calls:
                failpoint("reaction")
            await positions.save(tx, REACTIONS, progresses)
        metrics.changes_applied.labels(REACTIONS).inc(sum(len(p.ready) for p in progresses))
        if runner.parked:
            self.database.waker(parking.PARKED).set()

    async def _lock_streams(self, tx: Tx, progresses: list[Progress], targets: set[str]) -> None:
        if any(p.gap or p.raised for p in progresses):
            targets = targets | {RESEND}
        if targets:
            await tx.run("SELECT lock_streams($1)", sorted(targets))

    async def _kit_records(self, tx: Tx, progresses: list[Progress]) -> None:
        """What the kit itself reacts to: heads, requests to send our own changes again, orders of operators."""
        for change in (c for p in progresses for c in p.ready):
            if change.table == HEADS:
                await self._expect(tx, change)
            elif change.table == "resend_requests" and change.after and change.after["source"] == self.service and not change.after["closed_at"]:
                await tx.run("SELECT send_again($1, $2, $3)", change.after["stream"], change.after["from_seq"], change.after["to_seq"])
                metrics.resends.inc()
                failpoint("resend")
            elif await orders.take(tx, change):
                tx.after_commit.append(self.database.waker(orders.ORDERED).set)

    async def _expect(self, tx: Tx, change: Change) -> None:
        """Keeps the announced heads that are ahead of our positions, to be asked for when their grace is over."""
        heads: dict[str, int] = (change.after or {}).get("heads", {})
        await tx.run("INSERT INTO heard AS h VALUES ($1, $2) ON CONFLICT (source) DO UPDATE SET at = greatest(h.at, excluded.at)", change.source, change.at)
        for reader in READERS:
            followed = {s: q for s, q in heads.items() if self.follows(reader, change.source, s)}
            if followed:
                await tx.run(
                    "INSERT INTO expected AS e (reader, source, stream, epoch, seq) SELECT $1, $2, h.stream, $5, h.seq "
                    "FROM unnest($3::text[], $4::bigint[]) AS h (stream, seq) LEFT JOIN positions p "
                    "ON p.reader = $1 AND p.source = $2 AND p.stream = h.stream WHERE p.stream IS NULL OR (p.epoch, p.seq) < ($5, h.seq) "
                    "ON CONFLICT (reader, source, stream) DO UPDATE SET epoch = excluded.epoch, seq = excluded.seq "
                    "WHERE (e.epoch, e.seq) < (excluded.epoch, excluded.seq)",
                    reader, change.source, list(followed), list(followed.values()), change.epoch,
                )  # fmt: skip


class _Failed(Exception):
    """A reaction failed without a savepoint around it: nothing of its lane was done."""

    def __init__(self, *calls: Call) -> None:
        self.suspects = {_suspect(call) for call in calls}


def _suspect(call: Call) -> Suspect:
    return call.reaction.name, call.change.source, call.change.stream


class _Runner:
    """Runs the calls of one lane in one transaction."""

    def __init__(self, tx: Tx, held_back: parking.HeldBack, suspects: set[Suspect] | None) -> None:
        self.tx = tx
        self.held_back = held_back
        self.suspects = suspects
        self.parked: set[tuple[str, Key]] = set()
        self._set: list[Call] = []

    async def run(self, progress: Progress, call: Call) -> None:
        """Runs a call, parks it, or leaves it out. One of a reaction to many changes waits for those that follow it at once."""
        if self._set and not _one_set(self._set[-1], call):
            await self.run_set()
        name = call.reaction.name
        if call.change.context.flow_id in self.held_back.flows:
            return
        if name in progress.parked or (name, progress.key) in self.parked:
            await parking.queue(self._as_kit(call), name, call.change)
        elif name in self.held_back.reactions:
            await self._park(call, parking.Failure(RuntimeError("held by the fuse of this reaction")))
        elif call.failure:
            await self._park(call, call.failure)
        elif self.suspects is None or _suspect(call) in self.suspects:
            await self._run_carefully(call)
        elif call.reaction.many:
            self._set.append(call)
        else:
            await self._invoke(call)

    async def run_set(self) -> None:
        """Runs what was collected of a reaction to many changes."""
        if self._set:
            calls, self._set = self._set, []
            await self._invoke(*calls)

    async def _invoke(self, *calls: Call) -> None:
        try:
            await invoke(self.tx, *calls)
        except DatabaseAway:
            raise
        except Exception as error:
            raise _Failed(*calls) from error

    async def _run_carefully(self, call: Call) -> None:
        try:
            async with self.tx.savepoint():
                await invoke(self.tx, call)
        except DatabaseAway:
            raise
        except Exception as error:  # noqa: BLE001 - whatever an author's code raises is parked, that is the point
            with working_on_call(call):
                log.warning("a reaction failed and is parked", extra={"reaction": call.reaction.name, "change": call.change.name}, exc_info=error)
            await self._park(call, parking.Failure(error))

    async def _park(self, call: Call, failure: parking.Failure) -> None:
        tx = self._as_kit(call)
        await parking.park(tx, call.reaction.name, call.change, call.target, failure)
        self.parked.add((call.reaction.name, (call.change.source, call.change.stream)))
        metrics.parked.labels(call.reaction.name).inc()
        if self.suspects != set() and failure.state == "retrying" and await parking.failing_streams(tx, call.reaction.name) >= parking.FUSE_STREAMS:
            await parking.blow_fuse(tx, call.reaction.name, failure)

    def _as_kit(self, call: Call) -> Tx:
        act_for(self.tx, call)
        return self.tx


def _one_set(before: Call, call: Call) -> bool:
    """Whether a reaction to many changes takes both at once: they follow each other in one stream."""
    return call.reaction is before.reaction and call.target == before.target and call.change.stream == before.change.stream


def act_for(tx: Tx, call: Call) -> None:
    """Gives the transaction the tenant of the stream the call writes, and the change as the cause of what is written."""
    change = call.change
    context = replace(change.context, cause=change.name, hops=change.context.hops + 1)
    tx.act_as(stream_id(call.target, "org"), stream_id(call.target, "user") or stream_id(change.stream, "user"), context, change)


def working_on_call(call: Call) -> AbstractContextManager[None]:
    context = call.change.context
    return working_on(flow_id=context.flow_id, org_id=stream_id(call.target, "org"), trace_id=trace_id(context.traceparent))


async def invoke(tx: Tx, *calls: Call) -> None:
    """Runs one reaction for one change, or for several of one stream when it takes many.

    What it makes of several has the last one as its cause, and belongs to their flow when they are of one flow.
    """
    call = calls[-1]
    act_for(tx, call)
    if len(calls) > 1:
        flows, hops = {one.change.context.flow_id for one in calls}, max(one.change.context.hops for one in calls) + 1
        tx.act_as(tx.org_id, tx.user_id, replace(tx.context, hops=hops, flow_id=flows.pop() if len(flows) == 1 else None), call.change)
    with working_on_call(call), span(call.reaction.name, call.change.traceparent) as traceparent:
        if traceparent:
            tx.act_as(tx.org_id, tx.user_id, replace(tx.context, traceparent=traceparent), call.change)
        rows = [one.reaction.pattern.row.of(one.change) for one in calls]
        await call.reaction.function(tx, rows if call.reaction.many else rows[0])
    metrics.reactions_run.labels(call.reaction.name).inc(len(calls))

"""Applies batches of change records: replicas first, then reactions, each exactly once and in the order of their stream.

A batch is cut into lanes by the streams it writes, one transaction a lane. A lane that fails is run once more with a savepoint
around what failed, so that one poison change costs one reaction on one stream, and the others as little as can be.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from datetime import datetime
from types import MappingProxyType

import asyncpg

from shared import orders, parking, positions, replicas
from shared.calls import NOTHING_HELD_BACK, Call, Failed, Runner, Suspect
from shared.changes import HEADS, RESTATE, Change, stream_kind
from shared.failpoints import failpoint
from shared.log import log
from shared.metrics import metrics
from shared.orders import CONSOLE, ORDERS
from shared.positions import FOLLOWERS, REACTIONS, READERS, REPLICAS, Key, Progress
from shared.reactions import Follower, Reaction, sources_of
from shared.replicas import Replica, replicas_of
from shared.tx import Database, DatabaseAway, TablesChanged, Tx

Groups = dict[Key, list[Change]]
Work = Callable[[Groups], Awaitable[bool]]
"""Applies changes in one transaction; whether there is more to be applied than it takes."""
LANES = 4
SUSPICIONS = 3
"""Runs of a lane in which one more failing reaction is looked for, before all are run with care: most often there is one."""
RESEND, FUSES, INCARNATION = "global:resend", "global:fuses", "global:incarnation"
KIT_TABLES = frozenset({HEADS, RESTATE, "resend_requests", "orders", "incarnation"})
"""Records that the kit itself does something about, whoever reads them."""


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
        if kind in ("global:heads", INCARNATION):
            return reader == REACTIONS and (bool(self.followers) or source == CONSOLE or source in self._replica_sources or source in self._kinds)
        if reader == REPLICAS:
            return source in self._replica_sources and kind != FUSES
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

    async def _until_done(self, work: Work, groups: Groups, *, wait: float = 0.05) -> None:
        """Repeats while the trouble passes by itself, or more is to be done; what fails otherwise is tried a stream at a time."""
        while True:
            try:
                if not await work(groups):
                    return
                groups = {key: [] for key in groups}
            except DatabaseAway as error:
                log.warning("the database is away or busy, trying again", extra={"error": repr(error), "wait": wait})
                metrics.transient_retries.inc()
                await asyncio.sleep(wait)
                wait = min(wait * 2, 2)
            except Exception as error:  # noqa: BLE001 - one stream's trouble, whatever it is, must not stop the others
                await self._one_by_one(work, groups, error)
                return

    async def _one_by_one(self, work: Work, groups: Groups, error: Exception) -> None:
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

        async def keep(_: Groups) -> bool:
            async with self.database.transaction() as tx:
                await tx.run(
                    "INSERT INTO undecodable (topic, partition, kafka_offset, key, value, reason) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
                    topic, partition, offset, key, value, reason,
                )  # fmt: skip
            return False

        await self._until_done(keep, {})

    async def _without_passed(self, reader: str, groups: Groups) -> Groups:
        """What is left to apply: a batch of which nothing concerns the reader is passed in one statement."""
        if not all(groups.values()) or any(self._concerns(reader, c) for changes in groups.values() for c in changes):
            return groups
        passed = await positions.pass_over(self.database, reader, groups)
        metrics.changes_applied.labels(reader).inc(sum(len(groups[key]) for key in passed))
        return {key: changes for key, changes in groups.items() if key not in passed}

    def _concerns(self, reader: str, change: Change) -> bool:
        """Whether the reader does more about a change than to move past it."""
        if change.table in KIT_TABLES:
            return True
        if reader == REPLICAS:
            return f"{change.source}.{change.table}" in self.replicas
        return any(self._reactions_to(change))

    def _reactions_to(self, change: Change) -> Iterator[Reaction]:
        return (r for r in self.reactions.get(f"{change.source}.{change.table}", ()) if r.concerns(change, self.activated.get(r.name)))

    # Replicas

    async def _apply_replicas(self, groups: Groups) -> bool:
        groups = await self._without_passed(REPLICAS, groups)
        if not groups:
            return False
        try:
            return await self._write_replicas(groups)
        except asyncpg.UndefinedColumnError as error:
            known, self.replicas = self.replicas, await replicas_of(self.database.pool, self.service)
            if self.replicas == known:
                raise
            raise TablesChanged(repr(error)) from error

    async def _write_replicas(self, groups: Groups) -> bool:
        async with self.database.transaction() as tx:
            progresses = await positions.lock(tx, REPLICAS, groups, jump=True)
            await self._lock_streams(tx, progresses, set())
            await replicas.apply(tx, self.replicas, (c for p in progresses for c in p.ready))
            failpoint("replica")
            await positions.save(tx, REPLICAS, progresses)
        metrics.changes_applied.labels(REPLICAS).inc(sum(len(p.ready) for p in progresses))
        return any(p.unfinished for p in progresses)

    # Followers

    async def _apply_followers(self, groups: Groups) -> bool:
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
        return any(p.unfinished for p in progresses)

    # Reactions

    def _calls(self, change: Change) -> list[Call]:
        calls = []
        for reaction in self._reactions_to(change):
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

    async def _attempt_lane(self, groups: Groups) -> bool:
        """Runs a lane, and again when a reaction fails in it: first with a savepoint around that reaction on that stream, in the end around all."""
        groups = await self._without_passed(REACTIONS, groups)
        if not groups:
            return False
        suspects: set[Suspect] = set()
        for _ in range(SUSPICIONS):
            try:
                return await self._run_lane(groups, suspects)
            except Failed as failed:
                log.info("a lane failed, running it with savepoints", extra={"error": repr(failed.__cause__)})
                suspects |= failed.suspects
        return await self._run_lane(groups, None)

    async def _run_lane(self, groups: Groups, suspects: set[Suspect] | None) -> bool:
        """``suspects`` run in a savepoint each, and are parked when they fail; None: all do."""
        careful = suspects is None or bool(suspects)
        async with self.database.transaction() as tx:
            progresses = await positions.lock(tx, REACTIONS, groups, jump=False)
            calls = [(p, call) for p in progresses for c in p.ready for call in self._calls(c)]
            await self._lock_streams(tx, progresses, {call.target for _, call in calls} | ({FUSES} if careful and calls else set()))
            runner = Runner(tx, await parking.held_back(tx, (call.change for _, call in calls)) if calls else NOTHING_HELD_BACK, suspects)
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
        return any(p.unfinished for p in progresses)

    async def _lock_streams(self, tx: Tx, progresses: list[Progress], targets: set[str]) -> None:
        if any(p.gap or p.raised for p in progresses):
            targets = targets | {RESEND}
        if targets:
            await tx.run("SELECT lock_streams($1)", sorted(targets))

    async def _kit_records(self, tx: Tx, progresses: list[Progress]) -> None:
        """What the kit itself reacts to: heads, new incarnations, requests to send our own changes again, orders of operators."""
        for change in (c for p in progresses for c in p.ready):
            if change.table == HEADS:
                await self._expect(tx, change)
            elif change.table == "incarnation":
                await self._expect_the_lost(tx, change)
            elif change.table == "resend_requests" and change.after and change.after["source"] == self.service and not change.after["closed_at"]:
                await tx.run("SELECT send_again($1, $2, $3)", change.after["stream"], change.after["from_seq"], change.after["to_seq"])
                metrics.resends.inc()
                failpoint("resend")
            elif await orders.take(tx, change):
                tx.after_commit.append(self.database.waker(orders.ORDERED).set)

    async def _expect_the_lost(self, tx: Tx, change: Change) -> None:
        """A restored source restates all that it has. Of a stream that it has lost nothing comes, so its beginning is expected in a minute."""
        await tx.run(
            "INSERT INTO expected AS e (reader, source, stream, epoch, seq, postponed_at) SELECT reader, source, stream, $2, first_number($2), now() + interval '1 minute' "
            "FROM positions WHERE source = $1 AND reader = ANY($3) AND epoch > 0 AND epoch < $2 "
            "ON CONFLICT (reader, source, stream) DO UPDATE SET epoch = excluded.epoch, seq = excluded.seq, postponed_at = excluded.postponed_at WHERE e.epoch < excluded.epoch",
            change.source, change.epoch, [REPLICAS, REACTIONS],
        )  # fmt: skip

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

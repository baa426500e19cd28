"""Positions: which changes of a batch are new, which are duplicates, and which wait for one that is missing.

The position of a stream commits together with the effect of its changes; that is what makes an effect happen exactly once.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from shared.changes import RESTATE, Change, decode
from shared.tx import Database, Tx

HELD_AT_ONCE = 2000
Key = tuple[str, str]
"""(source service, stream)"""

REPLICAS, REACTIONS, FOLLOWERS = "replicas", "reactions", "followers"
READERS = (REPLICAS, REACTIONS, FOLLOWERS)
"""Who keeps positions: each reader applies every change of the streams it follows once, on its own."""


@dataclass
class Progress:
    """One stream of one source while a batch is being applied."""

    key: Key
    epoch: int
    seq: int
    parked: frozenset[str]
    ready: list[Change] = field(default_factory=list)
    hold: dict[int, Change] = field(default_factory=dict)
    release: list[int] = field(default_factory=list)
    moved: bool = False
    raised: bool = False
    holds_more: bool = False
    """More is held than one transaction takes: what can be applied now is not all."""

    def offer(self, change: Change, *, jump: bool) -> None:
        """Sorts one change into ready, held or already seen.

        ``jump``: any restatement closes a gap by replacing what is missing. Without it only one that a person ordered does; what
        was held behind the gap comes first, in order.
        """
        if change.epoch < self.epoch:
            return
        if change.epoch > self.epoch:
            self._start_over(change.epoch)
        if change.seq <= self.seq:
            return
        if change.seq > self.seq + 1:
            said = change.after or {}
            starts = change.table == RESTATE and said.get("marker") == "start"
            if not starts or not (jump or self.seq == 0 or said.get("ordered")):
                self.hold[change.seq] = change
                return
            self.ready.extend(self.hold.pop(seq) for seq in sorted(self.hold) if seq < change.seq)
        self._take(change)

    def _start_over(self, epoch: int) -> None:
        """Another incarnation of the source: its numbers, and what is held of the old one's, mean nothing any more."""
        self.raised = self.epoch > 0
        self.epoch, self.seq, self.moved = epoch, 0, True
        self.hold.clear()

    def take_held(self) -> None:
        """Goes on with what is held, where that is the very next."""
        self._take(self.hold.pop(self.seq + 1, None))

    @property
    def unfinished(self) -> bool:
        """Whether more of what is held can be applied, in another transaction."""
        return self.holds_more and self.release[-1] <= self.seq

    def _take(self, change: Change | None) -> None:
        while change is not None:
            self.ready.append(change)
            self.seq, self.moved = change.seq, True
            change = self.hold.pop(self.seq + 1, None)

    @property
    def gap(self) -> tuple[int, int] | None:
        """The numbers that are missing before the first held change."""
        if self.unfinished:
            return None
        waiting = [s for s in self.hold if s > self.seq]
        return (self.seq + 1, min(waiting) - 1) if waiting else None


async def lock(tx: Tx, reader: str, groups: Mapping[Key, Iterable[Change]], *, jump: bool) -> list[Progress]:
    """Locks the positions of these streams and sorts their changes. The first thing a consuming transaction does."""
    keys = sorted(groups)
    rows = await tx.records("SELECT * FROM lock_positions($1, $2, $3)", reader, [k[0] for k in keys], [k[1] for k in keys])
    found = {(r["source"], r["stream"]): r for r in rows}
    result = []
    for key in keys:
        r = found[key]
        progress = Progress(key, r["epoch"], r["seq"], frozenset(r["parked"]))
        if r["holding"]:
            restated = any(change.table == RESTATE for change in groups[key])  # closes a gap behind all that is held
            await _load_held(tx, reader, progress, None if restated else HELD_AT_ONCE)
            progress.take_held()
        for change in groups[key]:
            progress.offer(change, jump=jump)
        result.append(progress)
    return result


async def pass_over(database: Database, reader: str, groups: Mapping[Key, Sequence[Change]]) -> set[Key]:
    """Moves past changes that a reader has nothing to do about. Answers the streams in which it did: those where they are the very next, and
    nothing is held. The others are for :func:`lock` to sort.
    """
    following = {key: changes for key, changes in groups.items() if all(b.seq == a.seq + 1 and b.epoch == a.epoch for a, b in pairwise(changes))}
    async with database.session() as connection:
        rows = await connection.fetch(
            "SELECT * FROM pass_positions($1, $2, $3, $4, $5, $6)", reader,
            [source for source, _ in following], [stream for _, stream in following],
            [changes[0].epoch for changes in following.values()], [changes[0].seq - 1 for changes in following.values()],
            [changes[-1].seq for changes in following.values()],
        )  # fmt: skip
    return {(r["source"], r["stream"]) for r in rows}


async def _load_held(tx: Tx, reader: str, progress: Progress, most: int | None) -> None:
    source, stream = progress.key
    rows = await tx.records(
        "SELECT seq, record FROM held WHERE reader = $1 AND source = $2 AND stream = $3 ORDER BY seq LIMIT $4", reader, source, stream, most
    )
    for r in rows:
        progress.hold[r["seq"]] = decode(source, r["record"])
        progress.release.append(r["seq"])
    progress.holds_more = len(rows) == most


async def save(tx: Tx, reader: str, progresses: Iterable[Progress]) -> None:
    """Moves the positions and keeps what still waits. Where there are gaps or new epochs ``global:resend`` is locked."""
    moved = [p for p in progresses if p.moved]
    if moved:
        await tx.run(
            "SELECT set_positions($1, $2, $3, $4, $5)",
            reader,
            [p.key[0] for p in moved],
            [p.key[1] for p in moved],
            [p.epoch for p in moved],
            [p.seq for p in moved],
        )
    for p in progresses:
        if p.hold or p.release or p.raised:
            await _save_held(tx, reader, p)


async def _save_held(tx: Tx, reader: str, p: Progress) -> None:
    source, stream = p.key
    if p.raised:
        await tx.run("DELETE FROM held WHERE reader = $1 AND source = $2 AND stream = $3", reader, source, stream)
    elif done := [s for s in p.release if s not in p.hold or s <= p.seq]:
        await tx.run("DELETE FROM held WHERE reader = $1 AND source = $2 AND stream = $3 AND seq = ANY($4)", reader, source, stream, done)
    waiting = [c for s, c in p.hold.items() if s > p.seq and (p.raised or s not in p.release)]
    if waiting:
        await tx.run(
            "INSERT INTO held (reader, source, stream, seq, record) SELECT $1, $2, $3, * FROM unnest($4::bigint[], $5::text[]) ON CONFLICT DO NOTHING",
            reader, source, stream, [c.seq for c in waiting], [c.raw for c in waiting],
        )  # fmt: skip
    if p.raised:
        await tx.run("UPDATE resend_requests SET closed_at = now() WHERE source = $1 AND stream = $2 AND closed_at IS NULL", source, stream)
    if p.gap:
        await ask_again(tx, source, stream, *p.gap)


async def ask_again(tx: Tx, source: str, stream: str, first: int, last: int) -> None:
    """Asks the owner of a stream to send these numbers once more; the request is a row that travels.

    A service that misses its own changes sends them at once: its request might lie behind the very hole it is about.
    """
    await tx.run(
        "INSERT INTO resend_requests (source, stream, from_seq, to_seq) VALUES ($1, $2, $3, $4) "
        "ON CONFLICT (source, stream, from_seq) DO UPDATE SET to_seq = excluded.to_seq, closed_at = NULL "
        "WHERE resend_requests.to_seq < excluded.to_seq OR resend_requests.closed_at IS NOT NULL",
        source, stream, first, last,
    )  # fmt: skip
    if source == tx.service:
        await tx.run("SELECT send_again($1, $2, $3)", stream, first, last)

"""Parking: a reaction that fails on a stream waits with that stream's later changes while everything else flows.

Every parked pair (reaction, stream) is retried with back-off for a day and is dead after that until a person acts. When one
reaction fails on many streams its fuse blows: new changes wait without an attempt, and one stream at a time is tried, so
that a bad deployment does not bury a day of changes. The rows are published: the console shows them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from shared.changes import Change
from shared.errors import NotYet
from shared.tx import Tx

PARKED = "parked"
"""Who is woken when something is parked."""
FUSE_STREAMS = 10
MAX_HOPS = 32
DEAD_AFTER = timedelta(hours=24)
_FIRST, _LONGEST = 1.0, 300.0
_NOT_YET_FIRST, _NOT_YET_LONGEST = 0.05, 5.0


class TooManyHops(Exception):
    """The change is the thirty-second of a chain of causes: reactions that cause each other for ever."""


@dataclass(frozen=True)
class Failure:
    """What a reaction raised on a change."""

    error: Exception

    @property
    def text(self) -> str:
        """Kind and message, without the values of the row: PostgreSQL's DETAIL, which quotes them, stays behind."""
        message = str(self.error).splitlines()[0] if str(self.error) else ""
        return f"{type(self.error).__name__}: {message}"[:500]

    @property
    def state(self) -> str:
        if isinstance(self.error, TooManyHops):
            return "dead"
        return "waiting" if isinstance(self.error, NotYet) else "retrying"

    def delay(self, attempt: int) -> timedelta:
        """Until the next attempt, after this many."""
        first, longest = (_NOT_YET_FIRST, _NOT_YET_LONGEST) if self.state == "waiting" else (_FIRST, _LONGEST)
        return timedelta(seconds=min(longest, first * 2 ** min(attempt - 1, 16)))


async def park(tx: Tx, reaction: str, change: Change, target: str, failure: Failure) -> None:
    """Parks a reaction for the change's stream, starting with this change. ``target`` is locked."""
    await tx.run(
        "INSERT INTO parked (reaction, source, stream, target, state, next_at, error, flow_id, change) "
        "VALUES ($1, $2, $3, $4, $5, now() + $6, $7, $8, $9) ON CONFLICT (reaction, source, stream) DO NOTHING",
        reaction, change.source, change.stream, target, failure.state, failure.delay(1), failure.text, change.context.flow_id, change.name,
    )  # fmt: skip
    await queue(tx, reaction, change)


async def queue(tx: Tx, reaction: str, change: Change) -> None:
    """Adds a change behind those that already wait for this reaction."""
    await tx.run(
        "INSERT INTO parked_changes (reaction, source, stream, epoch, seq, record) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
        reaction, change.source, change.stream, change.epoch, change.seq, change.raw,
    )  # fmt: skip


async def failing_streams(tx: Tx, reaction: str) -> int:
    return int(await tx.value("SELECT count(*) FROM parked WHERE reaction = $1 AND state = 'retrying'", reaction))


async def blow_fuse(tx: Tx, reaction: str, failure: Failure) -> None:
    """Holds the reaction: ``global:fuses`` is locked."""
    await tx.run("INSERT INTO fuses (reaction, error) VALUES ($1, $2) ON CONFLICT DO NOTHING", reaction, failure.text)


class HeldBack(NamedTuple):
    """What is not to be run: reactions whose fuse is blown wait, flows that an operator has cancelled go no further."""

    reactions: frozenset[str]
    flows: frozenset[UUID]


async def held_back(tx: Tx, changes: Iterable[Change]) -> HeldBack:
    """What of these changes is not to be run."""
    flows = {c.context.flow_id for c in changes if c.context.flow_id}
    rows = await tx.records(
        "SELECT reaction, NULL::uuid AS flow_id FROM fuses UNION ALL SELECT NULL, flow_id FROM orders_taken WHERE act = 'cancel' AND flow_id = ANY($1)",
        list(flows),
    )
    return HeldBack(frozenset(r["reaction"] for r in rows if r["reaction"]), frozenset(r["flow_id"] for r in rows if r["flow_id"]))

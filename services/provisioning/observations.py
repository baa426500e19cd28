"""What a data plane has confirmed of what it was told: one set of rules for tenants, databases and logins.

Each is a row with ``generation`` (wanted) and ``observed`` (confirmed); its state follows from them.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar
from uuid import UUID

from pydantic import BaseModel

from schemas.feed import Observed
from services.provisioning import feed, kafka_grants
from shared.tx import Tx

R = TypeVar("R", bound=BaseModel)


@dataclass(frozen=True)
class Kind(Generic[R]):
    """A table of resources. In its SQL conditions ``$3`` is the state that was seen."""

    name: feed.Kind
    table: str
    row: type[R]
    say: Callable[[Tx, list[R]], Awaitable[None]]
    key: str = "id"
    removed: str = "false"
    """It is to be gone: a tombstone was said."""
    as_wanted: str = "true"
    """The state that was seen is the one wanted (once the generation is)."""


async def observe(tx: Tx, kind: Kind[R], seen: Observed) -> R | None:
    """Takes in what was seen. Answers the row when that is news: it is now as wanted."""
    if seen.state == "failed":
        await tx.run(f"UPDATE {kind.table} SET error = $3 WHERE {kind.key} = $1 AND generation = $2", seen.resource, seen.generation, seen.error)
        return None
    confirmed = await tx.maybe(
        kind.row,
        f"UPDATE {kind.table} SET observed = generation, error = NULL, repeats = 0 WHERE {kind.key} = $1 AND (observed < generation OR error IS NOT NULL) "
        f"AND CASE WHEN $3 = 'gone' THEN {kind.removed} ELSE NOT {kind.removed} AND generation = $2 AND {kind.as_wanted} END RETURNING *",
        seen.resource, seen.generation, seen.state,
    )  # fmt: skip
    if confirmed:
        await tx.unschedule(feed.unobserved(kind.name), seen.resource)
    else:
        await _say_what_it_missed(tx, kind, seen)
    return confirmed


async def _say_what_it_missed(tx: Tx, kind: Kind[R], seen: Observed) -> None:
    """An agent that went back behind what it had confirmed, or is ahead of us because we were restored, is told again."""
    ahead = f"($2 > generation OR $2 = generation AND $3 = 'gone' AND NOT {kind.removed})"
    behind = f"(observed = generation AND $3 <> 'gone' AND ($2 < generation OR {kind.removed}))"
    missed = await tx.all(
        kind.row,
        f"UPDATE {kind.table} SET generation = CASE WHEN {ahead} THEN $2 + 1 ELSE generation END WHERE {kind.key} = $1 AND ({ahead} OR {behind}) RETURNING *",
        seen.resource, seen.generation, seen.state,
    )  # fmt: skip
    await kind.say(tx, missed)


async def observe_all(tx: Tx, kind: Kind[R], present: list[UUID]) -> list[R]:
    """These are all that the data plane holds. What it has lost is said again; answers what was to go and is gone."""
    gone = await tx.all(
        kind.row,
        f"UPDATE {kind.table} SET observed = generation, error = NULL WHERE {kind.removed} AND observed < generation AND {kind.key} <> ALL($1) RETURNING *",
        present,
    )
    lost = await tx.all(
        kind.row, f"SELECT * FROM {kind.table} WHERE NOT {kind.removed} AND generation > 0 AND observed = generation AND {kind.key} <> ALL($1)", present
    )
    await _say_again(tx, kind, lost)
    return gone


async def repeat(tx: Tx, kind: Kind[R], id: UUID) -> None:
    """Says it again when the data plane has not confirmed it."""
    late = await tx.all(kind.row, f"UPDATE {kind.table} SET repeats = repeats + 1 WHERE {kind.key} = $1 AND observed < generation RETURNING *", id)
    await _say_again(tx, kind, late)


async def _say_again(tx: Tx, kind: Kind[R], unheard: list[R]) -> None:
    if unheard:
        await kafka_grants.make_sure(tx)
        await kind.say(tx, unheard)

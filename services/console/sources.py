"""Sources: how new the data of each service is, which is the time at which the console judges."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from shared.changes import HEADS, Change
from shared.settings import settings
from shared.tx import Tx


@dataclass(frozen=True)
class Age:
    """What the console's data reach to.

    ``now``: the data's time, that of the newest change of any service: while the bus stands still, nothing becomes overdue.
    ``complete``: nothing that any service committed before this is missing here; None when that is not known.
    """

    now: datetime | None
    complete: datetime | None


async def note(tx: Tx, changes: Iterable[Change]) -> None:
    """Remembers the newest change, and the newest announcement of heads, of each service."""
    newest: dict[str, dict[str, Any]] = {}
    for c in changes:
        row = newest.setdefault(c.source, {"source": c.source, "newest_at": c.at, "heads_at": None})
        row["newest_at"] = max(row["newest_at"], c.at)
        if c.table == HEADS:
            row["heads_at"] = max(row["heads_at"] or c.at, c.at)
    await tx.run(
        "INSERT INTO sources AS s SELECT * FROM jsonb_populate_recordset(NULL::sources, $1) ON CONFLICT (source) DO UPDATE "
        "SET newest_at = greatest(s.newest_at, excluded.newest_at), heads_at = greatest(s.heads_at, excluded.heads_at)",
        orjson.dumps([newest[source] for source in sorted(newest)]).decode(),
    )


async def age(tx: Tx) -> Age:
    rows = await tx.records("SELECT source, newest_at, heads_at, EXISTS (SELECT FROM expected e WHERE e.source = s.source) AS missing FROM sources s")
    heads = {r["source"]: r["heads_at"] for r in rows if r["heads_at"] and not r["missing"]}
    wanted = settings().mesh_services.split(",")
    complete = min(heads[s] for s in wanted) if all(s in heads for s in wanted) else None
    return Age(max((r["newest_at"] for r in rows), default=None), complete)


async def oldest_age_ms(tx: Tx) -> int | None:
    """How old the newest data of the service that was heard of longest ago are; None before anything was heard."""
    value: int | None = await tx.value("SELECT (extract(epoch FROM clock_timestamp() - min(newest_at)) * 1000)::bigint FROM sources")
    return None if value is None else max(0, value)

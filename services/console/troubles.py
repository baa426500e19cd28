"""Troubles: what is parked, failing or held by a fuse in any service now, from the rows that every service's kit publishes."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import orjson

from shared.changes import Change
from shared.errors import NotFound
from shared.tx import Tx

State = Literal["waiting", "retrying", "dead"]
_TABLES = frozenset({"parked", "fuses", "failing_work"})


@dataclass(frozen=True)
class Trouble:
    """``actor`` fails on what flow ``flow_id`` (or another flow of the same stream before it) asked of it. A fuse has no target: it holds everybody.

    ``about``: what waits for it. ``change``: the first of what waits, for a reaction.
    """

    actor: str
    target: str | None
    flow_id: UUID | None
    state: State
    attempt: int
    error: str
    about: str = ""
    change: str | None = None
    since: datetime | None = None

    @property
    def is_fuse(self) -> bool:
        return self.target is None


async def note(tx: Tx, changes: Iterable[Change]) -> list[Trouble]:
    """Brings the present troubles to what the changes say and answers those that came, changed or went."""
    latest = {(c.source, row["actor"], row["about"]): (row, c.op == "delete") for c in changes if c.table in _TABLES and (row := _row(c))}
    if not latest:
        return []
    gone = [row for row, deleted in latest.values() if deleted]
    there = [row for row, deleted in latest.values() if not deleted]
    await tx.run(
        "DELETE FROM troubles t USING jsonb_populate_recordset(NULL::troubles, $1) r WHERE t.service = r.service AND t.actor = r.actor AND t.about = r.about",
        orjson.dumps(gone, default=str).decode(),
    )
    columns = ("service", "actor", "about", "target", "flow_id", "change", "state", "attempt", "error", "since")
    await tx.run(
        f"INSERT INTO troubles ({', '.join(columns)}) SELECT {', '.join(columns)} FROM jsonb_populate_recordset(NULL::troubles, $1) "
        f"ON CONFLICT (service, actor, about) DO UPDATE SET {', '.join(f'{c} = excluded.{c}' for c in columns[3:-1])}",
        orjson.dumps(there, default=str).decode(),
    )
    return [_trouble(row) for row, _ in latest.values()]


def _row(change: Change) -> dict[str, Any]:
    r = change.row
    common = {"service": change.source, "since": change.at, "error": r["error"], "change": None}
    match change.table:
        case "parked":
            about, rest = f"{r['source']}/{r['stream']}", {"actor": r["reaction"], "target": r["target"], "flow_id": r["flow_id"]}
            return common | rest | {"about": about, "state": r["state"], "attempt": r["attempt"], "change": r["change"]}
        case "failing_work":
            rest = {"actor": r["worker"], "target": r["target"], "flow_id": r["flow_id"], "about": f"{r['kind']}/{r['target']}/{r['id']}"}
            return common | rest | {"state": "retrying", "attempt": r["attempt"]}
        case _:
            return common | {"actor": r["reaction"], "target": None, "flow_id": None, "about": "fuse", "state": "retrying", "attempt": 0}


async def of(tx: Tx, targets: dict[UUID, Sequence[str]]) -> dict[UUID, list[Trouble]]:
    """The troubles that may concern each flow, given the streams it wrote: its own, those of its streams, and fuses."""
    streams = sorted({s for ss in targets.values() for s in ss})
    rows = await tx.records("SELECT * FROM troubles WHERE flow_id = ANY($1) OR target = ANY($2) OR target IS NULL", list(targets), streams)
    troubles = [_trouble(dict(r)) for r in rows]
    found: dict[UUID, list[Trouble]] = defaultdict(list)
    for flow_id, streams_of_flow in targets.items():
        found[flow_id] = [t for t in troubles if t.flow_id == flow_id or t.is_fuse or t.target in streams_of_flow]
    return found


async def get(tx: Tx, id: UUID) -> Trouble:
    """Raises :class:`NotFound` when it is over."""
    rows = await tx.records("SELECT * FROM troubles WHERE id = $1", id)
    if not rows:
        raise NotFound("It is not parked or failing any more.")
    return _trouble(dict(rows[0]))


def _trouble(row: dict[str, Any]) -> Trouble:
    flow_id = row["flow_id"]
    told = (row["state"], row["attempt"], row["error"], row["about"], row["change"], row["since"])
    return Trouble(row["actor"], row["target"], UUID(str(flow_id)) if flow_id else None, *told)

"""History: every change of every service, kept as who did what when, without the values of rows."""

import importlib
import pkgutil
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from pydantic import BaseModel

import schemas
from schemas.flows import FLOWS
from shared.changes import Change, Context, stream_id
from shared.rows import Row
from shared.tx import Tx

KIT_TABLES = frozenset({"_heads", "_restate", "parked", "fuses", "resend_requests", "failing_work"})
_FALLBACK_KEYS = ("id", "org_id", "user_id", "order_id")


def _rows() -> dict[str, type[Row]]:
    for module in pkgutil.iter_modules(schemas.__path__):
        importlib.import_module(f"schemas.{module.name}")
    return {row.table: row for row in Row.__subclasses__()}


def _facts() -> dict[str, set[str]]:
    """The columns whose values flows look at, by table."""
    columns: dict[str, set[str]] = defaultdict(set)
    for flow in FLOWS.values():
        for pattern in flow.patterns:
            columns[pattern.row.table].update(pattern.values)
        for step in flow.steps:
            if step.failing:
                columns[step.row.table].add("error")
    return columns


_KEYS = {table: row.key for table, row in _rows().items()}
_FACTS = _facts()

ORDERS, RESULTS = "orders", "order_results"
_ORDERED = {ORDERS: {"act", "actors"}, RESULTS: {"order_id", "act", "actor", "subject", "did", "outcome"}}
"""What operators did and what came of it, in whichever service: facts about the flow it concerns."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One change of the history, with what is known of its cause. ``change`` holds only the columns that flows look at."""

    change: Change
    key: str
    cause_at: datetime | None = None
    cause_flow: UUID | None = None

    @property
    def ref(self) -> tuple[str, str]:
        """The row: its table and its key."""
        return f"{self.change.source}.{self.change.table}", self.key

    @property
    def flow_id(self) -> UUID | None:
        return self.change.context.flow_id

    @property
    def at(self) -> datetime:
        return self.change.at


class Entry(BaseModel):
    """One line of the audit trail."""

    id: UUID
    at: datetime
    by: str | None
    service: str
    table: str
    op: str
    key: dict[str, Any]
    columns: list[str]
    flow_id: UUID | None
    cause: str | None
    act: str | None = None
    """What an operator ordered: retry, skip, cancel, resend, restate."""


_TRAIL = """
SELECT md5(name)::uuid AS id, at AS created_at, at, by, split_part("table", '.', 1) AS service, split_part("table", '.', 2) AS "table",
    op, key::jsonb AS key, columns, flow_id, cause, facts ->> 'act' AS act
FROM history WHERE """
AUDIT = f"{_TRAIL} org_id = (SELECT tenant())"
OF_OPERATORS = f"{_TRAIL} by = 'operator'"


def is_told(change: Change) -> bool:
    """Whether the change is somebody's doing: neither the kit's own record nor a restatement of what was told before."""
    return change.table not in KIT_TABLES and change.op != "restate"


def matters_to_flows(change: Change) -> bool:
    return _looked_at(change) is not None


def _looked_at(change: Change) -> set[str] | None:
    """The columns of the change that are kept with their values: none where a flow asks for the row alone, None where nobody asks."""
    return _FACTS.get(f"{change.source}.{change.table}", _ORDERED.get(change.table))


def key_of(change: Change) -> str:
    """The row's key as JSON text, the same for every change of the row."""
    row = change.row
    columns = _KEYS.get(f"{change.source}.{change.table}") or tuple(c for c in _FALLBACK_KEYS if c in row)
    return orjson.dumps({c: row.get(c) for c in columns}).decode()


async def keep(tx: Tx, changes: Iterable[Change]) -> None:
    """Keeps changes of any tenants, once each."""
    rows = [_line(c) for c in changes]
    if rows:
        await tx.run(
            'INSERT INTO history (name, stream, org_id, at, by, flow_id, cause, "table", op, key, columns, facts) '
            'SELECT name, stream, org_id, at, by, flow_id, cause, "table", op, key, columns, facts '
            "FROM jsonb_populate_recordset(NULL::history, $1) ON CONFLICT DO NOTHING",
            orjson.dumps(rows, default=str).decode(),
        )


def _line(change: Change) -> dict[str, Any]:
    table = f"{change.source}.{change.table}"
    looked_at = _looked_at(change)
    return {
        "name": change.name,
        "stream": change.stream,
        "org_id": stream_id(change.stream, "org") or (change.row.get("org_id") if change.table == ORDERS else None),
        "at": change.at,
        "by": change.context.by,
        "flow_id": change.context.flow_id,
        "cause": change.context.cause,
        "table": table,
        "op": change.op,
        "key": key_of(change),
        "columns": sorted(change.before if change.op == "update" and change.before else change.row),
        "facts": None if looked_at is None else {c: change.row.get(c) for c in looked_at},
    }


_LOAD = """
SELECT h.*, c.at AS cause_at, c.flow_id AS cause_flow FROM history h LEFT JOIN history c ON c.name = h.cause
WHERE h.facts IS NOT NULL AND """


class Stay(BaseModel):
    """A row that a flow wrote and that is still there."""

    service: str
    table: str
    key: dict[str, Any]
    at: datetime


async def staying(tx: Tx, flow_id: UUID) -> list[Stay]:
    """The rows that a flow has written and nobody deleted since, as far as the transaction may see."""
    return await tx.all(
        Stay,
        """SELECT split_part("table", '.', 1) AS service, split_part("table", '.', 2) AS "table", key::jsonb AS key, max(at) AS at
        FROM history h WHERE flow_id = $1 AND split_part("table", '.', 2) <> ALL ($2)
            AND NOT EXISTS (SELECT FROM history d WHERE d.flow_id = $1 AND d."table" = h."table" AND d.key = h.key AND d.op = 'delete')
        GROUP BY h."table", h.key ORDER BY 4""",
        flow_id, [ORDERS, RESULTS],
    )  # fmt: skip


async def of_flows(tx: Tx, flow_ids: Sequence[UUID]) -> dict[UUID, list[Seen]]:
    """What these flows wrote, by flow."""
    found: dict[UUID, list[Seen]] = defaultdict(list)
    for r in await tx.records(f"{_LOAD} h.flow_id = ANY($1)", flow_ids):
        found[r["flow_id"]].append(_seen(r))
    return found


async def of_rows(tx: Tx, refs: Iterable[tuple[str, str]], since: datetime) -> dict[tuple[str, str], list[Seen]]:
    """What anybody wrote to these rows from a time on, by row."""
    wanted = sorted(refs)
    found: dict[tuple[str, str], list[Seen]] = defaultdict(list)
    sql = f'{_LOAD} (h."table", h.key) IN (SELECT * FROM unnest($1::text[], $2::text[])) AND h.at >= $3'
    for r in await tx.records(sql, [t for t, _ in wanted], [k for _, k in wanted], since):
        seen = _seen(r)
        found[seen.ref].append(seen)
    return found


def _seen(r: Any) -> Seen:
    source, _, table = r["table"].partition(".")
    epoch, _, seq = r["name"].rpartition("/")[2].partition(".")
    context = Context(r["by"], r["flow_id"], r["cause"])
    gone, new = r["op"] == "delete", r["op"] == "insert"
    before = r["facts"] if gone else None if new else dict.fromkeys(r["columns"])
    change = Change(source, r["stream"], int(seq), int(epoch), table, r["op"], r["at"], context, before, None if gone else r["facts"], "")
    return Seen(change, r["key"], r["cause_at"], r["cause_flow"])

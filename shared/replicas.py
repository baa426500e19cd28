"""Replicas: copies of other services' rows, applied in bulk by a role that may do nothing else, before any reaction sees them."""

from collections.abc import Iterable
from dataclasses import dataclass

import asyncpg
import orjson

from shared.changes import RESTATE, Change
from shared.tx import Tx


@dataclass(frozen=True)
class Replica:
    """A local copy of ``source`` (``<service>.<table>``) holding the columns the local table has."""

    table: str
    source: str
    columns: tuple[str, ...]
    key: tuple[str, ...]

    @property
    def upsert(self) -> str:
        columns = ", ".join(f'"{c}"' for c in self.columns)
        key = ", ".join(f'"{c}"' for c in self.key)
        updates = ", ".join(f'"{c}" = excluded."{c}"' for c in self.columns if c not in self.key)
        return (
            f'INSERT INTO "{self.table}" ({columns}) SELECT {columns} FROM jsonb_populate_recordset(NULL::"{self.table}", $1) '
            f"ON CONFLICT ({key}) DO UPDATE SET {updates}"
        )

    @property
    def delete(self) -> str:
        match = " AND ".join(f't."{c}" = r."{c}"' for c in self.key)
        return f'DELETE FROM "{self.table}" t USING jsonb_populate_recordset(NULL::"{self.table}", $1) r WHERE {match}'

    @property
    def drop_unseen(self) -> str:
        return f'DELETE FROM "{self.table}" WHERE _stream = $1 AND _seq < $2'


async def replicas_of(pool: asyncpg.Pool, service: str) -> dict[str, Replica]:
    """The replicas that the service's migrations declare, by their source."""
    rows = await pool.fetch(
        """SELECT r.name, r.source, array_agg(a.attname::text ORDER BY a.attnum) AS columns,
                  array_agg(a.attname::text ORDER BY a.attnum) FILTER (WHERE a.attnum = ANY (i.indkey)) AS key
           FROM replicas r JOIN pg_class c ON c.oid = (quote_ident($1) || '.' || quote_ident(r.name))::regclass
           JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
           JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped GROUP BY 1, 2""",
        service,
    )
    return {r["source"]: Replica(r["name"], r["source"], tuple(r["columns"]), tuple(r["key"])) for r in rows}


async def apply(tx: Tx, replicas: dict[str, Replica], changes: Iterable[Change]) -> None:
    """Brings the copies to what the changes say. Changes of a stream come in order; of a row only the last one counts."""
    rows: dict[str, dict[tuple[object, ...], Change]] = {}
    ends: list[Change] = []
    for change in changes:
        replica = replicas.get(f"{change.source}.{change.table}")
        if replica:
            rows.setdefault(replica.source, {})[tuple(change.row.get(c) for c in replica.key)] = change
        elif change.table == RESTATE and (change.after or {}).get("marker") == "end":
            ends.append(change)
    if not rows and not ends:
        return
    async with tx.in_bulk():
        for source, latest in rows.items():
            await _write(tx, replicas[source], latest.values())
        for end in ends:
            await _drop_unseen(tx, replicas.values(), end)


async def _drop_unseen(tx: Tx, replicas: Iterable[Replica], end: Change) -> None:
    """Removes what a restatement did not name."""
    for replica in replicas:
        if replica.source.startswith(f"{end.source}."):
            await tx.run(replica.drop_unseen, end.stream, (end.after or {})["since"])


async def _write(tx: Tx, replica: Replica, latest: Iterable[Change]) -> None:
    changes = list(latest)
    gone = [c.row for c in changes if c.op == "delete"]
    there = [c.row | {"_stream": c.stream, "_seq": c.seq} for c in changes if c.op != "delete"]
    if gone:
        await tx.run(replica.delete, orjson.dumps(gone).decode())
    if there:
        await tx.run(replica.upsert, orjson.dumps(there).decode())

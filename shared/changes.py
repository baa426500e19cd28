"""The change record as it travels: one JSON text a change, on topic ``<service>.changes``, keyed by its stream."""

import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal, get_args
from uuid import UUID

import orjson

Op = Literal["insert", "update", "delete", "restate"]
_OPS = frozenset(get_args(Op))

HEADS = "_heads"
RESTATE = "_restate"
"""Tables that are not tables: the kit's own records in a stream."""


class Undecodable(Exception):
    """These bytes are no change record; they are kept raw, and the hole they leave in their stream heals as a gap."""


@dataclass(frozen=True, slots=True)
class Context:
    """On whose behalf, in which flow, and because of what something is written. Travels into every record it causes."""

    by: str | None = None
    flow_id: UUID | None = None
    cause: str | None = None
    hops: int = 0
    traceparent: str | None = None

    def as_json(self) -> str:
        return orjson.dumps(self, default=str).decode()


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one row. ``before`` holds the changed columns only (all of them for a delete)."""

    source: str
    stream: str
    seq: int
    epoch: int
    table: str
    op: Op
    at: datetime
    context: Context
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    raw: str

    @property
    def row(self) -> dict[str, Any]:
        """The row as it is now, or as it last was for a delete."""
        return self.after if self.after is not None else self.before or {}

    @property
    def name(self) -> str:
        """Names this change for people and as the ``cause`` of others."""
        return f"{self.source}/{self.stream}/{self.epoch}.{self.seq}"

    @property
    def traceparent(self) -> str | None:
        return self.context.traceparent


def decode(source: str, value: bytes | str | None) -> Change:
    """Reads one record of ``<source>.changes``. Raises :class:`Undecodable` with the reason."""
    if value is None:
        raise Undecodable("no value")
    try:
        r = orjson.loads(value)
        _check_shape(r)
        flow_id = r.get("flow_id")
        return Change(
            source=source,
            stream=str(r["stream"]),
            seq=int(r["seq"]),
            epoch=int(r["epoch"]),
            table=str(r["table"]),
            op=r["op"],
            at=datetime.fromisoformat(r["at"]),
            context=Context(r.get("by"), UUID(flow_id) if flow_id else None, r.get("cause"), int(r.get("hops") or 0), r.get("traceparent")),
            before=r.get("before"),
            after=r.get("after"),
            raw=value if isinstance(value, str) else value.decode(),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Undecodable(f"{type(error).__name__}: {error}") from error


def _check_shape(record: dict[str, Any]) -> None:
    """Raises ValueError when what happened, or the row, is said in a way that we do not know."""
    op, before, after = record["op"], record.get("before"), record.get("after")
    if op not in _OPS:
        raise ValueError(f"unknown op {op!r:.40}")
    if not isinstance(before, dict | None) or not isinstance(after, dict | None) or (before if op == "delete" else after) is None:
        raise ValueError(f"no row of {op}")


def new_flow_id() -> UUID:
    """A flow's id tells when it was minted (UUID version 7), so that a reader who does not know it yet knows how long it may wait."""
    return UUID(int=(time.time_ns() // 1_000_000) << 80 | 7 << 76 | secrets.randbits(12) << 64 | 2 << 62 | secrets.randbits(62))


def minted_at(flow_id: UUID) -> datetime | None:
    """When a flow's id was minted; None for an id that no edge of this mesh has made."""
    return datetime.fromtimestamp((flow_id.int >> 80) / 1000, UTC) if flow_id.version == 7 else None


def stream_kind(stream: str) -> str:
    """``org`` for ``org:<uuid>``, ``user`` for ``user:<uuid>``, the whole name for ``global:<name>``."""
    kind = stream.partition(":")[0]
    return stream if kind == "global" else kind


@lru_cache(maxsize=16_384)
def stream_id(stream: str, kind: str) -> UUID | None:
    """The id in ``<kind>:<uuid>``, ``None`` for a stream of another kind. Remembered: every change asks several times."""
    prefix, _, rest = stream.partition(":")
    return UUID(rest) if prefix == kind else None

"""Lists: keyset pages with signed, opaque cursors."""

import base64
from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

from fastapi import Depends, Query, Request
from pydantic import BaseModel

from shared.errors import Refused
from shared.http.callers import Anyone
from shared.signing import is_signed, signature
from shared.tx import Tx

T = TypeVar("T", bound=BaseModel)
_CURSOR = "cursor"


class BadCursor(Refused):
    """The cursor was not made by this list for you. Start again without it."""

    status = 422


class Page(BaseModel, Generic[T]):
    """One page of a list; ``next`` is the cursor of the following one, or null."""

    items: list[T]
    next: str | None


class PageQuery:
    """``?limit=`` (default 50, at most 200) and ``?cursor=``."""

    def __init__(self, request: Request, caller: Anyone, limit: Annotated[int, Query(ge=1, le=200)] = 50, cursor: str | None = None) -> None:
        self.limit = limit
        self.list = f"{request.app.title} {request.url.path} of {caller.user_id}"
        """What a cursor belongs to. The path names the organization; what else a list shows depends on who asks."""
        self.after = _opened(self.list, cursor) if cursor else None


Paged = Annotated[PageQuery, Depends(PageQuery)]


async def page(tx: Tx, model: type[T], query: PageQuery, sql: str, *args: Any, newest_first: bool = False) -> Page[T]:
    """One page of what ``sql`` selects, which has the columns ``created_at`` and ``id``. Rows appear once while others come and go."""
    n = len(args)
    compare, order = ("<", "DESC") if newest_first else (">", "ASC")
    rows = await tx.records(
        f"SELECT * FROM ({sql}) q WHERE ${n + 1}::timestamptz IS NULL OR (created_at, id) {compare} (${n + 1}, ${n + 2}::uuid) "
        f"ORDER BY created_at {order}, id {order} LIMIT ${n + 3}",
        *args, *(query.after or (None, None)), query.limit + 1,
    )  # fmt: skip
    more = len(rows) > query.limit
    rows = rows[: query.limit]
    following = _sealed(query.list, rows[-1]["created_at"], rows[-1]["id"]) if more else None
    return Page[model](items=[model.model_validate(dict(r)) for r in rows], next=following)  # type: ignore[valid-type]


def _sealed(of: str, at: datetime, id: UUID) -> str:
    text = f"{at.isoformat()}|{id}"
    return base64.urlsafe_b64encode(f"{text}|{signature(_CURSOR, f'{of}|{text}')}".encode()).decode().rstrip("=")


def _opened(of: str, cursor: str) -> tuple[datetime, UUID]:
    try:
        text, _, signed = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().rpartition("|")
        if not is_signed(_CURSOR, f"{of}|{text}", signed):
            raise BadCursor
        at, _, id = text.partition("|")
        return datetime.fromisoformat(at), UUID(id)
    except ValueError as error:
        raise BadCursor from error

"""API keys: made once, shown once, known everywhere by their hash."""

import hashlib
from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel

from shared.errors import NotFound, Refused
from shared.http.callers import new_api_key
from shared.tx import Tx

Scope = Literal["read", "write"]


class Key(BaseModel):
    """An API key as its owner sees it later."""

    id: UUID
    name: str
    scopes: list[Scope]
    state: str
    expires_at: datetime | None
    created_at: datetime


class NewKey(Key):
    """An API key with its secret, shown this one time."""

    secret: str


LIST = "SELECT * FROM api_keys WHERE state = 'active'"


class BadExpiry(Refused):
    """An API key expires within a year from now, or not at all. Name a time in the future that is a year away at most."""

    status = 422


async def make(tx: Tx, owner: UUID, name: str, scopes: list[Scope], expires_at: datetime | None) -> NewKey:
    """Raises :class:`BadExpiry`."""
    if expires_at and not await tx.value("SELECT $1 > now() AND $1 <= now() + interval '1 year'", expires_at):
        raise BadExpiry
    secret = new_api_key(owner)
    key = await tx.one(
        Key,
        "INSERT INTO api_keys (user_id, name, secret_hash, scopes, expires_at) VALUES ($1, $2, $3, $4, $5) RETURNING *",
        owner, name, hashlib.sha256(secret.encode()).hexdigest(), scopes, expires_at,
    )  # fmt: skip
    return NewKey(**key.model_dump(), secret=secret)


async def revoke(tx: Tx, key_id: UUID) -> None:
    if not await tx.run("UPDATE api_keys SET state = 'revoked' WHERE id = $1 AND state = 'active'", key_id):
        raise NotFound


async def revoke_all(tx: Tx) -> None:
    """Of the person of this transaction."""
    await tx.run("UPDATE api_keys SET state = 'revoked' WHERE user_id = (SELECT person()) AND state = 'active'")

"""Addresses: whose is one, before a person is known."""

from uuid import UUID

from shared.tx import Tx


async def find(tx: Tx, email: str) -> UUID | None:
    user_id: UUID | None = await tx.value("SELECT user_id FROM addresses WHERE email = $1", email)
    return user_id

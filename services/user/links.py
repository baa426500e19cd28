"""Links in mails: a request row that travels without a secret, and the token that notification signs over it."""

from typing import Literal
from uuid import UUID

import jwt

from schemas.links import ALGORITHM, AUDIENCE
from schemas.user import LinkRequest
from shared.errors import Refused
from shared.tx import Tx

EXPIRES = "link_expires"
Purpose = Literal["verify", "reset", "address_taken"]
_LIFE = {"verify": "24 hours", "reset": "30 minutes", "address_taken": "24 hours"}
_GOOD = "id = $1 AND purpose = $2 AND state = 'open' AND expires_at > now()"


class LinkInvalid(Refused):
    """The link is forged, damaged or expired. Ask for a new one: at POST /verifications to verify an address, at POST /password-resets for a password."""

    status = 422


class LinkUsed(Refused):
    """The link was used already. If you need another, ask for it at POST /verifications to verify an address, at POST /password-resets for a password."""

    status = 409


async def request(tx: Tx, purpose: Purpose) -> None:
    """Asks for a mail with a link to the person of this transaction: one a minute for each purpose, whoever keeps asking."""
    made = await tx.records(
        "INSERT INTO link_requests (user_id, email, name, purpose, flow_id, expires_at) "
        "SELECT id, email, name, $1, $2, now() + $3::text::interval FROM users WHERE id = (SELECT person()) AND NOT EXISTS "
        "(SELECT FROM link_requests o WHERE o.user_id = users.id AND o.purpose = $1 AND o.created_at > now() - interval '1 minute') RETURNING id, expires_at",
        purpose, tx.context.flow_id, _LIFE[purpose],
    )  # fmt: skip
    for row in made:
        await tx.schedule(EXPIRES, row["id"], row["expires_at"])


async def expire(tx: Tx, request_id: UUID) -> None:
    """Nobody has followed the link in time: its flow ends."""
    await tx.run("UPDATE link_requests SET state = 'expired' WHERE id = $1 AND state = 'open'", request_id)


async def find(tx: Tx, token: str, purpose: Purpose) -> LinkRequest:
    """The request behind a token, which stays open. Raises :class:`LinkInvalid` or :class:`LinkUsed`."""
    request_id, user_id = await _verified(tx, token, purpose)
    await tx.enter(user=user_id)
    found = await tx.maybe(LinkRequest, f"SELECT * FROM link_requests WHERE {_GOOD}", request_id, purpose)
    if found is None:
        raise await _closed(tx, request_id)
    return found


async def use(tx: Tx, token: str, purpose: Purpose) -> LinkRequest:
    """Burns the request behind a token and enters its person's stream, continuing its flow.

    Raises :class:`LinkInvalid` or :class:`LinkUsed`.
    """
    request_id, user_id = await _verified(tx, token, purpose)
    await tx.enter(f"user:{user_id}", by=f"user:{user_id}")
    tx.continue_flow(await tx.value("SELECT flow_id FROM link_requests WHERE id = $1", request_id))
    used = await tx.maybe(LinkRequest, f"UPDATE link_requests SET state = 'used' WHERE {_GOOD} RETURNING *", request_id, purpose)
    if used is None:
        raise await _closed(tx, request_id)
    await tx.unschedule(EXPIRES, request_id)
    return used


async def _closed(tx: Tx, request_id: UUID) -> LinkUsed | LinkInvalid:
    state = await tx.value("SELECT state FROM link_requests WHERE id = $1", request_id)
    return LinkUsed() if state == "used" else LinkInvalid()


async def _verified(tx: Tx, token: str, purpose: Purpose) -> tuple[UUID, UUID]:
    try:
        key_id = UUID(jwt.get_unverified_header(token)["kid"])
        public = await tx.value("SELECT public_key FROM link_keys WHERE id = $1", key_id)
        if public is None:
            raise LinkInvalid
        claims = jwt.decode(token, public, algorithms=[ALGORITHM], audience=AUDIENCE, options={"require": ["exp", "sub", "jti"]})
        if claims.get("purpose") != purpose:
            raise LinkInvalid
        return UUID(claims["jti"]), UUID(claims["sub"])
    except (jwt.PyJWTError, KeyError, ValueError) as error:
        raise LinkInvalid from error

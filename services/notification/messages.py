"""Messages: one row for each recipient, made once, then mailed, cancelled or given up."""

from collections.abc import Mapping
from datetime import datetime
from email.message import EmailMessage
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from schemas.notification import Message, Template
from services.notification import letters, links
from services.notification.recipients import Recipient
from shared.errors import NotFound
from shared.tx import Tx

MAIL = "mail"
SECRET: frozenset[Template] = frozenset({"verify", "reset"})
"""Templates whose mail holds a link that is as good as a password: it is signed while the mail is written, and kept nowhere."""


class Received(BaseModel):
    """A message as its recipient reads it in the app. ``text`` is null where only the mail may hold the link."""

    id: UUID
    org_id: UUID | None
    template: Template
    about: UUID
    subject: str
    text: str | None
    created_at: datetime
    read_at: datetime | None


class Listed(BaseModel):
    """What was sent to whom, as the organization's admins see it."""

    id: UUID
    to: str
    user_id: UUID | None
    template: Template
    about: UUID
    subject: str
    state: str
    attempts: int
    error: str | None
    created_at: datetime
    sent_at: datetime | None


class _Stored(BaseModel):
    id: UUID
    user_id: UUID | None
    address: str
    template: Template
    about: UUID
    variables: dict[str, Any]
    expires_at: datetime | None
    expired: bool


MINE = "SELECT id, org_id, template, about, subject, body AS text, created_at, read_at FROM messages WHERE user_id = (SELECT person()) AND state <> 'cancelled'"
OF_ORG = "SELECT *, address AS to FROM messages WHERE org_id = (SELECT tenant())"


class TooLate(Exception):
    """A mail whose link has expired is not sent any more."""


async def queue(
    tx: Tx, template: Template, to: Recipient, about: UUID, variables: Mapping[str, Any], *, occasion: str = "", expires_at: datetime | None = None
) -> None:
    """Queues one message; the mail leaves right after the commit. A message that was made before is not made again.

    ``about`` is the row it is about. Give ``occasion`` when one row can be the cause more than once.
    """
    known = {"name": to.name, **variables}
    message_id = await tx.value(
        "INSERT INTO messages (user_id, address, template, about, occasion, subject, body, variables, expires_at) "
        "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING RETURNING id",
        to.user_id, to.address, template, about, occasion, letters.subject(template, known),
        None if template in SECRET else letters.render(template, known).text, known, expires_at,
    )  # fmt: skip
    if message_id:
        await tx.schedule(MAIL, message_id)


async def was_made(tx: Tx, template: Template) -> bool:
    """Whether the organization was told this before, whoever it was told to."""
    return bool(await tx.value("SELECT true FROM messages WHERE org_id = (SELECT tenant()) AND template = $1 LIMIT 1", template))


async def cancel_unsent(tx: Tx, about: UUID) -> None:
    """Takes back what has not left. A mail that is leaving right now is not held, and says so when it has left."""
    for row in await tx.all(Message, "UPDATE messages SET state = 'cancelled' WHERE about = $1 AND state = 'queued' RETURNING *", about):
        await tx.unschedule(MAIL, row.id)


async def write_mail(tx: Tx, message_id: UUID) -> EmailMessage | None:
    """The mail of a queued message, with its link signed; None when there is nothing to send. Raises :class:`TooLate`."""
    stored = await tx.maybe(_Stored, "SELECT *, coalesce(expires_at < now(), false) AS expired FROM messages WHERE id = $1 AND state = 'queued'", message_id)
    if stored is None:
        return None
    if stored.expired:
        raise TooLate("the link expired before the mail could be sent")
    variables = stored.variables
    if stored.template in SECRET and stored.user_id and stored.expires_at:
        variables |= {"link": await links.with_token(tx, stored.template, stored.about, stored.user_id, stored.expires_at)}
    return letters.mail(letters.render(stored.template, variables), stored.id, stored.address)


async def mark_sent(tx: Tx, message_id: UUID, attempts: int) -> None:
    """The mail server has it. That stays true when it was cancelled meanwhile."""
    await tx.run(
        "UPDATE messages SET state = 'sent', sent_at = now(), attempts = $2, error = NULL WHERE id = $1 AND state IN ('queued', 'cancelled')",
        message_id, attempts,
    )  # fmt: skip


async def mark_attempt(tx: Tx, message_id: UUID, attempts: int, error: str, *, last: bool) -> None:
    """An attempt failed; after the ``last`` one nothing more is tried. ``error`` travels and holds nobody's data."""
    await tx.run(
        "UPDATE messages SET attempts = $2, error = $3, state = CASE WHEN $4 THEN 'failed' ELSE state END WHERE id = $1 AND state = 'queued'",
        message_id, attempts, error, last,
    )  # fmt: skip


async def mark_read(tx: Tx, message_id: UUID) -> None:
    """Raises :class:`NotFound` for a message that is not the person's."""
    if not await tx.run("UPDATE messages SET read_at = coalesce(read_at, now()) WHERE id = $1 AND user_id = (SELECT person())", message_id):
        raise NotFound

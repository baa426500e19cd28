"""Logins: one member's way into one database, and the credentials that open it."""

import base64
import secrets
from uuid import UUID

import scramp
from pydantic import BaseModel

from schemas.feed import Observed
from schemas.org import Role
from services.provisioning import feed, observations
from services.provisioning.feed import HeldDatabase, HeldLogin
from services.provisioning.observations import Kind
from shared.tx import Tx

_SCRAM = scramp.ScramMechanism("SCRAM-SHA-256")
ITERATIONS = 4096


class Credentials(BaseModel):
    """A username with its new password, which is kept nowhere."""

    username: str
    password: str


async def make_for_database(tx: Tx, database: HeldDatabase) -> None:
    """A login in this database for everyone who has a grant. They cannot log in before they ask for credentials."""
    await _say(
        tx,
        await tx.all(
            HeldLogin,
            "INSERT INTO logins (database_id, user_id, role) SELECT $1, user_id, role FROM grants WHERE state IN ('pending', 'applied') "
            "ON CONFLICT DO NOTHING RETURNING *",
            database.id,
        ),
    )


async def make_for_member(tx: Tx, user_id: UUID, role: Role) -> None:
    """A login with this role in every database. One that was removed comes back without its old credentials."""
    await _say(
        tx,
        await tx.all(
            HeldLogin,
            "INSERT INTO logins (database_id, user_id, role) SELECT id, $1, $2 FROM databases WHERE generation > 0 AND wanted <> 'gone' "
            "ON CONFLICT (org_id, database_id, user_id) DO UPDATE SET role = excluded.role, removed = false, error = NULL, repeats = 0, "
            "verifier = CASE WHEN logins.removed THEN NULL ELSE logins.verifier END, generation = logins.generation + 1 "
            "WHERE logins.removed OR logins.role <> excluded.role RETURNING *",
            user_id, role,
        ),
    )  # fmt: skip


async def remove_of_member(tx: Tx, user_id: UUID) -> None:
    await _remove(tx, "user_id = $1", user_id)


async def remove_of_database(tx: Tx, database_id: UUID) -> None:
    await _remove(tx, "database_id = $1", database_id)


async def _remove(tx: Tx, which: str, id: UUID) -> None:
    sql = f"UPDATE logins SET removed = true, verifier = NULL, error = NULL, repeats = 0, generation = generation + 1 WHERE NOT removed AND {which} RETURNING *"
    await _say(tx, await tx.all(HeldLogin, sql, id))


async def issue(tx: Tx, database_id: UUID, user_id: UUID) -> Credentials | None:
    """Makes new credentials; the old ones and their sessions end. None when the member has no login there."""
    password = secrets.token_urlsafe(24)
    issued = await tx.maybe(
        HeldLogin,
        "UPDATE logins SET verifier = $3, error = NULL, repeats = 0, generation = generation + 1 "
        "WHERE database_id = $1 AND user_id = $2 AND NOT removed RETURNING *",
        database_id, user_id, _verifier(password),
    )  # fmt: skip
    if issued is None:
        return None
    await _say(tx, [issued])
    return Credentials(username=issued.username, password=password)


def _verifier(password: str) -> str:
    """As Postgres stores it, so that the password itself never reaches the data plane."""
    salt, stored_key, server_key, iterations = _SCRAM.make_auth_info(password, iteration_count=ITERATIONS)
    salt, stored_key, server_key = (base64.b64encode(part).decode() for part in (salt, stored_key, server_key))
    return f"SCRAM-SHA-256${iterations}:{salt}${stored_key}:{server_key}"


async def observe(tx: Tx, seen: Observed) -> UUID | None:
    """Takes in what the data plane says of one login. Answers whose it is, when that is news.

    A login that is not known here must not be there: who holds it could come in.
    """
    confirmed = await observations.observe(tx, KIND, seen)
    if confirmed:
        return confirmed.user_id
    if seen.state != "gone" and not await tx.value("SELECT true FROM logins WHERE id = $1", seen.resource):
        await feed.refuse_login(tx, await feed.tenant(tx), seen.resource)
    return None


async def _say(tx: Tx, changed: list[HeldLogin]) -> None:
    if changed:
        await feed.say_logins(tx, await feed.tenant(tx), changed)


KIND = Kind("login", "logins", HeldLogin, _say, removed="removed")

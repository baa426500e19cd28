"""People: signing up, profiles, and the links that prove who owns an address."""

import asyncio
from datetime import datetime
from uuid import UUID

import argon2
from pydantic import BaseModel

from schemas.user import LinkRequest
from services.user import links, sessions
from shared.errors import NotFound, Refused
from shared.tx import Tx

_hasher = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
_COMMON = frozenset({"password", "passwort", "qwertyuiop", "1234567890", "letmein", "iloveyou", "administrator", "welcome"})
MIN_PASSWORD = 10


class WeakPassword(Refused):
    """The password is too easy to guess. Take at least 10 characters that are not your name or address."""

    status = 422


class Profile(BaseModel):
    """A person as they and their colleagues see them."""

    id: UUID
    email: str
    name: str
    verified_at: datetime | None


def check_password(password: str, *about: str) -> None:
    """Raises :class:`WeakPassword` for a password that is short, common, or made of the person's own data."""
    low = password.lower()
    words = [w.lower() for text in about for w in text.replace("@", " ").split() if len(w) > 3]
    if len(password) < MIN_PASSWORD or len(set(low)) < 5 or any(c in low for c in _COMMON) or any(w in low for w in words):
        raise WeakPassword


async def hash_password(password: str) -> str:
    """argon2id, off the event loop: it takes tens of milliseconds of a core."""
    return await asyncio.to_thread(_hasher.hash, password)


async def password_matches(password: str, password_hash: str) -> bool:
    try:
        return await asyncio.to_thread(_hasher.verify, password_hash, password)
    except argon2.exceptions.VerificationError:
        return False


async def sign_up(tx: Tx, email: str, password: str, name: str, organization: str | None) -> UUID:
    """Makes a person, asks for their organization and for a mail to verify the address. Answers the flow's id.

    An address that exists looks the same from outside; its holder is told by mail.
    """
    check_password(password, email, name)
    password_hash = await hash_password(password)
    flow_id = await _sign_up(tx, email, password_hash, name, organization)
    _say_nothing_of_what_was_written(tx)
    return flow_id


async def _sign_up(tx: Tx, email: str, password_hash: str, name: str, organization: str | None) -> UUID:
    user_id = await find(tx, email)
    if user_id is None:
        user_id = await tx.value("SELECT gen_random_uuid()")
        await tx.enter(f"user:{user_id}", by=f"user:{user_id}")
        if await tx.run("INSERT INTO addresses (email, user_id) VALUES ($1, $2) ON CONFLICT DO NOTHING", email, user_id):
            return await _make(tx, user_id, email, password_hash, name, organization)
        user_id = await find(tx, email)
    await tx.enter(f"user:{user_id}", by=None)
    await links.request(tx, "address_taken")
    return _flow(tx)


async def _make(tx: Tx, user_id: UUID, email: str, password_hash: str, name: str, organization: str | None) -> UUID:
    await tx.run("INSERT INTO users (id, email, name, password_hash) VALUES ($1, $2, $3, $4)", user_id, email, name, password_hash)
    await tx.run("INSERT INTO sign_ups (user_id, organization) VALUES ($1, $2)", user_id, organization)
    flow_id = _flow(tx)
    tx.start_flow()
    await links.request(tx, "verify")
    tx.continue_flow(flow_id)
    return flow_id


def _say_nothing_of_what_was_written(tx: Tx) -> None:
    """A position would tell whether the address exists, and whose it is."""
    tx.streams.clear()


def _flow(tx: Tx) -> UUID:
    flow_id = tx.context.flow_id
    if flow_id is None:
        raise RuntimeError("signing up runs in a flow")
    return flow_id


async def find(tx: Tx, email: str) -> UUID | None:
    user_id: UUID | None = await tx.value("SELECT user_id FROM addresses WHERE email = $1", email)
    return user_id


async def verify(tx: Tx, token: str) -> LinkRequest:
    """Marks the address verified. Raises what :func:`services.user.links.use` raises."""
    used = await links.use(tx, token, "verify")
    await tx.run("UPDATE users SET verified_at = coalesce(verified_at, now()) WHERE id = $1 AND email = $2", used.user_id, used.email)
    return used


async def ask_for_reset(tx: Tx, email: str) -> None:
    """Asks for the mail when the address is known; from outside both look alike."""
    user_id = await find(tx, email)
    if user_id is not None:
        await tx.enter(f"user:{user_id}")
        await links.request(tx, "reset")
        _say_nothing_of_what_was_written(tx)


async def reset_password(tx: Tx, token: str, password: str) -> None:
    """Sets the password with a link and ends every session. Raises :class:`WeakPassword`, or what ``links.use`` raises."""
    check_password(password)
    password_hash = await hash_password(password)
    used = await links.use(tx, token, "reset")
    await tx.run("UPDATE users SET password_hash = $2, verified_at = coalesce(verified_at, now()) WHERE id = $1", used.user_id, password_hash)
    await sessions.end_all(tx)


async def mine(tx: Tx) -> Profile:
    return await tx.one(Profile, "SELECT * FROM users WHERE id = (SELECT person())")


async def rename(tx: Tx, name: str) -> Profile:
    return await tx.one(Profile, "UPDATE users SET name = $1 WHERE id = (SELECT person()) RETURNING *", name)


async def colleague(tx: Tx, user_id: UUID) -> Profile:
    """The profile of a person who shares an organization with the one who asks. Raises :class:`NotFound` for others."""
    if user_id == tx.user_id:
        return await mine(tx)
    shared_orgs = await tx.records("SELECT org_id FROM memberships WHERE user_id = (SELECT person())")
    for org in shared_orgs:
        tx.act_as(org["org_id"], tx.user_id, tx.context, None)
        profile = await tx.maybe(Profile, "SELECT * FROM users WHERE id = $1", user_id)
        if profile:
            return profile
    raise NotFound

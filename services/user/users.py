"""People: signing up, profiles, and the links that prove who owns an address."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel

from schemas.user import LinkRequest
from services.user import addresses, api_keys, links, passwords, sessions
from shared.errors import NotFound
from shared.http.callers import Late
from shared.tx import Tx


class Profile(BaseModel):
    """A person as they and their colleagues see them."""

    id: UUID
    email: str
    name: str
    verified_at: datetime | None


async def sign_up(late: Late, email: str, password: str, name: str, organization: str | None) -> UUID:
    """Makes a person, asks for their organization and for a mail to verify the address. Answers the flow's id.

    An address that exists looks the same from outside; its holder is told by mail.
    """
    passwords.check(password, email, name)
    password_hash = await passwords.hashed(password)
    tx = await late.begin()
    flow_id = await _sign_up(tx, email, password_hash, name, organization)
    _say_nothing_of_what_was_written(tx)
    return flow_id


async def _sign_up(tx: Tx, email: str, password_hash: str, name: str, organization: str | None) -> UUID:
    user_id = await addresses.find(tx, email)
    if user_id is None:
        user_id = await tx.value("SELECT gen_random_uuid()")
        await tx.enter(f"user:{user_id}", by=f"user:{user_id}")
        if await tx.run("INSERT INTO addresses (email, user_id) VALUES ($1, $2) ON CONFLICT DO NOTHING", email, user_id):
            return await _make(tx, user_id, email, password_hash, name, organization)
        user_id = await addresses.find(tx, email)
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


async def verify(tx: Tx, token: str) -> LinkRequest:
    """Marks the address verified. Raises what :func:`services.user.links.use` raises."""
    used = await links.use(tx, token, "verify")
    await tx.run("UPDATE users SET verified_at = coalesce(verified_at, now()) WHERE id = $1 AND email = $2", used.user_id, used.email)
    return used


async def ask_for_verification(tx: Tx, email: str) -> None:
    """Asks for the mail when the address is known and not verified yet; from outside all look alike."""
    user_id = await addresses.find(tx, email)
    if user_id is not None:
        await tx.enter(f"user:{user_id}")
        if (await mine(tx)).verified_at is None:
            await links.request(tx, "verify")
        _say_nothing_of_what_was_written(tx)


async def ask_for_reset(tx: Tx, email: str) -> None:
    """Asks for the mail when the address is known; from outside both look alike."""
    user_id = await addresses.find(tx, email)
    if user_id is not None:
        await tx.enter(f"user:{user_id}")
        await links.request(tx, "reset")
        _say_nothing_of_what_was_written(tx)


async def reset_password(late: Late, token: str, password: str) -> None:
    """Sets the password with a link; every session, API key and refused sign-in before is void.

    Raises :class:`passwords.WeakPassword`, or what ``links.use`` raises.
    """
    async with late.look() as tx:
        link = await links.find(tx, token, "reset")
    passwords.check(password, link.email, link.name)
    password_hash = await passwords.hashed(password)
    tx = await late.begin()
    used = await links.use(tx, token, "reset")
    await tx.run("UPDATE users SET password_hash = $2, verified_at = coalesce(verified_at, now()) WHERE id = $1", used.user_id, password_hash)
    await sessions.end_all(tx)
    await sessions.forget_failures(tx, used.email)
    await api_keys.revoke_all(tx)


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

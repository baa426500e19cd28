"""Sessions: signing in, access tokens of ten minutes, refresh tokens that are good once."""

import base64
import hashlib
import math
import secrets
from datetime import datetime, timedelta
from uuid import UUID

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from pydantic import BaseModel

from services.user import addresses, passwords
from shared.errors import NotFound, Refused
from shared.http.callers import ISSUER, LEEWAY, Late
from shared.settings import settings
from shared.signing import is_signed, signature
from shared.tx import Tx

WINDOW = timedelta(minutes=15)
FIRST_WAIT = timedelta(seconds=30)


class WrongPassword(Refused):
    """The address or the password is wrong. Try again, or ask for a new password at POST /password-resets."""

    status = 401
    keeps_effects = True


class TooManyFailures(Refused):
    """Too many failed sign-ins for this address. Wait as long as Retry-After says, or reset the password."""

    status = 429

    def __init__(self, wait: timedelta) -> None:
        super().__init__()
        self.retry_after = math.ceil(wait.total_seconds())


class RefreshRefused(Refused):
    """The refresh token is not good any more. Sign in again."""

    status = 401
    keeps_effects = True


class Tokens(BaseModel):
    """An access token that is good for ``expires_in`` seconds, and the refresh token for the next one."""

    access_token: str
    token_type: str = "Bearer"  # noqa: S105 - the kind, no secret
    expires_in: int
    refresh_token: str


class Session(BaseModel):
    """A signed-in device."""

    id: UUID
    user_agent: str
    created_at: datetime
    refreshed_at: datetime
    expires_at: datetime


async def sign_in(late: Late, email: str, password: str, user_agent: str) -> Tokens:
    """Opens a session. Raises :class:`WrongPassword`, or :class:`TooManyFailures` after repeated failures."""
    async with late.look() as tx:
        await _check_failures(tx, email)
        user_id = await addresses.find(tx, email)
        await tx.enter(user=user_id)
        password_hash = await _password_hash(tx, user_id)
    matches = await passwords.matches(password, password_hash)
    tx = await late.begin()
    await _wait_for_others(tx, email)
    await _check_failures(tx, email)
    if user_id is None or not matches or not await _is_still(tx, user_id, password_hash):
        await tx.run("INSERT INTO sign_in_failures (email) VALUES ($1)", email)
        raise WrongPassword
    await forget_failures(tx, email)
    return await _open(tx, user_id, user_agent)


async def _password_hash(tx: Tx, user_id: UUID | None) -> str | None:
    found: str | None = await tx.value("SELECT password_hash FROM users WHERE id = $1", user_id)
    return found


async def _is_still(tx: Tx, user_id: UUID, password_hash: str | None) -> bool:
    """Whether nobody has set another password meanwhile; from here on nobody does."""
    await tx.enter(f"user:{user_id}", by=f"user:{user_id}")
    return await _password_hash(tx, user_id) == password_hash


async def _open(tx: Tx, user_id: UUID, user_agent: str) -> Tokens:
    session_id: UUID = await tx.value("SELECT gen_random_uuid()")
    refresh_token = _new_refresh_token(user_id, session_id)
    await tx.run(
        "INSERT INTO sessions (id, user_id, refresh_hash, user_agent, expires_at) VALUES ($1, $2, $3, $4, now() + $5)",
        session_id, user_id, _hash(refresh_token), user_agent[:200], timedelta(days=settings().refresh_token_days),
    )  # fmt: skip
    return await _tokens(tx, user_id, session_id, refresh_token)


async def _wait_for_others(tx: Tx, email: str) -> None:
    """Of those who sign in with an address at once, each sees the failures of those before: also where nobody has it, which would else be told apart."""
    await tx.run("SELECT pg_advisory_xact_lock(hashtextextended('sign in ' || $1, 0))", email)


async def _check_failures(tx: Tx, email: str) -> None:
    """From the fifth failure within the window on, each is followed by twice the wait of the one before. Raises :class:`TooManyFailures`."""
    recent = await tx.records("SELECT now() - at AS ago FROM sign_in_failures WHERE email = $1 AND at > now() - $2::interval ORDER BY at DESC", email, WINDOW)
    too_many = len(recent) - settings().sign_in_failures
    if too_many >= 0 and (wait := min(FIRST_WAIT * 2**too_many, WINDOW) - recent[0]["ago"]) > timedelta(0):
        raise TooManyFailures(wait)


async def refresh(tx: Tx, refresh_token: str) -> Tokens:
    """Rotates the refresh token. One of ours that was used before ends its session: somebody has a copy."""
    user_id, session_id = _parsed(refresh_token)
    await tx.enter(f"user:{user_id}", by=f"user:{user_id}")
    following = _new_refresh_token(user_id, session_id)
    rotated = await tx.run(
        "UPDATE sessions SET refresh_hash = $3, refreshed_at = now() WHERE id = $1 AND refresh_hash = $2 AND ended_at IS NULL AND expires_at > now()",
        session_id, _hash(refresh_token), _hash(following),
    )  # fmt: skip
    if not rotated:
        await _end(tx, "id = $1", session_id)
        raise RefreshRefused
    return await _tokens(tx, user_id, session_id, following)


async def end(tx: Tx, session_id: UUID) -> None:
    if not await _end(tx, "id = $1", session_id):
        raise NotFound


async def end_all(tx: Tx) -> None:
    await _end(tx, "user_id = (SELECT person())")


async def _end(tx: Tx, which: str, *args: object) -> int:
    return await tx.run(
        f"WITH ended AS (UPDATE sessions SET ended_at = now() WHERE {which} AND ended_at IS NULL RETURNING id, user_id) "
        "INSERT INTO ended_sessions (id, user_id) SELECT id, user_id FROM ended ON CONFLICT DO NOTHING", *args,
    )  # fmt: skip


LIST = "SELECT * FROM sessions WHERE ended_at IS NULL AND expires_at > now()"


async def rotate_signing_key(tx: Tx) -> None:
    """Publishes a new signing key five minutes before its use and ends old ones after the last token they signed.

    The first key is good at once: there is none to use meanwhile.
    """
    await tx.enter("global:signing_keys")
    newest = await tx.value("SELECT max(not_before) FROM signing_keys")
    if newest is not None and await tx.value("SELECT $1 > now() - interval '30 days'", newest):
        return
    private = Ed25519PrivateKey.generate()
    await tx.run(
        "UPDATE signing_keys SET not_after = now() + interval '5 minutes' + $1::interval WHERE not_after IS NULL",
        timedelta(seconds=settings().access_token_seconds + LEEWAY),
    )
    await tx.run(
        "INSERT INTO signing_keys (public_key, private_key, not_before) VALUES ($1, $2, now() + CASE WHEN $3 THEN interval '0' ELSE interval '5 minutes' END)",
        private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        newest is None,
    )


async def _tokens(tx: Tx, user_id: UUID, session_id: UUID, refresh_token: str) -> Tokens:
    rows = await tx.records(
        "SELECT id, private_key, now() AS now FROM signing_keys WHERE not_before <= now() AND (not_after IS NULL OR not_after > now()) ORDER BY not_before DESC LIMIT 1"
    )
    key = rows[0]
    lifetime = settings().access_token_seconds
    expires_at = key["now"] + timedelta(seconds=lifetime)
    claims = {"iss": ISSUER, "aud": ISSUER, "sub": str(user_id), "sid": str(session_id), "iat": key["now"], "exp": expires_at}
    token = jwt.encode(claims, key["private_key"], algorithm="EdDSA", headers={"kid": str(key["id"])})
    return Tokens(access_token=token, expires_in=lifetime, refresh_token=refresh_token)


def _hash(refresh_token: str) -> str:
    return hashlib.sha256(refresh_token.encode()).hexdigest()


def _new_refresh_token(user_id: UUID, session_id: UUID) -> str:
    """``<ids>.<32 random bytes>.<signature>``: signed, so that nobody who merely knows a session can end it with a made-up one."""
    text = base64.urlsafe_b64encode(user_id.bytes + session_id.bytes).decode() + "." + secrets.token_urlsafe(32)
    return f"{text}.{signature('refresh token', text)}"


def _parsed(refresh_token: str) -> tuple[UUID, UUID]:
    """Whose it is, and of which session. Raises :class:`RefreshRefused` for what was never given out."""
    text, _, signed = refresh_token.rpartition(".")
    if not is_signed("refresh token", text, signed):
        raise RefreshRefused
    raw = base64.urlsafe_b64decode(text.partition(".")[0])
    return UUID(bytes=raw[:16]), UUID(bytes=raw[16:32])


async def forget_failures(tx: Tx, email: str) -> None:
    await tx.run("DELETE FROM sign_in_failures WHERE email = $1", email)


async def forget_old_failures(tx: Tx) -> None:
    await tx.run("DELETE FROM sign_in_failures WHERE at < now() - interval '1 day'")

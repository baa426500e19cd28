"""Who calls, and what they may do: a permission is the type of a handler's parameter.

Every service decides by itself, from its replicas of keys, memberships and roles, also while the user and org services are down.
"""

import base64
import hashlib
import hmac
import secrets
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, Literal
from uuid import UUID

import jwt
from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from pydantic import BaseModel

from shared.errors import NotFound, Refused
from shared.http import limits
from shared.http.unit import Unit, etag
from shared.log import about
from shared.settings import settings
from shared.tx import Tx

ROLES = ("member", "admin", "owner")
ISSUER, LEEWAY = "saas-mesh", 30
WHILE_SUSPENDED = {"x-while-suspended": True}
"""``openapi_extra`` of a door that stays open while the organization is suspended."""

_bearer = HTTPBearer(auto_error=False, description="An access token, an API key, or the operator token")


class Unauthenticated(Refused):
    """No valid identity came with the request. Sign in again, or check the API key."""

    status = 401


class Forbidden(Refused):
    """You are not allowed to do this. Ask somebody who may."""

    status = 403


class NotVerified(Refused):
    """Your address is not verified yet. Follow the link in the mail we sent, or ask for a new one at POST /verifications, then try again."""

    status = 403


class Suspended(Refused):
    """The organization is suspended and nothing can be changed. Who suspended it, and why, is shown with the organization; resume it, or ask them."""

    status = 423


class PreconditionFailed(Refused):
    """The resource has changed since you read it. Read it again and repeat your change on what you see."""

    status = 412


class MissingScope(Refused):
    """The API key may only read. Make one with the scope `write`, which may read and change, when you are signed in."""

    status = 403


class SignInNeeded(Refused):
    """An API key cannot change who you are or what may act as you. Sign in at POST /sessions and send the access token instead."""

    status = 403


@dataclass(frozen=True)
class Caller:
    """Who calls. An operator has no user id; an API key acts as its owner within its scopes."""

    kind: Literal["session", "api_key", "operator"]
    user_id: UUID | None
    id: UUID | None = None
    scopes: tuple[str, ...] | None = None
    role: str | None = None

    @property
    def person(self) -> UUID:
        if self.user_id is None:
            raise Unauthenticated("This door is for a signed-in person, not for the operator.")
        return self.user_id

    def __str__(self) -> str:
        return "operator" if self.kind == "operator" else f"{'key' if self.kind == 'api_key' else 'user'}:{self.id if self.kind == 'api_key' else self.user_id}"


def key_checksum(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


def new_api_key(owner: UUID) -> str:
    """``mesh_<owner's id and 32 random bytes, base64url>_<crc32>``."""
    body = "mesh_" + base64.urlsafe_b64encode(owner.bytes + secrets.token_bytes(32)).decode()
    return f"{body}_{key_checksum(body)}"


def owner_of_api_key(key: str) -> UUID:
    """Whose key it claims to be. A mistyped key is refused here, before the database is asked."""
    body, _, checksum = key.rpartition("_")
    if not hmac.compare_digest(key_checksum(body).encode(), checksum.encode()):
        raise Unauthenticated("This is no API key: its checksum is wrong.")
    try:
        return UUID(bytes=base64.urlsafe_b64decode(body.removeprefix("mesh_"))[:16])
    except ValueError as error:
        raise Unauthenticated("This is no API key.") from error


async def authenticated(request: Request, _: Annotated[Any, Depends(_bearer)] = None) -> Caller:
    """The caller behind ``Authorization: Bearer``, when this service has seen what they have. Nobody waits for that unknown and uncounted.

    Raises :class:`Unauthenticated`, :class:`limits.TooManyRequests`.
    """
    try:
        return await _authenticated(request)
    except Unauthenticated:
        limits.count_nobody(request)
        if not await _may_be_known_now(request):
            raise
    return await _authenticated(request)


async def _may_be_known_now(request: Request) -> bool:
    """Waits for what the caller has seen: it may be that their API key was made."""
    return _token(request).startswith("mesh_") and await Unit.of(request).catch_up(known=False)


async def _authenticated(request: Request) -> Caller:
    if not _token(request):
        raise Unauthenticated
    unit = Unit.of(request)
    caller = await identified(request, await unit.tx())
    unit.known = True
    limits.count_caller(request, str(caller.id or caller.kind), str(caller.user_id or caller.kind))
    _check_scope(caller, request.method)
    if await unit.catch_up(known=True):
        caller = await identified(request, await unit.tx())  # they may have seen the end of their session or key
    tx = await unit.tx()
    tx.act_as(tx.org_id, caller.user_id, replace(tx.context, by=str(caller)), None)
    about.set(about.get() | {"by": str(caller)})
    await unit.claim(str(caller))
    return caller


def _token(request: Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" else ""


async def identified(request: Request, tx: Tx) -> Caller:
    """Whom the token speaks of, as is known now. Raises :class:`Unauthenticated`, also when it has ended since it was last asked."""
    token = _token(request)
    if token.startswith("mesh_"):
        return await _by_api_key(tx, token)
    if token.count(".") == 2:
        return await _by_access_token(tx, token)
    return _by_operator_token(token)


def _check_scope(caller: Caller, method: str) -> None:
    """A key that may write may read."""
    if caller.scopes is not None and "write" not in caller.scopes and not (method == "GET" and "read" in caller.scopes):
        raise MissingScope


def _by_operator_token(token: str) -> Caller:
    expected = settings().operator_token_hash
    if not expected or not hmac.compare_digest(hashlib.sha256(token.encode()).hexdigest(), expected):
        raise Unauthenticated
    return Caller("operator", None)


async def _by_api_key(tx: Tx, token: str) -> Caller:
    tx.act_as(None, owner_of_api_key(token), tx.context, None)
    rows = await tx.records(
        "SELECT id, user_id, scopes FROM api_keys WHERE secret_hash = $1 AND state = 'active' AND (expires_at IS NULL OR expires_at > now())",
        hashlib.sha256(token.encode()).hexdigest(),
    )
    if not rows:
        raise Unauthenticated("This API key is unknown, revoked or expired.")
    return Caller("api_key", rows[0]["user_id"], rows[0]["id"], tuple(rows[0]["scopes"]))


async def _by_access_token(tx: Tx, token: str) -> Caller:
    try:
        key_id = UUID(jwt.get_unverified_header(token)["kid"])
        public = await tx.value("SELECT public_key FROM signing_keys WHERE id = $1 AND (not_after IS NULL OR not_after > now())", key_id)
        if public is None:
            raise Unauthenticated("The access token is signed with an unknown key.")
        claims = jwt.decode(token, public, algorithms=["EdDSA"], issuer=ISSUER, audience=ISSUER, leeway=LEEWAY, options={"require": ["exp", "sub", "sid"]})
        caller = Caller("session", UUID(claims["sub"]), UUID(claims["sid"]))
    except jwt.ExpiredSignatureError as error:
        raise Unauthenticated("The access token has expired: refresh it at POST /sessions/refresh.") from error
    except (jwt.PyJWTError, KeyError, ValueError) as error:
        raise Unauthenticated("The access token is not valid.") from error
    tx.act_as(None, caller.user_id, tx.context, None)
    if await tx.value("SELECT true FROM ended_sessions WHERE id = $1", caller.id):
        raise Unauthenticated("The session has ended. Sign in again.")
    return caller


async def person(caller: Annotated[Caller, Depends(authenticated)]) -> Caller:
    caller.person  # noqa: B018 - refuses the operator
    return caller


async def signed_in(caller: Annotated[Caller, Depends(person)]) -> Caller:
    """A key that could make keys would outlive its own expiry and scopes."""
    if caller.kind != "session":
        raise SignInNeeded
    return caller


async def verified_person(request: Request, caller: Annotated[Caller, Depends(person)]) -> Caller:
    tx = await Unit.of(request).tx()
    if await tx.value("SELECT verified_at FROM users WHERE id = $1", caller.user_id) is None:
        raise NotVerified
    return caller


async def operator(caller: Annotated[Caller, Depends(authenticated)]) -> Caller:
    if caller.kind != "operator":
        raise Forbidden("This door is for operators, who send the operator token.")
    return caller


def access(least: str | None, *, or_operator: bool = False) -> Callable[..., Awaitable[Caller]]:
    """A dependency that lets in members of ``org_id`` with at least this role. ``None`` lets in anyone who is a member.

    A writing request then locks the organization's stream and is asked again: what it answers holds until the transaction ends.
    """

    async def check(request: Request, org_id: UUID, caller: Annotated[Caller, Depends(authenticated)]) -> Caller:
        unit = Unit.of(request)
        tx = await unit.tx()
        tx.act_as(org_id, caller.user_id, tx.context, None)
        about.set(about.get() | {"org_id": str(org_id)})
        while_suspended = bool((getattr(request.scope.get("route"), "openapi_extra", None) or {}).get("x-while-suspended"))
        ask = partial(_allowed, tx, caller, least, or_operator=or_operator, writes=unit.writes and not while_suspended)
        found = await ask()
        if unit.writes:
            await tx.enter(f"org:{org_id}", org=org_id, user=tx.user_id)
            found = await ask()
        return found

    return check


async def _allowed(tx: Tx, caller: Caller, least: str | None, *, or_operator: bool, writes: bool) -> Caller:
    if caller.kind == "operator":
        if not or_operator:
            raise NotFound
        if not await tx.value("SELECT true FROM organizations WHERE org_id = (SELECT tenant())"):
            raise NotFound
        return caller
    role = await tx.value("SELECT role FROM memberships WHERE org_id = (SELECT tenant()) AND user_id = $1", caller.user_id)
    if role is None:
        raise NotFound
    if least and ROLES.index(role) < ROLES.index(least):
        raise Forbidden(f"This door needs the role {least}; yours is {role}: an owner of the organization can do it or change your role.")
    state = await tx.value("SELECT state FROM organizations WHERE org_id = (SELECT tenant())")
    if state in (None, "deleted"):
        raise NotFound
    if writes and state == "suspended":
        raise Suspended
    return replace(caller, role=role)


Person = Annotated[Caller, Depends(person)]
SignedIn = Annotated[Caller, Depends(signed_in)]
VerifiedPerson = Annotated[Caller, Depends(verified_person)]
Operator = Annotated[Caller, Depends(operator)]
Anyone = Annotated[Caller, Depends(authenticated)]
Member = Annotated[Caller, Depends(access(None))]
OrgAdmin = Annotated[Caller, Depends(access("admin"))]
OwnerOrOperator = Annotated[Caller, Depends(access("owner", or_operator=True))]


async def tenant_tx(request: Request, org_id: UUID) -> Tx:
    """The transaction as the organization in the path, whose stream a writing one has locked."""
    tx = await Unit.of(request).tx()
    if tx.org_id != org_id:
        raise RuntimeError("a door with TenantTx names who may enter: add a Member, OrgAdmin or OwnerOrOperator parameter before it")
    return tx


async def person_tx(request: Request, caller: Person) -> Tx:
    """The transaction as the person who calls. A writing one locks their stream."""
    unit = Unit.of(request)
    tx = await unit.tx()
    if unit.writes:
        await tx.enter(f"user:{caller.person}", user=caller.person)
    return tx


class Late:
    """The transaction of a door with slow work to do first, such as a password's hash: no connection is held meanwhile."""

    def __init__(self, request: Request) -> None:
        self._unit, self._address = Unit.of(request), request.client.host if request.client else ""

    @asynccontextmanager
    async def look(self) -> AsyncIterator[Tx]:
        """The transaction begun to look something up, and ended before the slow work."""
        yield await self.begin()
        await self._unit.release()

    async def begin(self) -> Tx:
        """Answers from memory, or begins the transaction."""
        await self._unit.claim(f"anonymous:{self._address}")
        return await self._unit.tx()


async def late_tx(request: Request) -> Late:
    """As :func:`open_tx`, begun when the rule says so."""
    if not Unit.of(request).known:
        limits.count_nobody(request)
    return Late(request)


async def open_tx(late: Annotated[Late, Depends(late_tx)]) -> Tx:
    """A transaction whose tenant is not known at the door: the rule enters the streams it writes."""
    return await late.begin()


TenantTx = Annotated[Tx, Depends(tenant_tx)]
PersonTx = Annotated[Tx, Depends(person_tx)]
OpenTx = Annotated[Tx, Depends(open_tx)]
LateTx = Annotated[Late, Depends(late_tx)]


class Precondition:
    """``If-Match`` of a request, to be held against the resource as it is now."""

    def __init__(self, request: Request) -> None:
        self._wanted = request.headers.get("If-Match")

    def check(self, current: BaseModel) -> None:
        """Raises :class:`PreconditionFailed` when the caller has seen another version."""
        tags = [t.strip() for t in (self._wanted or "*").split(",")]
        if "*" not in tags and etag(current.model_dump(mode="json")) not in tags:
            raise PreconditionFailed


IfMatch = Annotated[Precondition, Depends(Precondition)]

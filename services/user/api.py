"""The user service's doors."""

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Request
from pydantic import AfterValidator, AwareDatetime, EmailStr, Field

from services.user import api_keys, sessions, users
from services.user.keys import public_key_set
from shared.http.callers import IfMatch, LateTx, OpenTx, Person, PersonTx, SignedIn, VerifiedPerson
from shared.http.pages import Page, Paged, page
from shared.http.routing import Body, Flowing, new_router

router = new_router(tags=["user"])

Email = Annotated[EmailStr, AfterValidator(str.lower), Field(max_length=254)]
Password = Annotated[str, Field(min_length=1, max_length=1000, repr=False)]
Name = Annotated[str, Field(min_length=1, max_length=200)]


class SignUpBody(Body):
    email: Email
    password: Password
    name: Name
    organization: Name | None = None


class TokenBody(Body):
    token: Annotated[str, Field(min_length=1, max_length=4000)]


class SignInBody(Body):
    email: Email
    password: Password


class RefreshBody(Body):
    refresh_token: Annotated[str, Field(max_length=400)]


class NameBody(Body):
    name: Name


class KeyBody(Body):
    name: Name
    scopes: Annotated[list[api_keys.Scope], Field(min_length=1)]
    expires_at: Annotated[AwareDatetime, Field(ge=datetime(2000, 1, 1, tzinfo=UTC), le=datetime(9000, 1, 1, tzinfo=UTC))] | None = None


class EmailBody(Body):
    email: Email


class ResetBody(Body):
    token: Annotated[str, Field(min_length=1, max_length=4000)]
    password: Password


class Started(Flowing):
    """The flow that was started."""


@router.post("/users", status_code=202)
async def sign_up(body: SignUpBody, late: LateTx) -> Started:
    """Signs a person up; with `organization` also makes it, its free subscription and its first database.

    The answer is the same for an address that exists: its holder is told by mail.
    """
    return Started(flow_id=await users.sign_up(late, body.email, body.password, body.name, body.organization))


@router.post("/users/verify", status_code=204)
async def verify(body: TokenBody, tx: OpenTx) -> None:
    """Verifies an address with the token of the mailed link."""
    await users.verify(tx, body.token)


@router.post("/verifications", status_code=202)
async def ask_for_verification(body: EmailBody, tx: OpenTx) -> Started:
    """Mails a new link to verify an address, when it is known and not verified yet. The answer is always the same.

    One mail a minute at most, however often it is asked for. Links that were mailed before stay good until their end.
    """
    await users.ask_for_verification(tx, body.email)
    return Started.of(tx)


@router.post("/sessions", status_code=201)
async def sign_in(body: SignInBody, request: Request, late: LateTx) -> sessions.Tokens:
    """Signs in. Repeated failures for an address answer 429 for a while."""
    return await sessions.sign_in(late, body.email, body.password, request.headers.get("User-Agent", ""))


@router.post("/sessions/refresh", status_code=201)
async def refresh(body: RefreshBody, tx: OpenTx) -> sessions.Tokens:
    """Trades a refresh token for new tokens. Each is good once; the second use ends the session."""
    return await sessions.refresh(tx, body.refresh_token)


@router.get("/sessions")
async def list_sessions(caller: Person, tx: PersonTx, query: Paged) -> Page[sessions.Session]:
    """The devices that are signed in."""
    return await page(tx, sessions.Session, query, sessions.LIST)


@router.delete("/sessions/current", status_code=204)
async def sign_out(caller: SignedIn, tx: PersonTx) -> None:
    """Ends the session that this access token belongs to. For an access token: an API key belongs to none."""
    if caller.id:
        await sessions.end(tx, caller.id)


@router.delete("/sessions/{session_id}", status_code=204)
async def end_session(session_id: UUID, caller: SignedIn, tx: PersonTx) -> None:
    """Ends one of the caller's sessions everywhere. For an access token: an API key ends none."""
    await sessions.end(tx, session_id)


@router.get("/me")
async def me(caller: Person, tx: PersonTx) -> users.Profile:
    """The caller's own profile."""
    return await users.mine(tx)


@router.patch("/me")
async def rename_me(body: NameBody, caller: SignedIn, tx: PersonTx, if_match: IfMatch) -> users.Profile:
    """Changes the caller's name. For an access token: an API key does not change who its owner is."""
    if_match.check(await users.mine(tx))
    return await users.rename(tx, body.name)


@router.get("/users/{user_id}")
async def get_user(user_id: UUID, caller: Person, tx: PersonTx) -> users.Profile:
    """The profile of a person who shares an organization with the caller."""
    return await users.colleague(tx, user_id)


@router.post("/me/api-keys", status_code=201)
async def make_key(body: KeyBody, caller: SignedIn, verified: VerifiedPerson, tx: PersonTx) -> api_keys.NewKey:
    """Makes an API key that acts as the caller within its scopes. The secret is shown this once; the address must be verified.

    `read` may read what the caller may; `write` may read and change it. For an access token: a key makes no key, ends no session
    or key, and does not change the profile.
    """
    return await api_keys.make(tx, caller.person, body.name, body.scopes, body.expires_at)


@router.get("/me/api-keys")
async def list_keys(caller: Person, tx: PersonTx, query: Paged) -> Page[api_keys.Key]:
    """The caller's API keys, without their secrets."""
    return await page(tx, api_keys.Key, query, api_keys.LIST)


@router.delete("/me/api-keys/{key_id}", status_code=204)
async def revoke_key(key_id: UUID, caller: SignedIn, tx: PersonTx) -> None:
    """Revokes an API key everywhere. For an access token: a key revokes none."""
    await api_keys.revoke(tx, key_id)


@router.post("/password-resets", status_code=202)
async def ask_for_reset(body: EmailBody, tx: OpenTx) -> Started:
    """Mails a link to set a new password, when the address is known. The answer is always the same."""
    await users.ask_for_reset(tx, body.email)
    return Started.of(tx)


@router.post("/password-resets/confirm", status_code=204)
async def reset_password(body: ResetBody, late: LateTx) -> None:
    """Sets a new password with the token of the mailed link, ends every session and revokes every API key."""
    await users.reset_password(late, body.token, body.password)


@router.get("/.well-known/jwks.json")
async def key_set(tx: OpenTx) -> dict[str, Any]:
    """The public keys of access tokens (RFC 7517)."""
    return {"keys": await public_key_set(tx)}

"""What the user service publishes."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from shared.rows import Row


class User(Row):
    """A person. The address and name travel for invitations, member lists and mails; nothing derived from the password does."""

    table = "user.users"
    stream = "user"
    id: UUID
    email: str
    name: str
    verified_at: datetime | None


class SignUp(Row):
    """A person signed up; ``organization`` is the name of the organization to be made with it."""

    table = "user.sign_ups"
    key = ("user_id",)
    stream = "user"
    user_id: UUID
    organization: str | None


class LinkRequest(Row):
    """A mail with a link is wanted. The secret is not here: notification signs a token over this row's id while it renders.

    ``address_taken``: somebody signed up with an address that exists; its holder is told, and nobody else.
    """

    table = "user.link_requests"
    stream = "user"
    id: UUID
    user_id: UUID
    email: str
    name: str
    purpose: Literal["verify", "reset", "address_taken"]
    state: Literal["open", "used", "expired"]
    expires_at: datetime


class SigningKey(Row):
    """A public key of access tokens (PEM, Ed25519), published before its first use."""

    table = "user.signing_keys"
    stream = "global:signing_keys"
    id: UUID
    public_key: str
    not_before: datetime
    not_after: datetime | None


class ApiKey(Row):
    """An API key: SHA-256 of its 256 random bits, never the key."""

    table = "user.api_keys"
    stream = "user"
    id: UUID
    user_id: UUID
    secret_hash: str
    scopes: list[str]
    state: Literal["active", "revoked"]
    expires_at: datetime | None


class EndedSession(Row):
    """A session that must not be accepted any more although its access token has not expired."""

    table = "user.ended_sessions"
    stream = "user"
    id: UUID
    user_id: UUID
    ended_at: datetime

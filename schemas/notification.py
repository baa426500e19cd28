"""What the notification service publishes."""

from typing import Literal
from uuid import UUID

from shared.rows import Row

Template = Literal["verify", "reset", "address_taken", "invitation", "welcome", "suspended", "resumed"]


class Message(Row):
    """One message to one recipient: what kind, about which row, and how far it came. Address and text stay at home.

    ``error`` says why the last attempt to mail it failed, without anybody's data.

    Its stream is the organization's where it concerns one, else the person's.
    """

    table = "notification.messages"
    stream = ("org", "user")
    id: UUID
    org_id: UUID | None
    user_id: UUID | None
    about: UUID
    template: Template
    state: Literal["queued", "sent", "cancelled", "failed"]
    attempts: int
    error: str | None


class LinkKey(Row):
    """A public key (PEM, Ed25519) that verifies the tokens in mailed links."""

    table = "notification.link_keys"
    stream = "global:link_keys"
    id: UUID
    public_key: str

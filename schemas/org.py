"""What the org service publishes."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from shared.rows import Row

Role = Literal["owner", "admin", "member"]


class Organization(Row):
    """The tenant. ``suspended_by`` is the level that suspended it: that level, or one above it, may resume.

    ``origin``: one that came with a sign-up gets its first database by itself.
    """

    table = "org.organizations"
    key = ("org_id",)
    org_id: UUID
    name: str
    state: Literal["active", "suspended", "deleting", "deleted"]
    suspended_by: Literal["owner", "billing", "operator"] | None
    reason: str | None
    origin: Literal["sign_up", "created"]


class Membership(Row):
    """A person's role in an organization."""

    table = "org.memberships"
    key = ("org_id", "user_id")
    org_id: UUID
    user_id: UUID
    role: Role


class Invitation(Row):
    """An open, accepted, withdrawn or expired invitation of one address to one organization."""

    table = "org.invitations"
    id: UUID
    org_id: UUID
    email: str
    role: Role
    state: Literal["pending", "accepted", "withdrawn", "expired"]
    invited_by: UUID
    expires_at: datetime


class TestClock(Row):
    """How far the clock of a test organization was advanced."""

    __test__ = False
    table = "org.test_clocks"
    key = ("org_id",)
    org_id: UUID
    advanced: str

"""What the provisioning service publishes."""

from typing import Literal
from uuid import UUID

from schemas.org import Role
from shared.rows import Row

DatabaseState = Literal["requested", "provisioning", "ready", "changing", "suspended", "deleting", "deleted", "gone", "failed"]


class Database(Row):
    """A tenant's database in a data plane.

    ``generation`` numbers what is wanted of it, ``observed`` is the last one that the data plane has confirmed. ``wanted`` turns
    back from ``deleted`` to ``present`` when it is restored. ``error`` says why it is ``failed``.
    """

    table = "provisioning.databases"
    id: UUID
    org_id: UUID
    name: str
    state: DatabaseState
    wanted: Literal["present", "deleted", "gone"]
    connection_limit: int
    data_plane: str | None
    generation: int
    observed: int
    error: str | None


class Tenant(Row):
    """An organization at its data plane: where it is placed, and whether its logins may connect there."""

    table = "provisioning.tenants"
    key = ("org_id",)
    org_id: UUID
    data_plane: str
    state: Literal["active", "suspending", "suspended", "resuming"]
    generation: int
    observed: int
    error: str | None


class Grant(Row):
    """What a member may do in the organization's databases; ``applied`` when every one of them has it."""

    table = "provisioning.grants"
    key = ("org_id", "user_id")
    org_id: UUID
    user_id: UUID
    role: Role
    state: Literal["pending", "applied", "revoking", "revoked"]


class Login(Row):
    """One member's login in one database. The password's verifier travels to the data plane only."""

    table = "provisioning.logins"
    id: UUID
    org_id: UUID
    database_id: UUID
    user_id: UUID
    username: str
    role: Role
    state: Literal["pending", "ready", "removing", "gone", "failed"]
    credentials: Literal["none", "requested", "ready"]
    generation: int
    observed: int
    error: str | None

"""What travels between provisioning and the agents at the data planes.

Three topics carry it, all JSON, all keyed ``<org_id>/<resource id>``:

=============================  ==========================================================================
``tenant.<org_id>.feed``       desired state a tenant may read itself: its ``organization`` and ``database`` resources
``dataplane.<id>.assignments`` desired state for the data plane's agent alone: ``assignment`` and ``login`` resources
``dataplane.<id>.reports``     what the agent saw: :class:`Report` and :class:`Hello`
=============================  ==========================================================================

The first two are compacted: the newest value of a key is the whole truth about it, a tombstone removes the resource.
Every change of a resource raises its ``generation``; an agent never applies an older generation over a newer one.
"""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

Role = Literal["owner", "admin", "member"]

COMPACTED = {"cleanup.policy": "compact", "segment.ms": "600000", "min.cleanable.dirty.ratio": "0.1"}
"""How Kafka keeps a topic of desired state. Its segments also roll when it is nearly idle: without it small topics never compact."""


def agent_user(data_plane: str) -> str:
    """The Kafka user that a data plane's agent is."""
    return f"agent-{data_plane}"


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Desired(_Message):
    """One resource as the control plane wants it."""

    org_id: UUID
    resource: UUID
    generation: int = Field(ge=1)
    flow_id: UUID | None = None
    traceparent: str | None = None

    @property
    def key(self) -> str:
        return f"{self.org_id}/{self.resource}"


class DesiredAssignment(_Message):
    topic: str
    """Where the tenant's feed is read: ``tenant.<org_id>.feed``, or a pool topic that several tenants share."""


class Assignment(_Desired):
    """This data plane holds this tenant. ``resource`` is the org id; ``generation`` fences a former holder."""

    kind: Literal["assignment"] = "assignment"
    desired: DesiredAssignment


class DesiredOrganization(_Message):
    state: Literal["active", "suspended"]


class OrganizationResource(_Desired):
    """The tenant as a whole: suspended means that no login of it may connect. ``resource`` is the org id."""

    kind: Literal["organization"] = "organization"
    desired: DesiredOrganization


class DesiredDatabase(_Message):
    name: str
    """The database's name on the server, unique there."""
    state: Literal["present", "deleted"]
    """``deleted`` refuses connections and keeps the data; the tombstone that follows the undo window drops it."""
    connection_limit: int = Field(ge=1)


class DatabaseResource(_Desired):
    kind: Literal["database"] = "database"
    desired: DesiredDatabase


class DesiredLogin(_Message):
    database: UUID
    username: str
    verifier: str | None = None
    """A SCRAM-SHA-256 verifier of a generated password; the password itself is nowhere but with its owner. None until the
    member asks for credentials: the role is there with its grants and cannot log in."""
    role: Role


class Login(_Desired):
    """One member's way into one database. Owner and admin own the schema; a member reads and writes its tables."""

    kind: Literal["login"] = "login"
    desired: DesiredLogin


Desired = Annotated[Assignment | OrganizationResource | DatabaseResource | Login, Field(discriminator="kind")]
desired_from_json: TypeAdapter[Desired] = TypeAdapter(Desired)


class Observed(_Message):
    """One resource as the agent holds it.

    ``state``: ``ready`` (as desired), ``suspended``, ``deleted`` (kept, refuses connections), ``gone`` (dropped after a
    tombstone), ``failed`` (``error`` says why; retried). ``generation`` is the desired generation it reflects.
    """

    resource: UUID
    kind: Literal["organization", "database", "login"]
    generation: int
    state: Literal["ready", "suspended", "deleted", "gone", "failed"]
    error: str | None = None
    flow_id: UUID | None = None
    traceparent: str | None = None


class Report(_Message):
    """What one data plane observed of one tenant; key ``<org_id>``.

    ``(agent_epoch, counter)`` grows with every report of an agent, across its restarts; a smaller pair is stale.
    ``complete`` says that ``resources`` is everything it holds of the tenant (at start and every minute).
    """

    kind: Literal["report"] = "report"
    data_plane: str
    agent_epoch: int
    counter: int
    at: datetime
    org_id: UUID
    assignment_generation: int
    complete: bool = False
    resources: list[Observed]


class Hello(_Message):
    """An agent says that its data plane is there, at start and every minute; key ``hello``."""

    kind: Literal["hello"] = "hello"
    data_plane: str
    agent_epoch: int
    counter: int
    at: datetime
    host: str
    port: int
    databases: int


FromAgent = Annotated[Report | Hello, Field(discriminator="kind")]
from_agent_json: TypeAdapter[FromAgent] = TypeAdapter(FromAgent)

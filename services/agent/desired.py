"""What the control plane wants of this data plane, as far as it is known here."""

from enum import Enum
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from schemas.feed import Assignment, DatabaseResource, Desired, Login, OrganizationResource

Resource = OrganizationResource | DatabaseResource | Login


class News(Enum):
    """What a record meant: a change, something known already, or something older than what is known."""

    CHANGED = "changed"
    REPEATED = "repeated"
    STALE = "stale"


class Held(BaseModel):
    """One resource, and what became of it. A change replaces it, so that whoever works on it can see that it changed."""

    model_config = ConfigDict(frozen=True)

    resource: Resource
    removed: bool = False
    """A tombstone came; it stays until the server has nothing left of it."""
    made: bool = False
    """A database that was once made here: if it is missing later its data is lost, and an empty one must not hide that."""


class Tenant(BaseModel):
    """One organization on this data plane. Written to disk as it is.

    A tenant that left keeps its assignment's generation: an older assignment that is read again must not bring it back.
    """

    org_id: UUID
    assignment: Assignment | None = None
    assigned: bool = False
    resources: dict[UUID, Held] = {}
    graves: dict[UUID, int] = {}
    """Last generation of what must not be here any more: the same record read again must not make it anew. 0 is one never known."""

    @property
    def topic(self) -> str | None:
        return self.assignment.desired.topic if self.assignment and self.assigned else None

    @property
    def assignment_generation(self) -> int:
        return self.assignment.generation if self.assignment else 0

    @property
    def open(self) -> bool:
        """Whether logins may connect: assigned here, and the organization neither suspended nor removed."""
        organization = self.resources.get(self.org_id)
        return self.assigned and (
            organization is None
            or (not organization.removed and isinstance(organization.resource, OrganizationResource) and organization.resource.desired.state == "active")
        )

    @property
    def databases(self) -> list[tuple[Held, DatabaseResource]]:
        return [(held, held.resource) for held in self.resources.values() if isinstance(held.resource, DatabaseResource)]

    @property
    def logins(self) -> list[tuple[Held, Login]]:
        return [(held, held.resource) for held in self.resources.values() if isinstance(held.resource, Login)]

    @property
    def removing(self) -> bool:
        """Something removed may still be on the server."""
        return any(held.removed for held, _ in (*self.databases, *self.logins))

    def accept(self, desired: Desired) -> News:
        """Take a record in, unless something newer is known."""
        if isinstance(desired, Assignment):
            return self._assign(desired)
        if desired.generation <= self.graves.get(desired.resource, 0):
            return News.STALE
        held = self.resources.get(desired.resource)
        if held is None:
            self.resources[desired.resource] = Held(resource=desired)
            return News.CHANGED
        if desired.generation < held.resource.generation or (held.removed and desired.generation == held.resource.generation):
            return News.STALE
        if _same(desired, held.resource):
            return News.REPEATED
        self.resources[desired.resource] = Held(resource=desired, made=held.made)
        return News.CHANGED

    def _assign(self, desired: Assignment) -> News:
        if desired.generation < self.assignment_generation:
            return News.STALE
        if desired.generation == self.assignment_generation and not self.assigned:
            return News.STALE
        if _same(desired, self.assignment):
            return News.REPEATED
        if not self.assigned:
            self.graves.clear()
        self.assignment, self.assigned = desired, True
        return News.CHANGED

    def remove(self, resource: UUID) -> News:
        """Take a tombstone in. A database takes its logins with it."""
        held = self.resources.get(resource)
        if held is None:
            news = News.REPEATED if resource in self.graves else News.CHANGED
            self.graves.setdefault(resource, 0)
            return news
        if held.removed:
            return News.REPEATED
        self.resources[resource] = held.model_copy(update={"removed": True})
        for other, login in self.logins:
            if login.desired.database == resource:
                self.resources[login.resource] = other.model_copy(update={"removed": True})
        return News.CHANGED

    def leave(self) -> News:
        """The tenant is no longer held here: what it has is fenced, until tombstones drop it."""
        if not self.assigned:
            return News.REPEATED
        self.assigned = False
        return News.CHANGED

    def snapshot(self) -> "Tenant":
        """What does not change while work on it goes on."""
        return self.model_copy(update={"resources": dict(self.resources), "graves": dict(self.graves)})

    def put(self, before: Held, after: Held) -> None:
        """Keep what work has found out about a resource, unless news came meanwhile."""
        if self.resources.get(before.resource.resource) is before:
            self.resources[before.resource.resource] = after

    def bury(self, held: Held) -> None:
        """The server has nothing left of a removed resource. A removed organization stays: it keeps its logins shut."""
        resource = held.resource.resource
        if resource != self.org_id and self.resources.get(resource) is held:
            del self.resources[resource]
            self.graves[resource] = held.resource.generation


def _same(desired: Desired, known: Desired | None) -> bool:
    """Whether it asks for what is known already; said again it comes in another trace."""
    return known is not None and (desired.generation, desired.desired) == (known.generation, known.desired)

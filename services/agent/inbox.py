"""Records in: decoded, checked against what their topic may say, folded into the desired state."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from pydantic import ValidationError

from schemas.feed import Assignment, DatabaseResource, Desired, Login, OrganizationResource, desired_from_json
from services.agent.desired import News, Tenant
from shared.log import log


class Record(NamedTuple):
    """One Kafka record, as its bytes."""

    topic: str
    offset: int
    key: bytes | None
    value: bytes | None
    again: bool = False
    """It was read before, and is now only because its topic speaks of one more tenant: nobody has said it again."""


class Unusable(Exception):
    """The record says nothing that this agent may act on; the message says why."""


@dataclass(frozen=True)
class Heard:
    """What a batch of records meant: tenants that changed, and resources that were said again."""

    changed: set[UUID]
    repeated: dict[UUID, set[UUID]]
    assignments_changed: bool


class Inbox:
    """The desired state of all tenants, and the only way into it."""

    def __init__(self, assignments_topic: str, tenants: dict[UUID, Tenant]) -> None:
        self.tenants = tenants
        self.skipped: Counter[str] = Counter()
        self._assignments_topic = assignments_topic

    def take(self, records: list[Record]) -> Heard:
        """Fold a batch in. Whatever cannot be used is counted, logged and skipped."""
        heard = Heard(set(), {}, assignments_changed=False)
        before = self.topics()
        for record in records:
            try:
                org_id, resource, news = self._take(record)
            except Unusable as reason:
                self.skipped[str(reason)] += 1
                log.warning("a record was skipped: %s", reason, extra={"topic": record.topic, "offset": record.offset})
            else:
                if news is News.CHANGED:
                    heard.changed.add(org_id)
                elif news is News.REPEATED and not record.again:
                    heard.repeated.setdefault(org_id, set()).add(resource)
        return Heard(heard.changed, heard.repeated, self.topics() != before)

    def topics(self) -> dict[str, frozenset[UUID]]:
        """The feed topics to read, each with the tenants that it may speak of."""
        topics: dict[str, set[UUID]] = {}
        for tenant in self.tenants.values():
            if tenant.topic:
                topics.setdefault(tenant.topic, set()).add(tenant.org_id)
        return {topic: frozenset(orgs) for topic, orgs in topics.items()}

    def _take(self, record: Record) -> tuple[UUID, UUID, News]:
        org_id, resource = _key(record.key)
        take = self._from_assignments if record.topic == self._assignments_topic else self._from_feed
        return org_id, resource, take(record, org_id, resource)

    def _from_assignments(self, record: Record, org_id: UUID, resource: UUID) -> News:
        desired = _desired(record, org_id, resource, (Assignment, Login))
        tenant = self.tenants.setdefault(org_id, Tenant(org_id=org_id))
        if desired is not None:
            return tenant.accept(desired)
        return tenant.leave() if resource == org_id else tenant.remove(resource)

    def _from_feed(self, record: Record, org_id: UUID, resource: UUID) -> News:
        tenant = self.tenants.get(org_id)
        if tenant is None or tenant.topic != record.topic:
            raise Unusable("its tenant is not assigned to this topic")
        desired = _desired(record, org_id, resource, (OrganizationResource, DatabaseResource))
        return tenant.remove(resource) if desired is None else tenant.accept(desired)


def _key(key: bytes | None) -> tuple[UUID, UUID]:
    try:
        org_id, resource = (key or b"").decode().split("/")
        return UUID(org_id), UUID(resource)
    except ValueError:
        raise Unusable("its key is not <org id>/<resource id>") from None


def _desired(record: Record, org_id: UUID, resource: UUID, kinds: tuple[type, ...]) -> Desired | None:
    if record.value is None:
        return None
    try:
        desired = desired_from_json.validate_json(record.value)
    except ValidationError as error:
        fields = sorted({".".join(map(str, problem["loc"])) for problem in error.errors(include_input=False)})
        raise Unusable(f"it does not read as desired state ({', '.join(fields)[:200]})") from None
    if (desired.org_id, desired.resource) != (org_id, resource):
        raise Unusable("its key and its value name different resources")
    if not isinstance(desired, kinds):
        raise Unusable(f"a {desired.kind} does not belong in this topic")
    return desired


Listener = Callable[[list[Record]], None]

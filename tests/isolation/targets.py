"""What each door is asked for: real ids of one tenant, and who of them may ask."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.contracts.rest import Operation
from tests.isolation.tenants import Tenant, invite
from tests.mesh import Door, eventually


@dataclass(frozen=True)
class Target:
    """``who`` is let in with these ids and this body."""

    who: Door
    ids: dict[str, str] = field(default_factory=dict)
    body: Any = None


def target_of(operation: Operation, tenant: Tenant) -> Target:
    """Made for this door where it is not there already."""
    known = TARGETS.get(str(operation))
    if known:
        return known(tenant)
    if operation.path in FOR_OPERATORS:
        return Target(tenant.mesh.operator)
    assert is_known(operation), f"say in TARGETS (tests/isolation/targets.py) for whom and with which ids {operation} opens"
    return Target(tenant.owner, {"org_id": tenant.org_id})


def is_known(operation: Operation) -> bool:
    """Whether it is said, or plain, for whom and with what it opens."""
    plain = operation.path.count("{") == operation.path.count("{org_id}") and not operation.body
    return plain or str(operation) in TARGETS or operation.path in FOR_OPERATORS


def _of_a_new_organization(**body: Any) -> Callable[[Tenant], Target]:
    return lambda t: Target(t.owner, {"org_id": _new_organization(t)}, body)


def _new_organization(t: Tenant) -> str:
    made = t.owner.post("org", "/orgs", {"name": "Another"})
    assert made.status_code == 202, made.text
    return str(made.json()["id"])


def _suspended(t: Tenant) -> Target:
    org_id = _new_organization(t)
    assert t.owner.post("org", f"/orgs/{org_id}/suspend", {"reason": "a holiday"}).status_code == 202
    return Target(t.owner, {"org_id": org_id})


def _clock(t: Tenant) -> Target:
    return Target(t.mesh.operator, {"org_id": _new_organization(t)}, {"advance_seconds": 1})


def _on_a_plan(t: Tenant) -> Target:
    return Target(t.mesh.operator, {"org_id": t.org_id}, {"plan": "team"})


def _open_invitation(t: Tenant) -> Target:
    org_id = _new_organization(t)
    return Target(t.owner, {"org_id": org_id, "invitation_id": invite(t.mesh, t.owner, org_id, "somebody@example.com")})


def _own_invitation(t: Tenant) -> Target:
    return Target(t.admin, {"invitation_id": invite(t.mesh, t.owner, _new_organization(t), t.admin.email)})


def _member(**body: Any) -> Callable[[Tenant], Target]:
    def make(t: Tenant) -> Target:
        org_id = _new_organization(t)
        accepted = t.admin.post("org", f"/invitations/{invite(t.mesh, t.owner, org_id, t.admin.email)}/accept")
        assert accepted.status_code == 202, accepted.text
        return Target(t.owner, {"org_id": org_id, "user_id": t.admin.user_id}, body or None)

    return make


def _session(t: Tenant) -> Target:
    before = {s["id"] for s in t.owner.get("user", "/sessions").json()["items"]}
    t.mesh.sign_in(t.owner.email)
    made = {s["id"] for s in t.owner.get("user", "/sessions").json()["items"]} - before
    return Target(t.owner, {"session_id": made.pop()})


def _key(t: Tenant) -> Target:
    made = t.owner.post("user", "/me/api-keys", {"name": "short-lived", "scopes": ["read"]})
    return Target(t.owner, {"key_id": made.json()["id"]})


def _message(t: Tenant) -> Target:
    return Target(t.owner, {"message_id": t.owner.get("notification", "/me/messages").json()["items"][0]["id"]})


def _database(who: str, **body: Any) -> Callable[[Tenant], Target]:
    return lambda t: Target(getattr(t, who), {"org_id": t.org_id, "database_id": t.database_id}, body or None)


def _second_database(state: str) -> Callable[[Tenant], Target]:
    """There is one more, ready or deleted: the same for both, because the plan has room for three."""

    def make(t: Tenant) -> Target:
        path = f"/orgs/{t.org_id}/databases"
        there = {d["name"]: d["id"] for d in t.owner.get("provisioning", path).json()["items"]}
        one = there.get("second") or t.owner.post("provisioning", path, {"name": "second"}).json()["id"]

        def becomes(wanted: tuple[str, ...]) -> str:
            return str(eventually(lambda: s if (s := t.owner.get("provisioning", f"{path}/{one}").json()["state"]) in wanted else None))

        if becomes(("ready", "deleted")) != state:
            asked = t.owner.delete("provisioning", f"{path}/{one}") if state == "deleted" else t.owner.post("provisioning", f"{path}/{one}/undelete")
            assert asked.status_code == 202, asked.text
            becomes((state,))
        return Target(t.owner, {"org_id": t.org_id, "database_id": one})

    return make


def _order(**body: Any) -> Callable[[Tenant], Target]:
    """Of an operator, about a flow that waits for a person."""

    def make(t: Tenant) -> Target:
        started = t.owner.post("org", f"/orgs/{_new_organization(t)}/invitations", {"email": "somebody@example.com"})
        flow_id = started.json()["flow_id"]
        eventually(lambda: t.owner.get("console", f"/flows/{flow_id}").json()["state"] == "waiting_person")
        return Target(t.mesh.operator, {"flow_id": flow_id}, {"reason": "a test"} | body)

    return make


def _about_a_stream(**body: Any) -> Callable[[Tenant], Target]:
    return lambda t: Target(t.mesh.operator, {"service": "org"}, {"stream": f"org:{t.org_id}", "reason": "a test"} | body)


def _given_order(t: Tenant) -> Target:
    given = t.mesh.operator.post("console", "/services/org/resend", {"stream": f"org:{t.org_id}", "from_seq": 1, "to_seq": 1, "reason": "a test"})
    assert given.status_code == 201, given.text
    return Target(t.mesh.operator, {"id": given.json()["orders"][0]["id"]})


FOR_OPERATORS = ("/lag", "/flows", "/parked", "/orders", "/audit")
"""Lists of all tenants, and figures of the whole."""

TARGETS: dict[str, Callable[[Tenant], Target]] = {
    "user DELETE /sessions/current": lambda t: Target(Door(t.mesh.urls, t.mesh.sign_in(t.owner.email))),
    "user DELETE /sessions/{session_id}": _session,
    "user PATCH /me": lambda t: Target(t.owner, body={"name": "Ann"}),
    "user GET /users/{user_id}": lambda t: Target(t.admin, {"user_id": t.owner.user_id}),
    "user POST /me/api-keys": lambda t: Target(t.owner, body={"name": "one more", "scopes": ["read"]}),
    "user DELETE /me/api-keys/{key_id}": _key,
    "org POST /orgs": lambda t: Target(t.owner, body={"name": "One more"}),
    "org PATCH /orgs/{org_id}": _of_a_new_organization(name="Renamed"),
    "org POST /orgs/{org_id}/suspend": _of_a_new_organization(reason="a holiday"),
    "org POST /orgs/{org_id}/resume": _suspended,
    "org POST /orgs/{org_id}/clock": _clock,
    "org POST /orgs/{org_id}/invitations": _of_a_new_organization(email="somebody@example.com"),
    "org DELETE /orgs/{org_id}/invitations/{invitation_id}": _open_invitation,
    "org POST /invitations/{invitation_id}/accept": _own_invitation,
    "org PATCH /orgs/{org_id}/members/{user_id}": _member(role="admin"),
    "org DELETE /orgs/{org_id}/members/{user_id}": _member(),
    "billing POST /orgs/{org_id}/subscription": _on_a_plan,
    "notification POST /me/messages/{message_id}/read": _message,
    "provisioning POST /orgs/{org_id}/databases": lambda t: Target(t.owner, {"org_id": t.org_id}, {"name": "third"}),
    "provisioning GET /orgs/{org_id}/databases/{database_id}": _database("owner"),
    "provisioning PATCH /orgs/{org_id}/databases/{database_id}": _database("owner", connection_limit=7),
    "provisioning DELETE /orgs/{org_id}/databases/{database_id}": _second_database("ready"),
    "provisioning POST /orgs/{org_id}/databases/{database_id}/undelete": _second_database("deleted"),
    "provisioning POST /orgs/{org_id}/databases/{database_id}/credentials": _database("admin"),
    "console GET /flows/{flow_id}": lambda t: Target(t.owner, {"flow_id": t.flow_id}),
    "console GET /flows/{flow_id}/events": lambda t: Target(t.owner, {"flow_id": t.flow_id}),
    "console POST /flows/{flow_id}/retry": _order(),
    "console POST /flows/{flow_id}/skip": _order(),
    "console POST /flows/{flow_id}/cancel": _order(),
    "console POST /parked/retry": lambda t: Target(t.mesh.operator, body={"actor": "billing.start_the_subscription", "reason": "a test"}),
    "console GET /parked/{id}": lambda t: Target(t.mesh.operator),
    "console POST /parked/{id}/retry": lambda t: Target(t.mesh.operator, body={"reason": "a test"}),
    "console POST /parked/{id}/skip": lambda t: Target(t.mesh.operator, body={"reason": "a test"}),
    "console POST /services/{service}/resend": _about_a_stream(from_seq=1, to_seq=1),
    "console POST /services/{service}/restate": _about_a_stream(),
    "console GET /orders/{id}": _given_order,
}
"""Doors that need more than the organization's id. A door that is missing here and needs it fails its test."""

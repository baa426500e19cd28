"""A tenant with something of everything, so that every table and every door has something to hide."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.flows.people import credentials, finished, introduce, ready_database, verify
from tests.mesh import Customer, Door, TestMesh, eventually


@dataclass(frozen=True)
class Tenant:
    """An organization, its owner, an admin of it, and the ids of what they have."""

    mesh: TestMesh
    owner: Customer
    admin: Customer
    org_id: str
    database_id: str
    dsn: str
    """The owner's own credentials for the database; they work."""
    key_id: str
    key: str
    invitation_id: str
    flow_id: str

    @property
    def traces(self) -> tuple[str, ...]:
        """What tells that something is about this tenant, wherever it shows up."""
        return self.org_id, self.owner.user_id, self.owner.email, self.database_id, self.key_id, self.invitation_id


def settle(mesh: TestMesh) -> Tenant:
    """Signs up, verifies, invites, makes keys, ends a session, and waits until every service has heard of it."""
    owner = mesh.sign_up()
    verify(mesh, owner)
    admin = mesh.sign_up(organization=None)
    verify(mesh, admin)
    org_id, database_id = owner.org_id, ready_database(owner)["id"]
    join(mesh, owner, org_id, admin, "admin")
    key = owner.post("user", "/me/api-keys", {"name": "mine", "scopes": ["read", "write"]}).json()
    left = Door(mesh.urls, mesh.sign_in(owner.email))
    assert left.delete("user", "/sessions/current").status_code == 204
    assert mesh.operator.post("org", f"/orgs/{org_id}/clock", {"advance_seconds": 1}).status_code == 202
    open_one = owner.post("org", f"/orgs/{org_id}/invitations", {"email": f"later.{owner.email}"})
    assert open_one.status_code == 202, open_one.text
    dsn = credentials(owner, org_id, database_id)
    finished(owner, owner.flow_id)
    introduce(owner, admin)
    return Tenant(mesh, owner, admin, org_id, database_id, dsn, key["id"], key["secret"], open_one.json()["id"], owner.flow_id)


def invite(mesh: TestMesh, owner: Customer, org_id: str, email: str, role: str = "member") -> str:
    """The id of an open invitation."""
    made = owner.post("org", f"/orgs/{org_id}/invitations", {"email": email, "role": role})
    assert made.status_code == 202, made.text
    return str(made.json()["id"])


def join(mesh: TestMesh, owner: Customer, org_id: str, person: Customer, role: str = "member") -> None:
    """The person is a member now, and every service knows."""
    invitation = invite(mesh, owner, org_id, person.email, role)
    introduce(owner, person)
    accepted = person.post("org", f"/invitations/{invitation}/accept")
    assert accepted.status_code == 202, accepted.text
    introduce(owner, person)
    for service, path in member_doors(org_id).items():
        eventually(partial(_enters, person, service, path), what=f"{service} knows the member")


def _enters(person: Customer, service: str, path: str) -> bool:
    return person.get(service, path).status_code in (200, 403)


def member_doors(org_id: str) -> dict[str, str]:
    """A door of each service that is there for members only."""
    return {
        "org": f"/orgs/{org_id}", "billing": f"/orgs/{org_id}/subscription", "notification": f"/orgs/{org_id}/messages",
        "provisioning": f"/orgs/{org_id}/databases", "console": f"/orgs/{org_id}/flows",
    }  # fmt: skip


def look(mesh: TestMesh, service: str, sql: str, *args: Any) -> list[dict[str, Any]]:
    """What an administrator sees in the service's database, wherever that is."""
    return mesh.rows(sql, *args, database=mesh.mesh.databases.server.url(mesh.mesh.plan.database_of(service)))

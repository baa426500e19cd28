"""Who may do what: every door of an organization, asked by every role, and while the organization is suspended."""

import pytest

from tests.contracts.rest import OPERATIONS, Operation
from tests.flows.people import introduce, verify
from tests.mesh import Customer, TestMesh
from tests.notification.mailbox import invite

ROLES = ("member", "admin", "owner")
LEAST = {
    "org PATCH /orgs/{org_id}": "admin",
    "org POST /orgs/{org_id}/suspend": "owner",
    "org POST /orgs/{org_id}/resume": "owner",
    "org POST /orgs/{org_id}/invitations": "admin",
    "org GET /orgs/{org_id}/invitations": "admin",
    "org DELETE /orgs/{org_id}/invitations/{invitation_id}": "admin",
    "org PATCH /orgs/{org_id}/members/{user_id}": "admin",
    "org DELETE /orgs/{org_id}/members/{user_id}": "admin",
    "notification GET /orgs/{org_id}/messages": "admin",
    "provisioning POST /orgs/{org_id}/databases": "admin",
    "provisioning PATCH /orgs/{org_id}/databases/{database_id}": "admin",
    "provisioning DELETE /orgs/{org_id}/databases/{database_id}": "admin",
    "provisioning POST /orgs/{org_id}/databases/{database_id}/undelete": "admin",
    "console GET /orgs/{org_id}/audit": "admin",
}
"""The least role a door lets in, where that is more than any member."""
FOR_OPERATORS = ("org POST /orgs/{org_id}/clock", "billing POST /orgs/{org_id}/subscription")
OF_AN_ORGANIZATION = [o for o in OPERATIONS if "{org_id}" in o.path and str(o) not in FOR_OPERATORS]


@pytest.fixture(scope="module")
def team(mesh: TestMesh) -> dict[str, Customer]:
    """One person of each role, all of them verified and known to each other."""
    people = {role: mesh.sign_up(organization="Team" if role == "owner" else None) for role in ROLES}
    for person in people.values():
        verify(mesh, person)
    for role in ("admin", "member"):
        invite(mesh, people["owner"], people[role], role)
    introduce(*people.values())
    return people


def test_every_named_door_is_there() -> None:
    assert LEAST.keys() <= {str(o) for o in OF_AN_ORGANIZATION}
    assert {str(o) for o in OPERATIONS} >= set(FOR_OPERATORS)


@pytest.mark.parametrize("operation", OF_AN_ORGANIZATION, ids=str)
def test_a_door_lets_in_its_least_role_and_those_above(team: dict[str, Customer], operation: Operation) -> None:
    least = LEAST.get(str(operation), "member")
    for role in ROLES:
        answer = operation.call(team[role], org_id=team["owner"].org_id)
        forbidden = answer.status_code == 403 and answer.json()["type"] == "/problems/forbidden"
        assert forbidden == (ROLES.index(role) < ROLES.index(least)), f"{role}: {answer.status_code} {answer.text}"


def test_only_owners_make_and_remove_owners(team: dict[str, Customer]) -> None:
    org, owner, admin = team["owner"].org_id, team["owner"], team["admin"]
    members = f"/orgs/{org}/members"
    for refused in (
        admin.patch("org", f"{members}/{owner.user_id}", {"role": "member"}),
        admin.delete("org", f"{members}/{owner.user_id}"),
        admin.patch("org", f"{members}/{admin.user_id}", {"role": "owner"}),
        admin.post("org", f"/orgs/{org}/invitations", {"email": "new.owner@example.com", "role": "owner"}),
    ):
        assert (refused.status_code, refused.json()["type"]) == (403, "/problems/forbidden")
    roles = {m["user_id"]: m["role"] for m in owner.get("org", members).json()["items"]}
    assert roles == {person.user_id: role for role, person in team.items()}


def test_a_colleague_sees_who_i_am(team: dict[str, Customer]) -> None:
    owner, member = team["owner"], team["member"]
    seen = member.get("user", f"/users/{owner.user_id}")
    assert (seen.status_code, seen.json()["email"], seen.json()["name"]) == (200, owner.email, "Ann")


def test_a_suspended_organization_refuses_every_change_but_leaving_and_is_read_and_resumed(mesh: TestMesh) -> None:
    owner, member = mesh.sign_up(), mesh.sign_up(organization=None)
    for person in (owner, member):
        verify(mesh, person)
    invite(mesh, owner, member)
    org = owner.org_id
    assert owner.post("org", f"/orgs/{org}/suspend", {"reason": "holiday"}).status_code == 202
    introduce(owner, member)
    for operation in (o for o in OF_AN_ORGANIZATION if not o.path.endswith("/resume")):
        answer = operation.call(owner, org_id=org)
        if operation.method == "GET":
            assert answer.status_code == (200 if operation.path.count("{") == 1 else 404), str(operation)
        else:
            assert (answer.status_code, answer.json()["type"]) == (423, "/problems/suspended"), str(operation)
    assert owner.delete("org", f"/orgs/{org}/members/{member.user_id}").status_code == 423
    assert member.delete("org", f"/orgs/{org}/members/{member.user_id}").status_code == 202
    assert owner.post("org", f"/orgs/{org}/resume").status_code == 202


def test_an_operator_suspends_and_resumes_and_moves_the_clock_and_nobody_else_does_that(mesh: TestMesh, team: dict[str, Customer]) -> None:
    owner = mesh.sign_up()
    org = owner.org_id
    for level, who in (("operator", mesh.operator), ("owner", owner)):
        suspended = who.post("org", f"/orgs/{org}/suspend", {"reason": "a test"})
        assert (suspended.status_code, suspended.json()["suspended_by"]) == (202, level)
        assert mesh.operator.post("org", f"/orgs/{org}/resume").status_code == 202, "above an owner, and itself"
    assert mesh.operator.post("org", f"/orgs/{org}/clock", {"advance_seconds": 1}).status_code == 202
    clock = team["owner"].post("org", f"/orgs/{team['owner'].org_id}/clock", {"advance_seconds": 1})
    assert (clock.status_code, clock.json()["type"]) == (403, "/problems/forbidden")

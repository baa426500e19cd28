"""Invitations and the room a plan has for members."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from tests.flows.people import introduce, verify
from tests.mesh import Customer, TestMesh, eventually
from tests.notification.mailbox import accept, invite, invited


@pytest.fixture
def owner(mesh: TestMesh, customer: Customer) -> Customer:
    """With a verified address."""
    verify(mesh, customer)
    return customer


def address() -> str:
    return f"bob.{uuid.uuid4().hex[:12]}@example.com"


def test_an_invitation_is_good_for_seven_days_and_listed_with_its_state(owner: Customer) -> None:
    path, email = f"/orgs/{owner.org_id}/invitations", address()
    made = owner.post("org", path, {"email": email})
    assert made.status_code == 202
    life = datetime.fromisoformat(made.json()["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=7) - timedelta(minutes=1) < life <= timedelta(days=7)
    (listed,) = owner.get("org", path).json()["items"]
    assert (listed["id"], listed["email"], listed["role"], listed["state"]) == (made.json()["id"], email, "member", "pending")
    assert listed["invited_by"] == owner.user_id


def test_an_address_is_invited_once_and_again_when_the_first_was_withdrawn(owner: Customer) -> None:
    path, email = f"/orgs/{owner.org_id}/invitations", address()
    first = owner.post("org", path, {"email": email})
    again = owner.post("org", path, {"email": email.upper()})
    assert (again.status_code, again.json()["type"]) == (409, "/problems/already-invited")
    withdrawn = owner.delete("org", f"{path}/{first.json()['id']}")
    assert (withdrawn.status_code, withdrawn.json()["state"]) == (202, "withdrawn")
    assert withdrawn.json()["flow_id"] == first.json()["flow_id"]
    assert owner.get("console", f"/flows/{first.json()['flow_id']}?wait=10").json()["state"] == "cancelled"
    assert owner.delete("org", f"{path}/{first.json()['id']}").status_code == 409
    assert owner.post("org", path, {"email": email}).status_code == 202


def test_a_member_is_not_invited_again_and_accepts_once(mesh: TestMesh, owner: Customer) -> None:
    bob = mesh.sign_up(organization=None)
    verify(mesh, bob)
    invite(mesh, owner, bob)
    (accepted,) = owner.get("org", f"/orgs/{owner.org_id}/invitations").json()["items"]
    assert accepted["state"] == "accepted"
    again = bob.post("org", f"/invitations/{accepted['id']}/accept")
    assert (again.status_code, again.json()["type"]) == (409, "/problems/invitation-closed")
    assert "is a member already" in again.json()["detail"]
    refused = owner.post("org", f"/orgs/{owner.org_id}/invitations", {"email": bob.email})
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/already-member")
    seen = bob.get("org", f"/orgs/{owner.org_id}/members").json()["items"]
    assert {(m["user_id"], m["email"], m["role"]) for m in seen} == {(owner.user_id, owner.email, "owner"), (bob.user_id, bob.email, "member")}


def test_an_address_that_is_not_verified_accepts_nothing_until_it_is(mesh: TestMesh, owner: Customer) -> None:
    bob = mesh.sign_up(organization=None)
    made = owner.post("org", f"/orgs/{owner.org_id}/invitations", {"email": bob.email}).json()
    introduce(owner, bob)
    accept = f"/invitations/{made['id']}/accept"
    refused, unknown = bob.post("org", accept), bob.post("org", f"/invitations/{uuid.uuid4()}/accept")
    assert (refused.status_code, refused.json()["detail"]) == (404, unknown.json()["detail"]), "who guesses ids learns nothing"
    verify(mesh, bob)
    assert bob.post("org", accept).status_code == 202


def test_the_free_plan_has_room_for_three_counting_open_invitations(mesh: TestMesh, owner: Customer) -> None:
    org = owner.org_id
    assert mesh.operator.post("org", f"/orgs/{org}/clock", {"advance_seconds": 15 * 86400}).status_code == 202
    known = "SELECT (limits ->> 'members')::int AS members FROM org.subscriptions WHERE org_id = $1"
    eventually(lambda: mesh.rows(known, uuid.UUID(org)) == [{"members": 3}], what="the end of the trial")
    answers = [owner.post("org", f"/orgs/{org}/invitations", {"email": address()}) for _ in range(3)]
    assert [a.status_code for a in answers] == [202, 202, 409]
    assert answers[-1].json()["type"] == "/problems/member-limit"


def test_who_was_invited_in_the_trial_and_finds_no_room_after_it_accepts_when_there_is_some(mesh: TestMesh, owner: Customer) -> None:
    org, known = owner.org_id, "SELECT (limits ->> 'members')::int AS members FROM org.subscriptions WHERE org_id = $1"
    eventually(lambda: mesh.rows(known, uuid.UUID(org)) == [{"members": 15}], what="the trial")
    assert mesh.operator.post("org", f"/orgs/{org}/clock", {"advance_seconds": 13 * 86400}).status_code == 202
    people = [mesh.sign_up(organization=None) for _ in range(3)]
    for person in people:
        verify(mesh, person)
    *first, late = [invited(owner, person) for person in people]
    assert mesh.operator.post("org", f"/orgs/{org}/clock", {"advance_seconds": 2 * 86400}).status_code == 202
    eventually(lambda: mesh.rows(known, uuid.UUID(org)) == [{"members": 3}], what="the end of the trial")
    for person, invitation in zip(people, first, strict=False):
        accept(owner, person, invitation)
    introduce(owner, people[2])
    refused = people[2].post("org", f"/invitations/{late}/accept")
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/no-room")
    assert {i["id"]: i["state"] for i in owner.get("org", f"/orgs/{org}/invitations").json()["items"]}[late] == "pending"
    assert owner.delete("org", f"/orgs/{org}/members/{people[0].user_id}").status_code == 202
    accept(owner, people[2], late)


def test_a_member_may_leave(mesh: TestMesh, owner: Customer) -> None:
    bob = mesh.sign_up(organization=None)
    verify(mesh, bob)
    invite(mesh, owner, bob)
    assert bob.delete("org", f"/orgs/{owner.org_id}/members/{bob.user_id}").status_code == 202
    assert bob.get("org", f"/orgs/{owner.org_id}").status_code == 404
    assert bob.get("org", "/orgs").json()["items"] == []

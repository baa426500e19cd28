"""Organizations through their doors."""

import uuid
from concurrent.futures import ThreadPoolExecutor

from tests.flows.people import verify
from tests.mesh import Customer, Door, TestMesh, eventually
from tests.notification.mailbox import invite


def test_a_sign_up_makes_the_organization_with_its_owner(mesh: TestMesh) -> None:
    ann = mesh.sign_up(organization="Ann's")
    orgs = eventually(lambda: ann.get("org", "/orgs").json()["items"])
    assert [(o["name"], o["role"]) for o in orgs] == [("Ann's", "owner")]


def test_a_stranger_sees_no_organization(customer: Customer, mesh: TestMesh) -> None:
    stranger = mesh.sign_up()
    assert customer.get("org", f"/orgs/{customer.org_id}").status_code == 200
    assert stranger.get("org", f"/orgs/{customer.org_id}").status_code == 404
    assert customer.org_id not in stranger.get("org", "/orgs").text


def test_renaming_needs_the_version_one_has_seen(customer: Customer) -> None:
    path = f"/orgs/{customer.org_id}"
    seen = customer.get("org", path).headers["ETag"]
    changed = customer.patch("org", path, {"name": "First"}, headers={"If-Match": seen})
    assert (changed.status_code, changed.headers["ETag"]) == (200, customer.get("org", path).headers["ETag"])
    same = customer.patch("org", path, {"name": "First"}, headers={"If-None-Match": changed.headers["ETag"]})
    assert (same.status_code, same.json()["name"]) == (200, "First"), "only what is read is not sent twice"
    refused = customer.patch("org", path, {"name": "Second"}, headers={"If-Match": seen})
    assert (refused.status_code, refused.json()["type"]) == (412, "/problems/precondition-failed")
    assert customer.get("org", path).json()["name"] == "First"


def test_a_repeated_request_with_its_key_is_carried_out_once(customer: Customer) -> None:
    path = f"/orgs/{customer.org_id}/suspend"
    first = customer.post("org", path, {"reason": "holiday"}, headers={"Idempotency-Key": "once"})
    again = customer.post("org", path, {"reason": "holiday"}, headers={"Idempotency-Key": "once"})
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json() == again.json()
    other = customer.post("org", path, {"reason": "another"}, headers={"Idempotency-Key": "once"})
    assert (other.status_code, other.json()["type"]) == (422, "/problems/key-reused")


def test_a_suspended_organization_refuses_changes_and_may_be_read_and_resumed(customer: Customer) -> None:
    org = customer.org_id
    assert customer.post("org", f"/orgs/{org}/suspend", {"reason": "holiday"}).status_code == 202
    assert customer.patch("org", f"/orgs/{org}", {"name": "No"}).status_code == 423
    assert customer.get("org", f"/orgs/{org}").json()["state"] == "suspended"
    assert customer.post("org", f"/orgs/{org}/resume").status_code == 202
    assert customer.post("org", f"/orgs/{org}/resume").status_code == 409
    assert customer.patch("org", f"/orgs/{org}", {"name": "Yes"}).status_code == 200


def test_what_an_operator_suspended_its_owner_cannot_resume(customer: Customer, mesh: TestMesh) -> None:
    org = customer.org_id
    assert mesh.operator.post("org", f"/orgs/{org}/suspend", {"reason": "abuse"}).status_code == 202
    assert customer.post("org", f"/orgs/{org}/resume").status_code == 403
    assert mesh.operator.post("org", f"/orgs/{org}/resume").status_code == 202


def test_the_last_owner_stays(customer: Customer) -> None:
    org = customer.org_id
    for answer in (
        customer.delete("org", f"/orgs/{org}/members/{customer.user_id}"),
        customer.patch("org", f"/orgs/{org}/members/{customer.user_id}", {"role": "member"}),
    ):
        assert (answer.status_code, answer.json()["type"]) == (409, "/problems/last-owner")


def test_inviting_and_creating_more_need_a_verified_address(customer: Customer) -> None:
    for answer in (customer.post("org", "/orgs", {"name": "More"}), customer.post("org", f"/orgs/{customer.org_id}/invitations", {"email": "b@example.com"})):
        assert (answer.status_code, answer.json()["type"]) == (403, "/problems/not-verified")


def test_an_owner_who_is_demoted_while_the_request_waits_acts_as_an_admin(mesh: TestMesh, verified: Customer) -> None:
    org, second, third = verified.org_id, mesh.sign_up(organization=None), mesh.sign_up(organization=None)
    for person, role in ((second, "owner"), (third, "member")):
        verify(mesh, person)
        invite(mesh, verified, person, role)
    members, demoted = f"/orgs/{org}/members", Door(mesh.urls, second.headers["Authorization"][7:])
    requests = (
        (verified, "PATCH", f"{members}/{second.user_id}", {"role": "admin"}),
        (demoted, "PATCH", f"{members}/{third.user_id}", {"role": "owner"}),
        (demoted, "POST", f"/orgs/{org}/invitations", {"email": f"{uuid.uuid4()}@example.com", "role": "owner"}),
    )
    with ThreadPoolExecutor(len(requests)) as pool:
        answers = []
        with mesh.nothing_is_written("org", f"org:{org}"):
            for who, method, path, body in requests:
                answers.append(pool.submit(who.call, method, "org", path, body))
                eventually(lambda: mesh.waiting("org") == len(answers), what="the request to wait for the organization")
        assert [a.result().status_code for a in answers] == [202, 403, 403]
    roles = {m["user_id"]: m["role"] for m in verified.get("org", members).json()["items"]}
    assert roles == {verified.user_id: "owner", second.user_id: "admin", third.user_id: "member"}

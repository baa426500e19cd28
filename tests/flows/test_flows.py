"""Every flow from its door to its last step, through all services, on the real bus."""

import asyncpg
import pytest

from tests.flows.people import credentials, execute, finished, introduce, may_log_in, ready_database, token_of, verify
from tests.mesh import PASSWORD, Customer, TestMesh, eventually


@pytest.fixture
def teammate(mesh: TestMesh, customer: Customer) -> Customer:
    """Somebody with a verified address, invited by nobody yet; the customer's address is verified too."""
    bob = mesh.sign_up(organization=None)
    verify(mesh, customer)
    verify(mesh, bob)
    introduce(customer, bob)
    return bob


def invited(mesh: TestMesh, customer: Customer, teammate: Customer, role: str = "member") -> str:
    """The teammate has accepted an invitation; the id of the flow, done."""
    started = customer.post("org", f"/orgs/{customer.org_id}/invitations", {"email": teammate.email, "role": role})
    assert started.status_code == 202, started.text
    eventually(lambda: mesh.mails(teammate.email, "invit"), what="the invitation's mail")
    introduce(customer, teammate)
    accepted = teammate.post("org", f"/invitations/{started.json()['id']}/accept")
    assert accepted.status_code == 202, accepted.text
    introduce(customer, teammate)
    finished(customer, started.json()["flow_id"])
    return str(started.json()["flow_id"])


def test_a_sign_up_ends_with_a_database_that_the_customer_uses(mesh: TestMesh, customer: Customer) -> None:
    flow = finished(customer, customer.flow_id)
    assert {"user", "org", "billing", "provisioning", "notification"} <= {s["service"] for s in flow["steps"]}
    assert all(s["state"] == "met" for s in flow["steps"])
    database = ready_database(customer)
    dsn = credentials(customer, customer.org_id, database["id"])
    assert execute(dsn, "CREATE TABLE t (n int); INSERT INTO t VALUES (42)", "SELECT n FROM t") == 42
    subscription = customer.get("billing", f"/orgs/{customer.org_id}/subscription").json()
    assert subscription["state"] == "trialing"
    assert subscription["stripe_customer"].startswith("cus_")
    assert len(mesh.mails(customer.email, "ready")) == 1


def test_an_invited_teammate_gets_a_role_in_the_database(mesh: TestMesh, customer: Customer, teammate: Customer) -> None:
    database = ready_database(customer)
    owner = credentials(customer, customer.org_id, database["id"])
    execute(owner, "CREATE TABLE notes (text text)", "SELECT 1")
    invited(mesh, customer, teammate)
    member = credentials(teammate, customer.org_id, database["id"])
    assert execute(member, "INSERT INTO notes VALUES ('from the member')", "SELECT count(*) FROM notes") == 1
    execute(owner, "CREATE TABLE later (n int)", "SELECT 1")
    assert execute(member, "INSERT INTO later VALUES (1)", "SELECT count(*) FROM later") == 1, "new tables are included"
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        execute(member, "CREATE TABLE mine (n int)", "SELECT 1")


def test_a_new_role_changes_the_database_and_a_removed_member_loses_it(mesh: TestMesh, customer: Customer, teammate: Customer) -> None:
    org, database = customer.org_id, ready_database(customer)
    invited(mesh, customer, teammate)
    dsn = credentials(teammate, org, database["id"])
    promoted = customer.patch("org", f"/orgs/{org}/members/{teammate.user_id}", {"role": "admin"})
    assert promoted.status_code == 202, promoted.text
    finished(customer, promoted.json()["flow_id"])
    assert execute(dsn, "CREATE TABLE theirs (n int); INSERT INTO theirs VALUES (7)", "SELECT n FROM theirs") == 7
    removed = customer.delete("org", f"/orgs/{org}/members/{teammate.user_id}")
    assert removed.status_code == 202, removed.text
    finished(customer, removed.json()["flow_id"])
    assert not may_log_in(dsn)
    assert teammate.get("org", f"/orgs/{org}").status_code == 404
    mine = credentials(customer, org, database["id"])
    assert execute(mine, "SELECT n FROM theirs") == 7, "what they made stays with the organization"


def test_a_withdrawn_invitation_refuses(mesh: TestMesh, customer: Customer, teammate: Customer) -> None:
    path = f"/orgs/{customer.org_id}/invitations"
    started = customer.post("org", path, {"email": teammate.email}).json()
    assert customer.delete("org", f"{path}/{started['id']}").status_code == 202
    introduce(customer, teammate)
    refused = teammate.post("org", f"/invitations/{started['id']}/accept")
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/invitation-closed")


def test_an_expired_invitation_refuses(mesh: TestMesh, customer: Customer, teammate: Customer) -> None:
    org = customer.org_id
    started = customer.post("org", f"/orgs/{org}/invitations", {"email": teammate.email}).json()
    assert mesh.operator.post("org", f"/orgs/{org}/clock", {"advance_seconds": 8 * 86400}).status_code == 202
    introduce(customer, teammate)
    listed = f"/orgs/{org}/invitations"
    eventually(lambda: [i["state"] for i in customer.get("org", listed).json()["items"] if i["id"] == started["id"]] == ["expired"])
    assert teammate.post("org", f"/invitations/{started['id']}/accept").status_code == 409


def test_an_invitation_is_accepted_by_its_own_address_alone(mesh: TestMesh, customer: Customer, teammate: Customer) -> None:
    started = customer.post("org", f"/orgs/{customer.org_id}/invitations", {"email": "somebody.else@example.com"}).json()
    introduce(customer, teammate)
    assert teammate.post("org", f"/invitations/{started['id']}/accept").status_code == 404


def test_a_suspended_organization_loses_its_sessions_and_all_is_as_before_after_resume(customer: Customer) -> None:
    org, database = customer.org_id, ready_database(customer)
    dsn = credentials(customer, org, database["id"])
    execute(dsn, "CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)", "SELECT 1")
    suspended = customer.post("org", f"/orgs/{org}/suspend", {"reason": "holiday"}).json()
    finished(customer, suspended["flow_id"])
    assert not may_log_in(dsn)
    assert customer.get("provisioning", f"/orgs/{org}/databases/{database['id']}").json()["state"] == "suspended"
    assert customer.post("provisioning", f"/orgs/{org}/databases", {"name": "more"}).status_code in (403, 423)
    finished(customer, customer.post("org", f"/orgs/{org}/resume").json()["flow_id"])
    assert execute(dsn, "SELECT n FROM kept") == 1


def test_suspend_then_resume_at_once_never_hangs_in_between(customer: Customer) -> None:
    org, database = customer.org_id, ready_database(customer)
    dsn = credentials(customer, org, database["id"])
    suspended = customer.post("org", f"/orgs/{org}/suspend", {"reason": "a slip"}).json()
    resumed = customer.post("org", f"/orgs/{org}/resume").json()
    finished(customer, resumed["flow_id"])
    first = customer.get("console", f"/flows/{suspended['flow_id']}?wait=20").json()
    assert first["state"] in ("done", "superseded"), first
    assert may_log_in(dsn)


def test_an_operator_takes_the_suspension_of_an_owner_over_who_cannot_resume_it_then(mesh: TestMesh, customer: Customer) -> None:
    org = customer.org_id
    ready_database(customer)
    first = customer.post("org", f"/orgs/{org}/suspend", {"reason": "holiday"}).json()
    taken = mesh.operator.post("org", f"/orgs/{org}/suspend", {"reason": "abuse"})
    assert (taken.status_code, taken.json()["suspended_by"], taken.json()["reason"]) == (202, "operator", "abuse")
    for flow in (first, taken.json()):
        finished(customer, flow["flow_id"])
    again = mesh.operator.post("org", f"/orgs/{org}/suspend", {"reason": "abuse"})
    assert (again.status_code, again.json()["type"]) == (409, "/problems/already-suspended")
    refused = customer.post("org", f"/orgs/{org}/resume")
    assert (refused.status_code, refused.json()["type"]) == (403, "/problems/suspended-above")
    eventually(lambda: any("our operations team" in m["text"] for m in mesh.mails(customer.email, "suspended")), what="the mail that says so")
    finished(mesh.operator, mesh.operator.post("org", f"/orgs/{org}/resume").json()["flow_id"])


def test_a_database_is_created_changed_deleted_and_brought_back(mesh: TestMesh, customer: Customer) -> None:
    org = customer.org_id
    verify(mesh, customer)
    path = f"/orgs/{org}/databases"
    made = customer.post("provisioning", path, {"name": "reports"})
    assert made.status_code == 202, made.text
    finished(customer, made.json()["flow_id"])
    one = f"{path}/{made.json()['id']}"
    dsn = credentials(customer, org, made.json()["id"])
    execute(dsn, "CREATE TABLE kept (n int); INSERT INTO kept VALUES (5)", "SELECT 1")
    finished(customer, customer.patch("provisioning", one, {"connection_limit": 2}).json()["flow_id"])
    assert customer.get("provisioning", one).json()["limits"]["connections"] == 2
    deleting = customer.delete("provisioning", one).json()["flow_id"]
    assert customer.get("console", f"/flows/{deleting}?wait=40").json()["state"] == "waiting_timer", "its data is kept for a day"
    assert not may_log_in(dsn)
    finished(customer, customer.post("provisioning", f"{one}/undelete").json()["flow_id"])
    eventually(lambda: may_log_in(dsn))
    assert execute(dsn, "SELECT n FROM kept") == 5


def test_an_address_is_verified_by_its_link_once(mesh: TestMesh, customer: Customer) -> None:
    token = token_of(mesh, customer.email, "verify")
    assert customer.get("user", "/me").json()["verified_at"] is None
    assert customer.post("user", "/users/verify", {"token": token}).status_code == 204
    assert customer.get("user", "/me").json()["verified_at"] is not None
    assert customer.post("user", "/users/verify", {"token": token}).status_code == 409
    assert customer.post("user", "/users/verify", {"token": token[:-6] + "AAAAAA"}).status_code == 422


def test_a_password_is_reset_by_its_link_and_every_session_ends(mesh: TestMesh, customer: Customer) -> None:
    assert mesh.anyone.post("user", "/password-resets", {"email": customer.email}).status_code == 202
    assert mesh.anyone.post("user", "/password-resets", {"email": "nobody@example.com"}).status_code == 202
    body = {"token": token_of(mesh, customer.email, "password"), "password": "another long river"}
    assert mesh.anyone.post("user", "/password-resets/confirm", body).status_code == 204
    assert customer.get("user", "/me").status_code == 401
    assert mesh.anyone.post("user", "/sessions", {"email": customer.email, "password": PASSWORD}).status_code == 401
    assert mesh.sign_in(customer.email, "another long river")


def test_databases_are_placed_on_every_data_plane_there_is(mesh: TestMesh) -> None:
    planes = {plane["id"]: plane["port"] for plane in mesh.status["data_planes"]}
    used = set()
    for _ in range(2 * len(planes)):
        someone = mesh.sign_up()
        database = ready_database(someone)
        assert database["port"] == planes[database["data_plane"]], "it lives where it is said to live"
        assert may_log_in(credentials(someone, someone.org_id, database["id"]))
        used.add(database["data_plane"])
    assert used == set(planes)

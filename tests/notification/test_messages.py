"""Messages: who is told what, in the app and by mail."""

import uuid
from typing import Any

import pytest

from tests.flows.people import introduce, ready_database, token_of, verify
from tests.mesh import Customer, TestMesh, eventually
from tests.notification.mailbox import VERIFY, accept, caught_up, invite, invited, no_mail_server


def inbox(person: Customer) -> list[dict[str, Any]]:
    return list(person.get("notification", "/me/messages").json()["items"])


def listed(person: Customer, template: str) -> list[dict[str, Any]]:
    """The organization's messages of one kind, as its admin sees them, newest first."""
    items = person.get("notification", f"/orgs/{person.org_id}/messages").json()["items"]
    return [m for m in items if m["template"] == template]


def suspend_and_resume(owner: Customer, reason: str) -> None:
    assert owner.post("org", f"/orgs/{owner.org_id}/suspend", {"reason": reason}).status_code == 202
    assert owner.post("org", f"/orgs/{owner.org_id}/resume").status_code == 202


def test_a_mail_is_text_and_html_and_knows_its_message(mesh: TestMesh, customer: Customer) -> None:
    token_of(mesh, customer.email, VERIFY)
    mail = mesh.mails(customer.email, VERIFY)[0]
    message = next(m for m in inbox(customer) if m["template"] == "verify")
    assert mail["message_id"] == f"<{message['id']}@mesh>"
    assert mail["headers"]["Auto-Submitted"] == "auto-generated"
    assert "Hello Ann" in mail["text"]
    assert "Hello Ann" in mail["html"]


def test_what_a_person_typed_is_text_in_every_mail(mesh: TestMesh) -> None:
    email = f"eve.{uuid.uuid4().hex[:12]}@example.com"
    body = {"email": email, "password": "a long and quiet river", "name": "Eve\nBcc: all@example.com <script>alert(1)</script>"}
    assert mesh.anyone.post("user", "/users", body).status_code == 202
    mail = eventually(lambda: mesh.mails(email))[0]
    assert "Hello Eve Bcc: all@example.com <script>" in mail["text"]
    assert "<script>" not in mail["html"]
    assert mail["to"] == [email]


def test_a_message_is_read_in_the_app_and_marked_read(mesh: TestMesh, customer: Customer) -> None:
    suspend_and_resume(customer, "a test")
    message = eventually(lambda: [m for m in inbox(customer) if m["template"] == "suspended"])[0]
    assert message["subject"] == "Acme is suspended"
    assert "a test" in str(message["text"])
    assert message["read_at"] is None
    for _ in range(2):
        assert customer.post("notification", f"/me/messages/{message['id']}/read").status_code == 204
    assert next(m for m in inbox(customer) if m["id"] == message["id"])["read_at"] is not None


def test_a_secret_link_is_not_shown_in_the_app(mesh: TestMesh, customer: Customer) -> None:
    message = eventually(lambda: [m for m in inbox(customer) if m["template"] == "verify"])[0]
    assert (message["subject"], message["text"]) == ("Verify your address", None)


def test_the_inbox_comes_in_pages_newest_first(customer: Customer) -> None:
    suspend_and_resume(customer, "pages")
    eventually(lambda: {m["template"] for m in inbox(customer)} == {"verify", "welcome", "suspended", "resumed"}, what="all that is mailed")
    first = customer.get("notification", "/me/messages?limit=2").json()
    rest = customer.get("notification", f"/me/messages?limit=200&cursor={first['next']}").json()
    whole = [m["id"] for m in inbox(customer)]
    assert [m["id"] for m in first["items"]] + [m["id"] for m in rest["items"]] == whole
    times = [m["created_at"] for m in inbox(customer)]
    assert times == sorted(times, key=str, reverse=True)


def test_nobody_else_sees_or_marks_a_persons_messages(mesh: TestMesh, customer: Customer) -> None:
    stranger = mesh.sign_up()
    message = eventually(lambda: inbox(customer))[0]
    assert message["id"] not in stranger.get("notification", "/me/messages").text
    assert stranger.post("notification", f"/me/messages/{message['id']}/read").status_code == 404
    assert customer.post("notification", f"/me/messages/{message['id']}/read").status_code == 204
    assert mesh.anyone.get("notification", "/me/messages").status_code == 401


def test_an_organizations_messages_are_for_its_admins(mesh: TestMesh, customer: Customer) -> None:
    member, stranger = mesh.sign_up(), mesh.sign_up()
    for person in (customer, member):
        verify(mesh, person)
    invitation = invited(customer, member)
    sent = eventually(lambda: [m for m in listed(customer, "invitation") if m["state"] == "sent"])[0]
    accept(customer, member, invitation)
    assert (sent["to"], sent["attempts"], sent["error"], sent["user_id"]) == (member.email, 1, None, None)
    assert sent["sent_at"] is not None
    assert listed(customer, "verify") == []  # a person's own message, though its reader is the admin who asks

    path = f"/orgs/{customer.org_id}/messages"
    introduce(member, customer)
    assert member.get("notification", path).status_code == 403
    assert stranger.get("notification", path).status_code == 404
    assert sent["id"] not in stranger.get("notification", f"/orgs/{stranger.org_id}/messages").text


def test_an_invitation_is_mailed_with_a_link_to_it(mesh: TestMesh, customer: Customer) -> None:
    verify(mesh, customer)
    email = f"bob.{uuid.uuid4().hex[:12]}@example.com"
    made = customer.post("org", f"/orgs/{customer.org_id}/invitations", {"email": email, "role": "admin"})
    assert made.status_code == 202, made.text
    mail = eventually(lambda: mesh.mails(email))[0]
    assert mail["subject"] == "Ann invites you to Acme"
    assert f"/invitations/{made.json()['id']}\r\n" in mail["text"]
    assert "as admin" in mail["text"]


@pytest.mark.processes
def test_a_withdrawn_invitation_is_not_mailed_any_more(mesh: TestMesh, customer: Customer) -> None:
    verify(mesh, customer)
    withdrawn, kept = (f"{name}.{uuid.uuid4().hex[:12]}@example.com" for name in ("gone", "kept"))
    path = f"/orgs/{customer.org_id}/invitations"
    with no_mail_server(mesh):
        made = customer.post("org", path, {"email": withdrawn}).json()
        assert customer.post("org", path, {"email": kept}).status_code == 202
        eventually(lambda: len([m for m in listed(customer, "invitation") if m["state"] == "queued"]) == 2)
        assert customer.delete("org", f"{path}/{made['id']}").status_code == 202
        eventually(lambda: [m for m in listed(customer, "invitation") if m["state"] == "cancelled"])
    eventually(lambda: mesh.mails(kept), timeout=40)
    assert mesh.mails(withdrawn) == []
    assert {m["to"]: m["state"] for m in listed(customer, "invitation")}[withdrawn] == "cancelled"


def test_a_suspension_is_told_to_owners_and_admins_each_time(mesh: TestMesh, customer: Customer) -> None:
    admin, member = mesh.sign_up(), mesh.sign_up()
    for person in (customer, admin, member):
        verify(mesh, person)
    invite(mesh, customer, admin, "admin")
    invite(mesh, customer, member)
    for reason in ("first reason", "second reason"):
        suspend_and_resume(customer, reason)
    for person in (customer, admin):
        for subject in ("Acme is suspended", "Acme is active again"):
            eventually(lambda to=person.email, what=subject: len(mesh.mails(to, what)) == 2, what=f"{subject} twice to {person.email}")  # type: ignore[misc]
        texts = [m["text"] for m in mesh.mails(person.email, "Acme is suspended")]
        assert sorted("first reason" in t for t in texts) == [False, True]
    assert mesh.mails(member.email, "Acme is") == []


def make_a_database(owner: Customer, org: str, name: str) -> None:
    path = f"/orgs/{org}/databases"
    made = eventually(lambda: a if (a := owner.post("provisioning", path, {"name": name})).status_code != 503 else None, what="the plan is known")
    assert made.status_code == 202, made.text
    eventually(lambda: owner.get("provisioning", f"{path}/{made.json()['id']}").json()["state"] == "ready", timeout=40, what=f"database {name}")


def test_the_owner_is_welcomed_when_the_first_database_is_ready_and_not_again(mesh: TestMesh, customer: Customer) -> None:
    database = ready_database(customer)
    mail = eventually(lambda: mesh.mails(customer.email, "is ready"))[0]
    assert mail["subject"] == f"Your database {database['name']} is ready"
    door = f"{mesh.urls['provisioning']}/orgs/{customer.org_id}/databases/{database['id']}/credentials"
    assert f"POST {door}" in mail["text"]
    assert f"POST {door}" in mail["html"]
    verify(mesh, customer)
    make_a_database(customer, customer.org_id, "second")
    eventually(lambda: caught_up(mesh, "provisioning", f"org:{customer.org_id}"))
    assert len(listed(customer, "welcome")) == 1


def test_an_organization_that_came_without_a_sign_up_is_not_welcomed(mesh: TestMesh, customer: Customer) -> None:
    verify(mesh, customer)
    org = customer.post("org", "/orgs", {"name": "Second"}).json()["id"]
    make_a_database(customer, org, "first")
    eventually(lambda: caught_up(mesh, "provisioning", f"org:{org}"))
    assert customer.get("notification", f"/orgs/{org}/messages").json()["items"] == []

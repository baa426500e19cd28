"""Links in mails, from the request through the inbox and back: verifying an address, setting a new password."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.flows.people import token_of, verify
from tests.mesh import PASSWORD, Customer, Door, TestMesh, eventually
from tests.notification.mailbox import RESET, TAKEN, VERIFY

NEW_PASSWORD = "another wide and slow sea"


def ask_for_reset(mesh: TestMesh, email: str) -> str:
    answer = mesh.anyone.post("user", "/password-resets", {"email": email})
    assert answer.status_code == 202, answer.text
    return token_of(mesh, email, RESET)


def sign_in(mesh: TestMesh, email: str, password: str) -> httpx.Response:
    return mesh.anyone.post("user", "/sessions", {"email": email, "password": password})


def a_minute_later(mesh: TestMesh, person: Customer) -> None:
    """What was asked for is a minute ago."""
    earlier = 'WITH locked AS MATERIALIZED (SELECT "user".lock_streams($2)) UPDATE "user".link_requests SET created_at = created_at - interval \'1 minute\' FROM locked WHERE email = $1'
    mesh.rows(earlier, person.email, [f"user:{person.user_id}"])


def looks(answer: httpx.Response) -> tuple[set[str], set[str]]:
    """What differs would tell whether an address exists."""
    assert "Mesh-Position" not in answer.headers
    return set(answer.json()), set(answer.headers)


def test_the_link_in_the_mail_verifies_the_address_once(mesh: TestMesh, person: Customer) -> None:
    assert person.get("user", "/me").json()["verified_at"] is None
    token = token_of(mesh, person.email, VERIFY)
    assert mesh.anyone.post("user", "/users/verify", {"token": token}).status_code == 204
    assert person.get("user", "/me").json()["verified_at"] is not None
    again = mesh.anyone.post("user", "/users/verify", {"token": token})
    assert (again.status_code, again.json()["type"]) == (409, "/problems/link-used")


def test_a_verified_person_may_do_in_every_service_what_needs_it(mesh: TestMesh, customer: Customer) -> None:
    assert customer.post("org", "/orgs", {"name": "Second"}).status_code == 403
    verify(mesh, customer)
    assert customer.post("org", "/orgs", {"name": "Second"}).status_code == 202
    assert [(o["name"], o["role"]) for o in customer.get("org", "/orgs").json()["items"]] == [("Acme", "owner"), ("Second", "owner")]


def test_a_link_that_nobody_follows_in_time_expires_and_ends_its_flow(mesh: TestMesh, person: Customer) -> None:
    token = token_of(mesh, person.email, VERIFY)
    asked = mesh.anyone.post("user", "/password-resets", {"email": person.email}).json()["flow_id"]
    tokens = {"/users/verify": token, "/password-resets/confirm": token_of(mesh, person.email, RESET)}
    kept = mesh.rows('SELECT flow_id::text FROM "user".link_requests WHERE user_id = $1', person.user_id)
    mesh.rows('UPDATE "user".due SET due_at = now() WHERE target = $1', f"user:{person.user_id}")
    for flow_id in {k["flow_id"] for k in kept}:
        eventually(lambda flow_id=flow_id: mesh.operator.get("console", f"/flows/{flow_id}").json()["state"] == "cancelled")  # type: ignore[misc]
    assert asked in {k["flow_id"] for k in kept}
    for door, secret in tokens.items():
        body = {"token": secret} | ({"password": NEW_PASSWORD} if door != "/users/verify" else {})
        refused = mesh.anyone.post("user", door, body)
        assert (refused.status_code, refused.json()["type"]) == (422, "/problems/link-invalid")


def test_a_reset_sets_the_password_and_ends_every_session(mesh: TestMesh, customer: Customer) -> None:
    other_device = sign_in(mesh, customer.email, PASSWORD).json()
    token = ask_for_reset(mesh, customer.email)
    confirmed = mesh.anyone.post("user", "/password-resets/confirm", {"token": token, "password": NEW_PASSWORD})
    assert confirmed.status_code == 204, confirmed.text

    assert sign_in(mesh, customer.email, PASSWORD).status_code == 401
    assert sign_in(mesh, customer.email, NEW_PASSWORD).status_code == 201
    assert customer.get("user", "/me").status_code == 401
    assert mesh.anyone.post("user", "/sessions/refresh", {"refresh_token": other_device["refresh_token"]}).status_code == 401
    eventually(lambda: customer.get("org", "/orgs").status_code == 401, what="the end of the session in the org service")

    again = mesh.anyone.post("user", "/password-resets/confirm", {"token": token, "password": "one more calm lake"})
    assert (again.status_code, again.json()["type"]) == (409, "/problems/link-used")
    assert sign_in(mesh, customer.email, NEW_PASSWORD).status_code == 201


def test_a_reset_revokes_every_api_key(mesh: TestMesh, verified: Customer) -> None:
    key = Door(mesh.urls, verified.post("user", "/me/api-keys", {"name": "ci", "scopes": ["read"]}).json()["secret"])
    eventually(lambda: key.get("org", "/orgs").status_code == 200, what="the key in the org service")
    token = ask_for_reset(mesh, verified.email)
    assert mesh.anyone.post("user", "/password-resets/confirm", {"token": token, "password": NEW_PASSWORD}).status_code == 204
    assert key.get("user", "/me").status_code == 401
    eventually(lambda: key.get("org", "/orgs").status_code == 401, what="the end of the key in the org service")


def test_who_was_refused_for_wrong_passwords_signs_in_after_a_reset(mesh: TestMesh, person: Customer) -> None:
    assert [sign_in(mesh, person.email, "not this one").status_code for _ in range(6)] == [401] * 5 + [429]
    token = ask_for_reset(mesh, person.email)
    assert mesh.anyone.post("user", "/password-resets/confirm", {"token": token, "password": NEW_PASSWORD}).status_code == 204
    assert sign_in(mesh, person.email, NEW_PASSWORD).status_code == 201


def test_who_keeps_asking_gets_one_mail_a_minute_for_each_purpose(mesh: TestMesh, person: Customer) -> None:
    body = {"email": person.email, "password": "a stranger's dark ocean", "name": "Somebody else"}
    for _ in range(4):
        assert mesh.anyone.post("user", "/password-resets", {"email": person.email}).status_code == 202
        assert mesh.anyone.post("user", "/users", body).status_code == 202
    asked = 'SELECT purpose, count(*) AS n FROM "user".link_requests WHERE email = $1 GROUP BY 1 ORDER BY 1'
    assert [(r["purpose"], r["n"]) for r in mesh.rows(asked, person.email)] == [("address_taken", 1), ("reset", 1), ("verify", 1)]
    a_minute_later(mesh, person)
    assert mesh.anyone.post("user", "/password-resets", {"email": person.email}).status_code == 202
    assert [(r["purpose"], r["n"]) for r in mesh.rows(asked, person.email)] == [("address_taken", 1), ("reset", 2), ("verify", 1)]


def test_a_weak_password_does_not_burn_the_link(mesh: TestMesh, person: Customer) -> None:
    token = ask_for_reset(mesh, person.email)
    for weak in ("short", person.email):
        refused = mesh.anyone.post("user", "/password-resets/confirm", {"token": token, "password": weak})
        assert (refused.status_code, refused.json()["type"]) == (422, "/problems/weak-password"), weak
    assert mesh.anyone.post("user", "/password-resets/confirm", {"token": token, "password": NEW_PASSWORD}).status_code == 204


def test_a_reset_for_an_unknown_address_looks_the_same_and_mails_nobody(mesh: TestMesh, person: Customer) -> None:
    nobody = f"nobody.{uuid.uuid4().hex[:12]}@example.com"
    unknown = mesh.anyone.post("user", "/password-resets", {"email": nobody})
    known = mesh.anyone.post("user", "/password-resets", {"email": person.email})
    assert (unknown.status_code, *looks(unknown)) == (202, *looks(known))
    token_of(mesh, person.email, RESET)
    assert mesh.mails(nobody) == []


def test_who_asks_for_another_link_to_verify_their_address_gets_one_that_works(mesh: TestMesh, person: Customer) -> None:
    first = token_of(mesh, person.email, VERIFY)
    a_minute_later(mesh, person)
    asked = mesh.anyone.post("user", "/verifications", {"email": person.email.upper()})
    assert asked.status_code == 202, asked.text
    eventually(lambda: len(mesh.mails(person.email, VERIFY)) == 2, what="the second mail")
    second = token_of(mesh, person.email, VERIFY)
    assert second != first
    assert mesh.anyone.post("user", "/users/verify", {"token": second}).status_code == 204
    assert person.get("user", "/me").json()["verified_at"] is not None
    flow = eventually(lambda: (f := mesh.operator.get("console", f"/flows/{asked.json()['flow_id']}").json())["state"] == "done" and f)
    assert flow["flow"] == "verify an address"


def test_asking_for_a_link_to_verify_looks_the_same_whoever_it_is_and_mails_who_needs_it_alone(mesh: TestMesh, person: Customer) -> None:
    verify(mesh, person)
    a_minute_later(mesh, person)
    nobody = f"nobody.{uuid.uuid4().hex[:12]}@example.com"
    answers = [mesh.anyone.post("user", "/verifications", {"email": email}) for email in (nobody, person.email, mesh.sign_up(organization=None).email)]
    assert [a.status_code for a in answers] == [202] * 3
    assert looks(answers[0]) == looks(answers[1]) == looks(answers[2])
    asked = 'SELECT email FROM "user".link_requests WHERE email = ANY($1)'
    assert [r["email"] for r in mesh.rows(asked, [nobody, person.email])] == [person.email], "the one of the sign-up"


def test_a_link_of_one_purpose_is_no_link_of_another(mesh: TestMesh, person: Customer) -> None:
    token = token_of(mesh, person.email, VERIFY)
    refused = mesh.anyone.post("user", "/password-resets/confirm", {"token": token, "password": NEW_PASSWORD})
    assert (refused.status_code, refused.json()["type"]) == (422, "/problems/link-invalid")
    assert mesh.anyone.post("user", "/users/verify", {"token": ask_for_reset(mesh, person.email)}).status_code == 422
    assert mesh.anyone.post("user", "/users/verify", {"token": token}).status_code == 204


def test_a_link_to_verify_lives_a_day_and_one_to_reset_half_an_hour(mesh: TestMesh, person: Customer) -> None:
    for token, life in ((token_of(mesh, person.email, VERIFY), timedelta(hours=24)), (ask_for_reset(mesh, person.email), timedelta(minutes=30))):
        end = datetime.fromtimestamp(jwt.decode(token, options={"verify_signature": False})["exp"], UTC)
        assert life - timedelta(seconds=30) < end - datetime.now(UTC) <= life


@pytest.mark.parametrize("forgery", ["another key", "an unknown key", "changed", "expired", "for others", "no token"])
def test_a_forged_or_expired_link_is_refused(mesh: TestMesh, person: Customer, forgery: str) -> None:
    """The expired one is signed with the real key, so that nothing but its end speaks against it."""
    token = token_of(mesh, person.email, VERIFY)
    header, claims = jwt.get_unverified_header(token), jwt.decode(token, options={"verify_signature": False})
    real = mesh.rows("SELECT private_key FROM notification.link_keys WHERE id = $1", uuid.UUID(header["kid"]))[0]["private_key"]
    past = datetime.now(UTC) - timedelta(seconds=5)
    forgeries: dict[str, Callable[[], str]] = {
        "another key": lambda: jwt.encode(claims, Ed25519PrivateKey.generate(), "EdDSA", {"kid": header["kid"]}),
        "an unknown key": lambda: jwt.encode(claims, real, "EdDSA", {"kid": str(uuid.uuid4())}),
        "changed": lambda: token[:-10] + ("A" * 10),
        "expired": lambda: jwt.encode(claims | {"exp": past}, real, "EdDSA", {"kid": header["kid"]}),
        "for others": lambda: jwt.encode(claims | {"aud": "saas-mesh"}, real, "EdDSA", {"kid": header["kid"]}),
        "no token": lambda: "none",
    }
    refused = mesh.anyone.post("user", "/users/verify", {"token": forgeries[forgery]()})
    assert (refused.status_code, refused.json()["type"]) == (422, "/problems/link-invalid")
    assert person.get("user", "/me").json()["verified_at"] is None


def test_signing_up_with_an_address_that_exists_looks_the_same_and_tells_its_holder(mesh: TestMesh, customer: Customer) -> None:
    eventually(lambda: mesh.mails(customer.email, VERIFY))
    body = {"email": customer.email, "password": "a stranger's dark ocean", "name": "Somebody else", "organization": "Theirs"}
    again = mesh.anyone.post("user", "/users", body)
    fresh = mesh.anyone.post("user", "/users", body | {"email": f"new.{uuid.uuid4().hex[:12]}@example.com"})
    assert (again.status_code, *looks(again)) == (202, *looks(fresh))

    told = eventually(lambda: mesh.mails(customer.email, TAKEN))
    assert "token=" not in told[0]["text"]
    assert "Somebody else" not in told[0]["text"]
    assert len(mesh.mails(customer.email, VERIFY)) == 1
    assert sign_in(mesh, customer.email, "a stranger's dark ocean").status_code == 401
    assert [o["name"] for o in customer.get("org", "/orgs").json()["items"]] == ["Acme"]


def test_the_token_is_in_the_mail_and_nowhere_else(mesh: TestMesh, person: Customer) -> None:
    token = token_of(mesh, person.email, VERIFY)
    assert mesh.anyone.post("user", "/users/verify", {"token": token}).status_code == 204
    signature = token.rpartition(".")[2]
    for table in ("notification.messages", "notification.due", "notification.changes", '"user".link_requests', '"user".changes', "notification.link_keys"):
        assert mesh.rows(f"SELECT true FROM {table} t WHERE strpos(t::text, $1) > 0", signature) == [], table
    for service in ("user", "notification"):
        assert signature not in mesh.log(service)

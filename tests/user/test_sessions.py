"""Signing in, tokens and API keys through their doors."""

import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.mesh import HTTP, PASSWORD, Customer, Door, TestMesh, eventually


def test_a_wrong_password_and_an_unknown_address_look_alike(person: Customer, mesh: TestMesh) -> None:
    wrong = mesh.anyone.post("user", "/sessions", {"email": person.email, "password": "not this one"})
    unknown = mesh.anyone.post("user", "/sessions", {"email": "nobody@example.com", "password": "not this one"})
    assert wrong.status_code == unknown.status_code == 401
    assert wrong.json()["title"] == unknown.json()["title"]


def test_repeated_failures_are_slowed_down(person: Customer, mesh: TestMesh) -> None:
    body = {"email": person.email, "password": "not this one"}
    answers = [mesh.anyone.post("user", "/sessions", body).status_code for _ in range(6)]
    assert answers == [401] * 5 + [429]
    refused = mesh.anyone.post("user", "/sessions", body | {"password": PASSWORD})
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) > 0


def test_guesses_at_once_are_counted_like_guesses_one_after_the_other(person: Customer, mesh: TestMesh) -> None:
    """Also for an address that nobody has: the answers would else tell which is which."""
    for email in (person.email, f"nobody.{uuid.uuid4().hex[:12]}@example.com"):
        body = {"email": email, "password": "not this one"}
        with ThreadPoolExecutor(12) as crowd:
            answers = list(crowd.map(lambda body: mesh.anyone.post("user", "/sessions", body).status_code, [body] * 12))
        assert sorted(answers) == [401] * 5 + [429] * 7


def test_a_refresh_token_is_good_once_and_its_reuse_ends_the_session(mesh: TestMesh, person: Customer) -> None:
    first = mesh.anyone.post("user", "/sessions", {"email": person.email, "password": PASSWORD}).json()
    second = mesh.anyone.post("user", "/sessions/refresh", {"refresh_token": first["refresh_token"]})
    assert second.status_code == 201
    reused = mesh.anyone.post("user", "/sessions/refresh", {"refresh_token": first["refresh_token"]})
    assert reused.status_code == 401
    assert mesh.anyone.post("user", "/sessions/refresh", {"refresh_token": second.json()["refresh_token"]}).status_code == 401
    assert Door(mesh.urls, second.json()["access_token"]).get("user", "/me").status_code == 401


def test_a_refresh_token_that_was_made_up_ends_no_session(mesh: TestMesh, person: Customer) -> None:
    """Who may read which sessions there are could else end them."""
    tokens = mesh.anyone.post("user", "/sessions", {"email": person.email, "password": PASSWORD}).json()
    ids, secret, signed = tokens["refresh_token"].split(".")
    for made_up in (f"{ids}.nonsense.{signed}", f"{ids}.{secret}.{'0' * len(signed)}", f"{ids}.{secret}", ids, "é", "..", "a.b.c"):
        refused = mesh.anyone.post("user", "/sessions/refresh", {"refresh_token": made_up})
        assert (refused.status_code, refused.json()["type"]) == (401, "/problems/refresh-refused"), made_up
    assert mesh.anyone.post("user", "/sessions/refresh", {"refresh_token": tokens["refresh_token"]}).status_code == 201


def test_an_ended_session_is_refused_by_every_service(mesh: TestMesh, customer: Customer) -> None:
    org = customer.org_id
    token = mesh.sign_in(customer.email)
    device = Door(mesh.urls, token)
    assert device.get("org", f"/orgs/{org}").status_code == 200
    assert device.delete("user", "/sessions/current").status_code == 204
    eventually(lambda: device.get("org", f"/orgs/{org}").status_code == 401, timeout=2)


def test_an_api_key_acts_as_its_owner_within_its_scopes_until_it_is_revoked(verified: Customer, mesh: TestMesh) -> None:
    customer, org = verified, verified.org_id
    made = customer.post("user", "/me/api-keys", {"name": "ci", "scopes": ["read"]}).json()
    key = Door(mesh.urls, made["secret"])
    key.headers["Mesh-Position"] = customer.headers["Mesh-Position"]
    assert key.get("org", f"/orgs/{org}").status_code == 200
    assert key.patch("org", f"/orgs/{org}", {"name": "No"}).json()["type"] == "/problems/missing-scope"
    assert made["secret"] not in customer.get("user", "/me/api-keys").text
    assert customer.delete("user", f"/me/api-keys/{made['id']}").status_code == 204
    eventually(lambda: key.get("org", f"/orgs/{org}").status_code == 401, timeout=2)


def test_an_api_key_does_not_sign_out(verified: Customer, mesh: TestMesh) -> None:
    made = verified.post("user", "/me/api-keys", {"name": "ci", "scopes": ["write"]}).json()
    key = Door(mesh.urls, made["secret"])
    refused = key.delete("user", "/sessions/current")
    assert (refused.status_code, refused.json()["type"]) == (403, "/problems/sign-in-needed")
    assert key.get("user", "/me").status_code == verified.get("user", "/me").status_code == 200


def test_who_has_not_verified_their_address_makes_no_api_key(person: Customer) -> None:
    """A key outlives the password of whoever signed up with somebody else's address."""
    refused = person.post("user", "/me/api-keys", {"name": "ci", "scopes": ["read"]})
    assert (refused.status_code, refused.json()["type"]) == (403, "/problems/not-verified")


def test_an_api_key_ends_within_a_year_to_come(verified: Customer) -> None:
    for end in ("2020-01-01T00:00:00Z", "2999-01-01T00:00:00-23:59"):
        refused = verified.post("user", "/me/api-keys", {"name": "ci", "scopes": ["read"], "expires_at": end})
        assert (refused.status_code, refused.json()["type"]) == (422, "/problems/bad-expiry"), end


@pytest.mark.parametrize("end", ["9999-12-31T23:59:59Z", "2026-12-24T00:00:00", "-infinity", 2**70])
def test_an_end_of_an_api_key_that_is_no_time_is_refused_where_it_stands(verified: Customer, end: object) -> None:
    refused = verified.post("user", "/me/api-keys", {"name": "ci", "scopes": ["read"], "expires_at": end})
    assert (refused.status_code, refused.json()["type"], refused.json()["errors"][0]["pointer"]) == (422, "/problems/invalid", "/expires_at")


def test_a_token_that_is_damaged_is_refused(person: Customer, mesh: TestMesh) -> None:
    good = person.headers["Authorization"].removeprefix("Bearer ")
    for token in (good[:-4] + "AAAA", "mesh_nonsense_00000000", "x.y.z", "nonsense", good.replace(".", "")):
        answer = Door(mesh.urls, token).get("user", "/me")
        assert answer.status_code == 401, token
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_token_of_other_letters_is_refused(mesh: TestMesh) -> None:
    for token in ("mesh_é_é", "é", "é.é.é"):
        answer = HTTP.get(mesh.urls["user"] + "/me", headers={b"Authorization": f"Bearer {token}".encode()})
        assert (answer.status_code, answer.json()["type"]) == (401, "/problems/unauthenticated"), token


def test_a_weak_password_is_refused(mesh: TestMesh) -> None:
    for password in ("short", "password123", "aaaaaaaaaaaaaa", "ann.lee@example"):
        answer = mesh.anyone.post("user", "/users", {"email": "ann.lee@example.com", "password": password, "name": "Ann"})
        assert (answer.status_code, answer.json()["type"]) == (422, "/problems/weak-password"), password


def test_a_stranger_cannot_see_who_i_am_and_a_colleague_can_see_me(person: Customer, mesh: TestMesh) -> None:
    stranger = mesh.sign_up()
    assert person.get("user", f"/users/{person.user_id}").json()["email"] == person.email
    assert stranger.get("user", f"/users/{person.user_id}").status_code == 404


def test_the_public_keys_verify_access_tokens(mesh: TestMesh) -> None:
    keys = HTTP.get(mesh.urls["user"] + "/.well-known/jwks.json").json()["keys"]
    assert keys
    assert all(k["kty"] == "OKP" and k["crv"] == "Ed25519" and "d" not in k for k in keys)

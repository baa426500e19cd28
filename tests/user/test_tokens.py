"""How long identities live: access tokens, refresh tokens, sessions, API keys."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt

from tests.mesh import PASSWORD, Customer, Door, TestMesh, eventually


def claims_of(token: str) -> dict[str, Any]:
    return dict(jwt.decode(token, options={"verify_signature": False}))


def close_to(seen: timedelta, wanted: timedelta) -> bool:
    return abs(seen - wanted) < timedelta(seconds=5)


def test_signing_in_answers_tokens_of_ten_minutes_and_of_thirty_days(mesh: TestMesh, person: Customer) -> None:
    made = mesh.anyone.post("user", "/sessions", {"email": person.email, "password": PASSWORD})
    assert made.status_code == 201
    assert made.json().keys() >= {"access_token", "expires_in", "refresh_token"}
    assert made.json()["expires_in"] == 600
    claims = claims_of(made.json()["access_token"])
    assert claims["exp"] - claims["iat"] == 600
    for session in person.get("user", "/sessions").json()["items"]:
        begun, ends = (datetime.fromisoformat(session[name]) for name in ("created_at", "expires_at"))
        assert close_to(ends - begun, timedelta(days=30))


def test_an_access_token_is_good_for_half_a_minute_after_its_end_and_not_longer(mesh: TestMesh, customer: Customer) -> None:
    """Signed with the real key, so that nothing but its end speaks against it."""
    token = customer.headers["Authorization"].removeprefix("Bearer ")
    key_id = jwt.get_unverified_header(token)["kid"]
    real = mesh.rows('SELECT private_key FROM "user".signing_keys WHERE id = $1', uuid.UUID(key_id))[0]["private_key"]
    for seconds_ago, status in ((20, 200), (35, 401)):
        end = datetime.now(UTC) - timedelta(seconds=seconds_ago)
        late = Door(mesh.urls, jwt.encode(claims_of(token) | {"exp": end}, real, "EdDSA", {"kid": key_id}))
        for service, path in (("user", "/me"), ("org", "/orgs"), ("notification", "/me/messages")):
            assert late.get(service, path).status_code == status, f"{service}, {seconds_ago} s after its end"
    assert "expired" in late.get("user", "/me").json()["detail"]


def test_a_token_of_another_key_or_for_others_is_refused(mesh: TestMesh, person: Customer) -> None:
    token = person.headers["Authorization"].removeprefix("Bearer ")
    key_id = jwt.get_unverified_header(token)["kid"]
    real = mesh.rows('SELECT private_key FROM "user".signing_keys WHERE id = $1', uuid.UUID(key_id))[0]["private_key"]
    forged = [
        jwt.encode(claims_of(token) | {"aud": "somebody else"}, real, "EdDSA", {"kid": key_id}),
        jwt.encode(claims_of(token), real, "EdDSA", {"kid": str(uuid.uuid4())}),
        jwt.encode(claims_of(token), "a secret of our own that is long enough", "HS256", {"kid": key_id}),
        jwt.encode(claims_of(token), "", "none", {"kid": key_id}),
    ]
    assert [Door(mesh.urls, one).get("user", "/me").status_code for one in forged] == [401] * 4


def test_a_person_sees_their_sessions_and_ends_one_of_them(mesh: TestMesh, customer: Customer) -> None:
    device = Door(mesh.urls, mesh.sign_in(customer.email))
    sessions = customer.get("user", "/sessions").json()["items"]
    assert len(sessions) == 2
    mine, other = (claims_of(d.headers["Authorization"][7:])["sid"] for d in (customer, device))
    assert {s["id"] for s in sessions} == {mine, other}
    stranger = mesh.sign_up(organization=None)
    assert stranger.delete("user", f"/sessions/{other}").status_code == 404
    assert device.get("user", "/me").status_code == 200
    assert customer.delete("user", f"/sessions/{other}").status_code == 204
    assert device.get("user", "/me").status_code == 401
    eventually(lambda: device.get("org", "/orgs").status_code == 401, timeout=2)
    assert [s["id"] for s in customer.get("user", "/sessions").json()["items"]] == [mine]
    assert customer.delete("user", f"/sessions/{other}").status_code == 404


def test_an_api_key_that_may_write_acts_as_its_owner_until_it_expires(mesh: TestMesh, verified: Customer) -> None:
    customer = verified
    org, end = customer.org_id, datetime.now(UTC) + timedelta(seconds=4)
    made = customer.post("user", "/me/api-keys", {"name": "ci", "scopes": ["read", "write"], "expires_at": end.isoformat()})
    assert made.status_code == 201
    key = Door(mesh.urls, made.json()["secret"])
    key.headers["Mesh-Position"] = customer.headers["Mesh-Position"]
    assert key.patch("org", f"/orgs/{org}", {"name": "Written by a key"}).status_code == 200
    assert key.get("user", "/me").json()["id"] == customer.user_id
    eventually(lambda: key.get("org", f"/orgs/{org}").status_code == 401, timeout=8)
    assert key.get("user", "/me").status_code == 401


def test_an_api_key_makes_no_key_ends_no_session_and_does_not_change_who_its_owner_is(mesh: TestMesh, verified: Customer) -> None:
    """It would outlive its own expiry and have scopes that it was not given."""
    made = verified.post("user", "/me/api-keys", {"name": "ci", "scopes": ["write"]}).json()
    key, session = Door(mesh.urls, made["secret"]), verified.get("user", "/sessions").json()["items"][0]["id"]
    for refused in (
        key.post("user", "/me/api-keys", {"name": "forever", "scopes": ["read", "write"]}),
        key.delete("user", f"/me/api-keys/{made['id']}"),
        key.delete("user", f"/sessions/{session}"),
        key.patch("user", "/me", {"name": "Somebody else"}),
    ):
        assert (refused.status_code, refused.json()["type"]) == (403, "/problems/sign-in-needed"), refused.request.url
        assert "POST /sessions" in refused.json()["detail"]
    assert [one["name"] for one in key.get("user", "/me/api-keys").json()["items"]] == ["ci"], "a key that may write may read"
    assert verified.get("user", "/me").json()["name"] == "Ann"


def test_a_password_is_kept_as_argon2id_with_19_mib_two_rounds_and_one_lane(mesh: TestMesh, person: Customer) -> None:
    kept = mesh.rows('SELECT password_hash FROM "user".users WHERE id = $1', uuid.UUID(person.user_id))[0]["password_hash"]
    assert kept.startswith("$argon2id$v=19$m=19456,t=2,p=1$")


def test_who_fails_to_sign_in_waits_longer_each_time_and_no_longer_than_told(mesh: TestMesh, person: Customer) -> None:
    wrong, right = ({"email": person.email, "password": password} for password in ("not this one", PASSWORD))
    for _ in range(5):
        assert mesh.anyone.post("user", "/sessions", wrong).status_code == 401
    for least, longest in ((20, 30), (50, 60)):
        refused = mesh.anyone.post("user", "/sessions", right)
        assert refused.status_code == 429
        wait = int(refused.headers["Retry-After"])
        assert least < wait <= longest
        mesh.rows('UPDATE "user".sign_in_failures SET at = at - make_interval(secs => $2) WHERE email = $1', person.email, float(wait))
        if longest == 30:
            assert mesh.anyone.post("user", "/sessions", wrong).status_code == 401
    assert mesh.anyone.post("user", "/sessions", right).status_code == 201
    assert mesh.anyone.post("user", "/sessions", wrong).status_code == 401, "success forgets the failures"

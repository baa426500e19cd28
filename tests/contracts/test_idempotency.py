"""Idempotency-Key: a request that is repeated with its key is carried out once, whatever happened to its answer."""

import hmac
import uuid
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

from tests.mesh import Customer, Door, TestMesh


def key() -> dict[str, str]:
    return {"Idempotency-Key": uuid.uuid4().hex}


def test_a_key_whose_request_is_under_way_is_refused_until_its_answer_is_there(mesh: TestMesh, person: Customer) -> None:
    same, token = key(), person.headers["Authorization"][7:]
    with ThreadPoolExecutor(2) as pool:
        with mesh.nothing_is_written("user", f"user:{person.user_id}"):
            both = [pool.submit(Door(mesh.urls, token).patch, "user", "/me", {"name": "Once"}, headers=same) for _ in range(2)]
            finished, under_way = wait(both, timeout=30, return_when=FIRST_COMPLETED)
            (refused,) = [f.result() for f in finished]
            assert (refused.status_code, refused.json()["type"]) == (409, "/problems/key-in-use")
            assert int(refused.headers["Retry-After"]) > 0
        (first,) = [f.result() for f in under_way]
        assert first.status_code == 200
    again = person.patch("user", "/me", {"name": "Once"}, headers=same)
    assert again.json() == first.json()
    assert again.headers["Idempotency-Replayed"] == "true"


def test_a_key_is_good_for_every_kind_of_write(verified: Customer) -> None:
    customer = verified
    posted, patched, deleted = key(), key(), key()
    made = [customer.post("user", "/me/api-keys", {"name": "ci", "scopes": ["read"]}, headers=posted) for _ in range(2)]
    assert made[0].status_code == 201
    assert made[0].json() == made[1].json(), "the secret, which is shown once, included"
    assert len(customer.get("user", "/me/api-keys").json()["items"]) == 1
    named = [customer.patch("user", "/me", {"name": name}, headers=patched).status_code for name in ("First", "First", "Second")]
    assert named == [200, 200, 422]
    path = f"/me/api-keys/{made[0].json()['id']}"
    assert [customer.delete("user", path, headers=deleted).status_code for _ in range(2)] == [204, 204]
    assert customer.delete("user", path).status_code == 404, "without the key it is another request"


def test_a_key_belongs_to_who_sent_it(mesh: TestMesh, person: Customer) -> None:
    other, same = mesh.sign_up(organization=None), key()
    assert person.patch("user", "/me", {"name": "Mine"}, headers=same).json()["name"] == "Mine"
    assert other.patch("user", "/me", {"name": "Theirs"}, headers=same).json()["name"] == "Theirs"


def test_a_key_is_kept_for_24_hours(mesh: TestMesh, person: Customer) -> None:
    same, caller = key(), f"user:{person.user_id}"
    assert person.patch("user", "/me", {"name": "First"}, headers=same).status_code == 200
    for hours, status in ((23, 422), (2, 200)):
        mesh.rows('UPDATE "user".idempotency SET at = at - make_interval(hours => $2) WHERE caller = $1', caller, hours)
        assert person.patch("user", "/me", {"name": "Second"}, headers=same).status_code == status
    assert person.get("user", "/me").json()["name"] == "Second"


def test_a_refused_request_keeps_no_key(person: Customer) -> None:
    same = key()
    assert person.patch("user", "/me", {"name": ""}, headers=same).status_code == 422
    assert person.patch("user", "/me", {"name": "Better"}, headers=same).status_code == 200


def test_what_is_kept_of_a_request_is_nothing_to_try_passwords_against(mesh: TestMesh, person: Customer) -> None:
    same = key()
    assert person.patch("user", "/me", {"name": "Kept"}, headers=same).status_code == 200
    (kept,) = mesh.rows('SELECT key, request_hash FROM "user".idempotency WHERE caller = $1', f"user:{person.user_id}")
    said = b'PATCH /me  {"name":"Kept"}'
    assert kept["request_hash"] == hmac.digest(same["Idempotency-Key"].encode(), said, "sha256")
    assert kept["key"] != same["Idempotency-Key"]

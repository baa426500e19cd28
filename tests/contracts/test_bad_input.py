"""Whatever comes through a door or a topic: a clear answer or a kept record, and nothing half-written."""

import re
import uuid
from typing import Any

import httpx
import orjson
import pytest
from confluent_kafka import Producer

from tests.mesh import HTTP, PASSWORD, Customer, Door, TestMesh, eventually


@pytest.fixture(scope="module")
def customer(mesh: TestMesh) -> Customer:
    """One for all of these: nothing that is refused changes anything."""
    return mesh.sign_up(organization="Acme")


def is_problem(answer: httpx.Response, status: int, code: str) -> None:
    """RFC 9457, with what, why and what next; no stack trace."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["type"] == f"/problems/{code}", body
    assert body["title"]
    assert body["detail"]
    assert body["request_id"] == answer.headers["X-Request-Id"]
    assert "Traceback" not in answer.text


def test_unknown_fields_wrong_types_and_missing_fields_point_at_the_place(customer: Customer) -> None:
    path = f"/orgs/{customer.org_id}"
    for body, pointer in (({"name": "x", "color": "red"}, "/color"), ({"name": 7}, "/name"), ({}, "/name"), ({"name": ""}, "/name")):
        answer = customer.patch("org", path, body)
        is_problem(answer, 422, "invalid")
        assert answer.json()["errors"][0]["pointer"] == pointer
    assert customer.get("org", path).json()["name"] == "Acme"


@pytest.mark.parametrize("body", [b"{", b"[]", b'"text"', b"\xff\xfe", b'{"name": NaN'])
def test_a_body_that_is_no_json_object_is_refused(customer: Customer, body: bytes) -> None:
    url = customer.urls["org"] + f"/orgs/{customer.org_id}"
    answer = HTTP.patch(url, content=body, headers=customer.headers | {"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"
    assert [e["pointer"] for e in answer.json().get("errors", ())] in ([], [""]), "the whole of it"


def test_a_body_of_another_kind_is_refused(customer: Customer) -> None:
    url = customer.urls["org"] + f"/orgs/{customer.org_id}"
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/xml"):
        is_problem(HTTP.patch(url, content=b'{"name": "x"}', headers=customer.headers | {"Content-Type": kind}), 415, "unsupported-media-type")


def test_a_body_over_one_megabyte_is_refused(customer: Customer) -> None:
    url = customer.urls["org"] + f"/orgs/{customer.org_id}"
    body = orjson.dumps({"name": "x" * 1_100_000})
    is_problem(HTTP.patch(url, content=body, headers=customer.headers | {"Content-Type": "application/json"}), 413, "too-large")


def test_a_body_of_untold_length_over_one_megabyte_is_refused_in_the_same_words(customer: Customer) -> None:
    url = customer.urls["org"] + f"/orgs/{customer.org_id}"
    answer = HTTP.patch(url, content=iter([b'{"name": "', b"x" * 1_100_000, b'"}']), headers=customer.headers | {"Content-Type": "application/json"})
    is_problem(answer, 413, "too-large")
    assert "Send less" in answer.json()["detail"]


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"name": "caf\xe9"}'], ids=["too deep", "not UTF-8"])
def test_a_body_that_cannot_be_read_says_what_can(customer: Customer, body: bytes) -> None:
    url = customer.urls["org"] + f"/orgs/{customer.org_id}"
    answer = HTTP.patch(url, content=body, headers=customer.headers | {"Content-Type": "application/json"})
    is_problem(answer, 400, "bad-request")
    assert "JSON in UTF-8" in answer.json()["detail"]


def test_what_is_wrong_with_a_field_is_said_in_plain_words(customer: Customer) -> None:
    path = f"/orgs/{customer.org_id}"
    for body, said in (({"name": "a\x00b"}, "/name: must not hold the character U+0000."), (["x"], "The body: it must be a JSON object.")):
        assert customer.patch("org", path, body).json()["detail"] == said
    assert customer.get("org", "/orgs/not-an-id").json()["detail"] == "/org_id: it is no UUID."


def test_a_refusal_says_why_and_what_next_and_does_not_repeat_its_title(customer: Customer) -> None:
    refused = customer.post("org", f"/orgs/{customer.org_id}/clock", {"advance_seconds": 1})
    is_problem(refused, 403, "forbidden")
    said = refused.json()
    assert said["title"] not in said["detail"]
    assert said["detail"] == "This door is for operators, who send the operator token. Ask somebody who may."


def test_headers_over_64_kilobytes_are_refused_unread(customer: Customer) -> None:
    is_problem(customer.get("org", "/orgs", headers={"Mesh-Position": f"org/org:{uuid.uuid4()}/1.1," * 1500}), 431, "headers-too-large")


def test_an_id_that_is_none_and_one_of_somebody_else_are_told_apart_from_nothing(customer: Customer, mesh: TestMesh) -> None:
    stranger = mesh.sign_up()
    is_problem(customer.get("org", "/orgs/not-an-id"), 422, "invalid")
    is_problem(customer.get("org", f"/orgs/{uuid.uuid4()}"), 404, "not-found")
    is_problem(customer.get("org", f"/orgs/{stranger.org_id}"), 404, "not-found")
    is_problem(customer.get("org", "/nowhere"), 404, "not-found")


def test_no_identity_and_a_forged_one_are_refused(customer: Customer, mesh: TestMesh) -> None:
    path = f"/orgs/{customer.org_id}"
    is_problem(mesh.anyone.get("org", path), 401, "unauthenticated")
    forged = customer.headers["Authorization"].rpartition(".")[0].removeprefix("Bearer ") + "." + "A" * 86
    is_problem(Door(mesh.urls, forged).get("org", path), 401, "unauthenticated")


def test_a_forged_cursor_and_a_limit_out_of_range_are_refused(customer: Customer) -> None:
    for cursor in ("bm9uc2Vuc2U", "w6l8w6l8w6k", "%C3%A9", "2026"):
        is_problem(customer.get("org", f"/orgs?cursor={cursor}"), 422, "bad-cursor")
    is_problem(customer.get("org", "/orgs?limit=0"), 422, "invalid")
    is_problem(customer.get("org", "/orgs?limit=201"), 422, "invalid")


def test_of_what_a_caller_has_seen_the_last_fifty_streams_count_and_of_each_the_furthest(person: Customer) -> None:
    seen = [f"nowhere/org:{n}/1.{m}" for n in range(60) for m in (3, 20, 7)]
    answer = person.patch("user", "/me", {"name": "Ann"}, headers={"Mesh-Position": ", ".join(seen)})
    assert answer.status_code == 200, answer.text
    told = answer.headers["Mesh-Position"].split(", ")
    assert sorted(t for t in told if t.startswith("nowhere")) == sorted(f"nowhere/org:{n}/1.20" for n in range(11, 60))
    assert told[-1].startswith("user/")


def test_a_traceparent_that_is_none_goes_nowhere(mesh: TestMesh, person: Customer) -> None:
    for given in ("x-y-z-" + "w" * 500, "00-" + "0" * 31 + "g-b7ad6b7169203331-01", "a-b-c-d"):
        assert person.patch("user", "/me", {"name": "Ann"}, headers={"traceparent": given}).status_code == 200
    kept = mesh.rows('SELECT payload FROM "user".changes WHERE stream = $1', f"user:{person.user_id}")
    assert kept
    assert all(re.fullmatch("(00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})?", orjson.loads(r["payload"])["traceparent"] or "") for r in kept)


def test_text_with_a_null_character_is_refused(mesh: TestMesh, customer: Customer) -> None:
    for address in ("/flows?flow=a%00b", "/flows?step=%00", "/flows/%00"):
        assert mesh.operator.get("console", address).status_code == 422
    assert customer.patch("org", f"/orgs/{customer.org_id}", {"name": "a\x00b"}).status_code == 422


def producer(mesh: TestMesh) -> Producer:
    admin = mesh.status["kafka"]["admin"]
    return Producer({
        "bootstrap.servers": mesh.status["kafka"]["bootstrap"], "security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "SCRAM-SHA-256",
        "sasl.username": admin["username"], "sasl.password": admin["password"],
    })  # fmt: skip


@pytest.mark.parametrize(
    ("value", "headers"),
    [
        (b"nonsense", []),
        (b'{"stream": "org:1"', []),
        (b"\xff\xfe\x00", [("header", None)]),
        (None, []),
        (b'{"stream":"other","seq":1,"epoch":1,"table":"t","op":"insert","at":"2026-01-01T00:00:00+00:00"}', []),
    ],
)
def test_a_record_that_is_no_change_is_kept_raw_and_the_stream_goes_on(mesh: TestMesh, value: bytes | None, headers: list[tuple[str, Any]]) -> None:
    marker = f"user:{uuid.uuid4()}"
    sender = producer(mesh)
    sender.produce("user.changes", value, key=marker.encode(), headers=headers)
    sender.flush(10)
    kept = "SELECT reason FROM org.undecodable WHERE key = $1"
    eventually(lambda: mesh.rows(kept, marker.encode()), what="the record kept raw")
    after = mesh.sign_up()
    assert after.org_id


def test_records_with_null_and_binary_headers_are_read(mesh: TestMesh, customer: Customer) -> None:
    org, stream = customer.org_id, f"user:{customer.user_id}"
    (sent,) = mesh.rows('SELECT payload FROM "user".changes WHERE stream = $1 AND seq = 1 LIMIT 1', stream)
    sender = producer(mesh)
    for headers in ([("a", None)], [("b", b"\xff\xfe")]):
        sender.produce("user.changes", sent["payload"].encode(), key=stream.encode(), headers=headers)
    sender.flush(10)
    other = mesh.sign_up()
    assert other.org_id
    assert len(mesh.rows("SELECT 1 FROM org.organizations WHERE org_id = $1", uuid.UUID(org))) == 1, "a duplicate changes nothing"


def test_a_sign_up_that_is_refused_leaves_nothing(mesh: TestMesh) -> None:
    email = f"{uuid.uuid4().hex}@example.com"
    assert mesh.anyone.post("user", "/users", {"email": email, "password": PASSWORD, "name": "A", "organization": "x" * 300}).status_code == 422
    assert mesh.anyone.post("user", "/users", {"email": "no address", "password": PASSWORD, "name": "A"}).status_code == 422
    assert mesh.rows('SELECT 1 FROM "user".addresses WHERE email = $1', email) == []

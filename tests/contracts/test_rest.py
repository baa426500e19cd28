"""What every service's doors have in common, asked of each of them."""

import asyncio
import re
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx
import pytest

from deploy.contracts import services
from tests.contracts.rest import OPERATIONS, Operation
from tests.flows.people import ready_database, verify
from tests.mesh import HTTP, PASSWORD, Customer, Door, TestMesh, eventually

EVERY_SERVICE = pytest.mark.parametrize("service", services())


def _every(operations: Iterator[Operation] | list[Operation]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("operation", list(operations), ids=str)


@pytest.fixture(scope="module")
def ann(mesh: TestMesh) -> Customer:
    """An owner whose address is verified, known to every service."""
    ann = mesh.sign_up(organization="Ann's")
    verify(mesh, ann)
    for service in services():
        eventually(partial(_knows, service, ann), what=f"{service} knows the organization", timeout=30)
    return ann


def _knows(service: str, who: Customer) -> bool:
    return who.get(service, _probe(service, who.org_id)).status_code == 200


def _probe(service: str, org_id: str) -> str:
    """A door of the service that every member may read."""
    own = {
        "user": "/me", "org": f"/orgs/{org_id}", "billing": f"/orgs/{org_id}/subscription", "notification": f"/orgs/{org_id}/messages",
        "provisioning": f"/orgs/{org_id}/databases", "console": f"/orgs/{org_id}/flows",
    }  # fmt: skip
    return own[service]


def _is_problem(answer: httpx.Response, status: int) -> bool:
    body = answer.json()
    assert answer.status_code == status, f"{answer.status_code} {answer.text}"
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["status"] == status
    assert body["request_id"] == answer.headers["X-Request-Id"]
    assert body["title"] != body["detail"], "what is wrong, and what to do next"
    return all(body[part] for part in ("type", "title", "detail"))


@_every([o for o in OPERATIONS if o.secured])
def test_a_door_for_somebody_refuses_nobody(mesh: TestMesh, operation: Operation) -> None:
    refused = operation.call(Door(mesh.urls))
    assert _is_problem(refused, 401)
    assert refused.headers["WWW-Authenticate"] == "Bearer"
    assert _is_problem(operation.call(Door(mesh.urls, "nonsense")), 401)


@_every([o for o in OPERATIONS if o.body and "{" not in o.path.replace("{org_id}", "")])
def test_unknown_fields_and_wrong_types_are_refused_with_a_pointer(mesh: TestMesh, ann: Customer, operation: Operation) -> None:
    who = mesh.operator if operation.for_operators else ann
    refused = operation.call(who, {"surprise": 1}, org_id=ann.org_id)
    assert _is_problem(refused, 422)
    assert "/surprise" in [e["pointer"] for e in refused.json()["errors"]]
    assert _is_problem(operation.call(who, ["no", "object"], org_id=ann.org_id), 422)


@_every([o for o in OPERATIONS if "{" in o.path and o.secured])
def test_an_id_that_is_none_is_refused(mesh: TestMesh, ann: Customer, operation: Operation) -> None:
    who = mesh.operator if operation.for_operators else ann
    answer = who.call(operation.method, operation.service, re.sub(r"\{\w+\}", "no-id", operation.path), {} if operation.body else None)
    assert _is_problem(answer, 422)
    assert {(e["in"], e["pointer"]) for e in answer.json()["errors"]} >= {("path", f"/{name}") for name in re.findall(r"\{(\w+)\}", operation.path)}


def _some_body_door(service: str) -> Operation | None:
    return next((o for o in OPERATIONS if o.service == service and o.body and "{" not in o.path.replace("{org_id}", "")), None)


_WITH_BODIES = [o for s in services() if (o := _some_body_door(s))]


@_every(_WITH_BODIES)
def test_a_body_that_is_no_json_too_large_or_of_another_kind_is_refused(ann: Customer, operation: Operation) -> None:
    url = ann.urls[operation.service] + operation.at(org_id=ann.org_id)

    def send(content: bytes, kind: str = "application/json") -> httpx.Response:
        return HTTP.request(operation.method, url, content=content, headers=ann.headers | {"Content-Type": kind})

    assert _is_problem(send(b"{"), 422)
    assert _is_problem(send(b'{"name": "' + b"x" * 1_100_000 + b'"}'), 413)
    assert _is_problem(send(b"name=x", "application/x-www-form-urlencoded"), 415)


@EVERY_SERVICE
def test_an_address_that_is_none_is_a_problem_too(mesh: TestMesh, service: str) -> None:
    assert _is_problem(mesh.anyone.get(service, "/nowhere"), 404)
    refused = mesh.anyone.delete(service, "/healthz")
    assert _is_problem(refused, 405)
    assert refused.headers["Allow"] == "GET"


@EVERY_SERVICE
def test_a_method_that_an_address_does_not_know_is_told_which_it_knows(mesh: TestMesh, service: str) -> None:
    own = [o for o in OPERATIONS if o.service == service]
    for door in own:
        refused = mesh.anyone.call("PUT", service, door.at(), {})
        assert _is_problem(refused, 405)
        assert {*refused.headers["Allow"].split(", ")} >= {o.method for o in own if o.path == door.path}, door.path


@EVERY_SERVICE
def test_the_type_of_a_problem_is_a_page_that_explains_it(mesh: TestMesh, service: str) -> None:
    kind = mesh.anyone.get(service, "/nowhere").json()["type"]
    page = mesh.anyone.get(service, kind)
    assert page.status_code == 200
    assert len(page.text) > 40


@_every([o for o in OPERATIONS if o.is_list and o.secured])  # the price list is one page for everybody
def test_a_list_keeps_its_limits_and_refuses_a_forged_cursor(mesh: TestMesh, ann: Customer, operation: Operation) -> None:
    who = mesh.operator if operation.for_operators else ann
    path = operation.at(org_id=ann.org_id)
    page = who.get(operation.service, f"{path}?limit=1").json()
    assert page.keys() >= {"items", "next"}
    assert len(page["items"]) <= 1
    for query in ("limit=0", "limit=201", "cursor=forged", "cursor=" + "A" * 60):
        assert _is_problem(who.get(operation.service, f"{path}?{query}"), 422)


def test_a_list_read_in_pages_has_everything_once(ann: Customer) -> None:
    made = {ann.post("user", "/me/api-keys", {"name": f"key {i}", "scopes": ["read"]}).json()["id"] for i in range(5)}
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = ann.get("user", f"/me/api-keys?limit=2{cursor and '&cursor='}{cursor}").json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next"]
    assert made <= set(seen)
    assert len(seen) == len(set(seen))


def test_a_cursor_is_good_for_the_list_and_the_caller_that_it_was_made_for(mesh: TestMesh, ann: Customer) -> None:
    for name in ("one", "another"):
        assert ann.post("user", "/me/api-keys", {"name": name, "scopes": ["read"]}).status_code == 201
    cursor = ann.get("user", "/me/api-keys?limit=1").json()["next"]
    assert ann.get("user", f"/me/api-keys?cursor={cursor}").status_code == 200
    for service, path in (("user", "/sessions"), ("org", "/orgs"), ("provisioning", f"/orgs/{ann.org_id}/databases")):
        refused = ann.get(service, f"{path}?cursor={cursor}")
        assert _is_problem(refused, 422)
        assert refused.json()["type"] == "/problems/bad-cursor"
    assert _is_problem(mesh.sign_up(organization=None).get("user", f"/me/api-keys?cursor={cursor}"), 422)


def test_a_call_that_starts_a_flow_names_it_and_where_to_look(ann: Customer) -> None:
    started = ann.post("org", "/orgs", {"name": "Another"})
    assert started.status_code == 202
    flow = started.json()["flow_id"]
    assert started.headers["Location"] == f"{ann.urls['console']}/flows/{flow}"
    assert HTTP.get(started.headers["Location"], headers=ann.headers).status_code == 200


def test_a_key_in_flight_is_carried_out_once_whoever_asks_at_once(mesh: TestMesh) -> None:
    body = {"email": f"{uuid.uuid4().hex}@example.com", "password": PASSWORD, "name": "Twice"}

    async def all_at_once() -> list[httpx.Response]:
        async with httpx.AsyncClient(timeout=30) as client:
            calls = [client.post(mesh.urls["user"] + "/users", json=body, headers={"Idempotency-Key": body["email"]}) for _ in range(6)]
            return list(await asyncio.gather(*calls))

    answers = asyncio.run(all_at_once())
    assert {a.status_code for a in answers} <= {202, 409}
    assert len({a.json()["flow_id"] for a in answers if a.status_code == 202}) == 1
    assert len(mesh.rows('SELECT FROM "user".users WHERE email = $1', body["email"])) == 1


def test_a_write_is_read_by_whoever_presents_its_position(mesh: TestMesh) -> None:
    bob = mesh.sign_up(organization=None)
    verify(mesh, bob)
    made = bob.post("org", "/orgs", {"name": "Read at once"})
    assert made.status_code == 202, "the org service has seen that the address is verified"
    assert made.headers["Mesh-Position"].count("/") >= 2
    assert bob.get("billing", f"/orgs/{made.json()['id']}/subscription").status_code in (200, 404)
    assert bob.get("provisioning", f"/orgs/{made.json()['id']}/databases").status_code == 200, "provisioning has seen the membership"


def test_a_position_of_the_future_is_waited_for_and_never_404(ann: Customer) -> None:
    """Every service waits for some seconds, so all are asked at once."""

    def ask(service: str) -> httpx.Response:
        other = "org" if service != "org" else "user"
        stream = f"org:{ann.org_id}" if other == "org" else f"user:{ann.user_id}"
        return ann.get(service, _probe(service, ann.org_id), headers={"Mesh-Position": f"{other}/{stream}/1.999999"})

    with ThreadPoolExecutor(6) as pool:
        for late in pool.map(ask, services()):
            assert _is_problem(late, 503)
            assert int(late.headers["Retry-After"]) > 0


@EVERY_SERVICE
def test_a_position_that_is_none_is_refused_and_one_of_nobody_followed_is_ignored(ann: Customer, service: str) -> None:
    assert _is_problem(ann.get(service, _probe(service, ann.org_id), headers={"Mesh-Position": "nonsense"}), 422)
    ignored = ann.get(service, _probe(service, ann.org_id), headers={"Mesh-Position": f"nowhere/org:{ann.org_id}/1.7"})
    assert ignored.status_code == 200, "a source that the service does not follow is ignored"


def test_a_single_resource_has_a_tag_and_is_not_sent_twice(ann: Customer) -> None:
    database = f"/orgs/{ann.org_id}/databases/{ready_database(ann)['id']}"
    single = {"user": "/me", "org": f"/orgs/{ann.org_id}", "billing": f"/orgs/{ann.org_id}/subscription", "provisioning": database}
    for service, path in single.items():
        tag = ann.get(service, path).headers["ETag"]
        assert ann.get(service, path, headers={"If-None-Match": tag}).status_code == 304
    assert "ETag" in ann.get("console", f"/flows/{ann.flow_id}").headers
    assert "ETag" not in ann.get("org", "/orgs").headers


def test_a_change_of_another_version_than_the_one_seen_is_refused(ann: Customer) -> None:
    database = f"/orgs/{ann.org_id}/databases/{ready_database(ann)['id']}"
    changes = [("user", "/me", {"name": "Ann"}), ("org", f"/orgs/{ann.org_id}", {"name": "Ann's"}), ("provisioning", database, {"connection_limit": 7})]
    for service, path, body in changes:
        assert _is_problem(ann.patch(service, path, body, headers={"If-Match": '"another"'}), 412)
        seen = ann.get(service, path).headers["ETag"]
        assert ann.patch(service, path, body, headers={"If-Match": f'"another", {seen}'}).status_code in (200, 202)


def test_every_write_answers_its_position_and_earlier_ones_stay(ann: Customer) -> None:
    writes = [
        ("user", "PATCH", "/me", {"name": "Ann"}),
        ("org", "PATCH", f"/orgs/{ann.org_id}", {"name": "Ann's"}),
        ("provisioning", "PATCH", f"/orgs/{ann.org_id}/databases/{ready_database(ann)['id']}", {"connection_limit": 8}),
        ("notification", "POST", f"/me/messages/{ann.get('notification', '/me/messages').json()['items'][0]['id']}/read", None),
    ]
    ann.headers.pop("Mesh-Position", None)
    sources = []
    for service, method, path, body in writes:
        answer = ann.call(method, service, path, body)
        assert answer.is_success, answer.text
        sources.append(service)
        tokens = [token.strip() for token in answer.headers["Mesh-Position"].split(",")]
        assert {token.partition("/")[0] for token in tokens} == set(sources)


def test_a_page_has_fifty_items_unless_asked_otherwise(mesh: TestMesh) -> None:
    person = mesh.sign_up(organization=None)
    verify(mesh, person)
    for n in range(51):
        assert person.post("user", "/me/api-keys", {"name": f"key {n}", "scopes": ["read"]}).status_code == 201
    page = person.get("user", "/me/api-keys").json()
    assert len(page["items"]) == 50
    assert page["next"]
    assert len(person.get("user", "/me/api-keys?limit=200").json()["items"]) == 51


@EVERY_SERVICE
def test_other_origins_and_frames_are_kept_out(mesh: TestMesh, service: str) -> None:
    answer = mesh.anyone.get(service, "/healthz", headers={"Origin": "https://elsewhere.example"})
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


@EVERY_SERVICE
def test_the_pages_for_readers_need_no_other_server(mesh: TestMesh, service: str) -> None:
    page = mesh.anyone.get(service, "/docs")
    assert page.status_code == 200
    assert mesh.anyone.get(service, "/").headers["Location"] == "/docs"
    linked = re.findall(r"(?:src|href)=\"([^\"]+)\"", page.text)
    assert linked
    for link in linked:
        assert link.startswith("/")
        assert mesh.anyone.get(service, link).status_code == 200


@EVERY_SERVICE
def test_it_says_that_it_lives_can_serve_and_what_it_counts(mesh: TestMesh, service: str) -> None:
    assert mesh.anyone.get(service, "/healthz").json()["state"] == "alive"
    assert mesh.anyone.get(service, "/readyz").json()["ready"]
    counted = mesh.anyone.get(service, "/metrics").text
    assert "mesh_changes_applied_total" in counted
    assert not re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}", counted), "no label holds an id"


def test_ids_are_uuids_and_times_are_utc(ann: Customer) -> None:
    me = ann.get("user", "/me").json()
    assert uuid.UUID(me["id"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", me["verified_at"])


def test_an_answer_never_shows_a_stack(mesh: TestMesh, ann: Customer) -> None:
    for operation in OPERATIONS:
        if operation.method == "GET" and not operation.path.endswith("/events"):
            text = operation.call(ann, org_id=ann.org_id).text
            assert "Traceback" not in text, str(operation)
            assert 'File "' not in text, str(operation)

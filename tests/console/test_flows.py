"""Flows as their people and operators see them, through the console's doors."""

import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt
import orjson
import pytest

from shared.changes import minted_at, new_flow_id
from shared.http.callers import LEEWAY
from tests.console.stuck import failing_subscriptions
from tests.flows.people import verify
from tests.mesh import Customer, Door, TestMesh, eventually


def flow_of(who: Door, flow_id: str, wait: float = 0) -> dict[str, Any]:
    answer = who.get("console", f"/flows/{flow_id}?wait={wait}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def ended(who: Door, flow_id: str) -> dict[str, Any]:
    """The flow, when it has ended."""
    return eventually(lambda: f if (f := flow_of(who, flow_id, wait=10))["finished_at"] else None, timeout=90, what=f"the end of the flow {flow_id}")


def events(who: Door, flow_id: str, last: str | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Id and data of each event until the stream ends."""
    headers = who.headers | ({"Last-Event-ID": last} if last else {})
    with httpx.stream("GET", f"{who.urls['console']}/flows/{flow_id}/events", headers=headers, timeout=60) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        event: dict[str, str] = {}
        end = time.monotonic() + 60
        for line in answer.iter_lines():
            assert time.monotonic() < end, "the stream goes on: something is said every 15 s"
            name, _, value = line.partition(": ")
            if name:
                event[name] = value
            elif "data" in event:
                yield event["id"], orjson.loads(event["data"])


def verification(mesh: TestMesh, who: Customer) -> str:
    """The flow that waits until they verify their address."""
    find = "SELECT id FROM console.flows WHERE flow = 'verify an address' AND person = $1"
    return eventually(lambda: str(mesh.rows(find, UUID(who.user_id))[0]["id"]))


def test_a_sign_up_is_shown_step_by_step_through_five_services(customer: Customer) -> None:
    flow = ended(customer, customer.flow_id)
    assert (flow["flow"], flow["version"], flow["state"], flow["step"]) == ("sign up", 1, "done", None)
    assert {s["service"] for s in flow["steps"]} == {"user", "org", "billing", "provisioning", "notification"}
    assert all(s["state"] == "met" and s["at"] and s["in_step_ms"] is not None for s in flow["steps"])
    made = flow["steps"][1]
    assert made["cause"].startswith(f"user/user:{customer.user_id}/")
    assert 0 < made["queued_ms"] <= made["in_step_ms"] + 1000
    assert flow["org_id"] == customer.org_id
    assert flow["starter"] == f"user:{customer.user_id}"
    assert flow["started_at"] < flow["finished_at"]
    assert flow["data_age_ms"] < 60_000


def test_waiting_ends_when_the_flow_does(customer: Customer) -> None:
    assert ended(customer, customer.flow_id)["state"] == "done"
    before = time.monotonic()
    assert flow_of(customer, customer.flow_id, wait=20)["state"] == "done"
    assert time.monotonic() - before < 10, "a flow that has ended is answered at once"


def test_a_flow_that_waits_for_a_person_keeps_nobody_waiting(mesh: TestMesh, customer: Customer) -> None:
    flow = flow_of(customer, verification(mesh, customer), wait=20)
    assert (flow["state"], flow["step"]) == ("waiting_person", "verified")
    assert flow["steps"][-1]["waits_for"]


def test_only_its_people_and_operators_see_a_flow(mesh: TestMesh, customer: Customer) -> None:
    assert ended(customer, customer.flow_id)["state"] == "done"
    stranger = mesh.sign_up()
    assert stranger.get("console", f"/flows/{customer.flow_id}").status_code == 404
    assert stranger.get("console", f"/flows/{customer.flow_id}/events").status_code == 404
    assert stranger.get("console", f"/orgs/{customer.org_id}/flows").status_code == 404
    assert mesh.anyone.get("console", f"/flows/{customer.flow_id}").status_code == 401
    assert flow_of(mesh.operator, customer.flow_id)["state"] == "done"
    assert customer.flow_id in customer.get("console", f"/orgs/{customer.org_id}/flows").text


def test_an_id_given_out_just_now_is_starting_and_any_other_unknown_one_is_not_there(customer: Customer) -> None:
    fresh = new_flow_id()
    assert flow_of(customer, str(fresh))["state"] == "starting"
    old = UUID(int=fresh.int - (600_000 << 80))
    assert (minted_at(fresh) - minted_at(old)).total_seconds() == 600  # type: ignore[operator]
    for unknown in (old, uuid4(), UUID(int=fresh.int + (600_000 << 80))):
        assert customer.get("console", f"/flows/{unknown}").status_code == 404
    assert customer.get("console", "/flows/no-id").status_code == 422
    assert customer.get("console", f"/flows/{fresh}?wait=61").status_code == 422


def test_those_who_wait_hold_no_connection_to_the_database(customer: Customer) -> None:
    org_id = customer.org_id
    with ThreadPoolExecutor(20) as waiting:
        answers = [waiting.submit(flow_of, customer, str(new_flow_id()), 5) for _ in range(20)]
        for _ in range(3):
            assert customer.get("console", f"/orgs/{org_id}/flows").status_code == 200
        assert not any(a.done() for a in answers), "they were still waiting"
        assert {a.result()["state"] for a in answers} == {"starting"}


def test_events_tell_every_change_of_a_flow_and_end_with_it(mesh: TestMesh, customer: Customer) -> None:
    flow = verification(mesh, customer)
    eventually(lambda: flow_of(customer, flow)["state"] == "waiting_person")
    listening = events(customer, flow)
    told = [next(listening)]
    verify(mesh, customer)
    told += listening
    assert (told[0][1]["state"], told[-1][1]["state"]) == ("waiting_person", "done")
    met = [sum(s["state"] == "met" for s in data["steps"]) for _, data in told]
    assert met == sorted(met)
    assert len({id for id, _ in told}) == len(told)
    first, last = told[0][0], told[-1][0]
    assert [id for id, _ in events(customer, flow, last=first)] == [last], "who was cut off goes on where they were"
    assert list(events(customer, flow, last=last)) == [], "nothing is new after the last event"


def test_events_end_with_the_session_the_key_or_the_token_that_they_were_asked_for_with(mesh: TestMesh, verified: Customer) -> None:
    customer = verified
    flow = customer.post("org", f"/orgs/{customer.org_id}/invitations", {"email": "somebody@example.com", "role": "member"}).json()["flow_id"]
    eventually(lambda: flow_of(customer, flow)["state"] == "waiting_person")
    key = customer.post("user", "/me/api-keys", {"name": "a dashboard", "scopes": ["read"]}).json()
    session, expiring = Door(mesh.urls, mesh.sign_in(customer.email)), Door(mesh.urls, ending(mesh, customer, timedelta(seconds=5)))
    asking = [session, Door(mesh.urls, key["secret"]), expiring]
    for who in asking:
        eventually(lambda who=who: who.get("console", f"/flows/{flow}").status_code == 200)  # type: ignore[misc]
    listening = [events(who, flow) for who in asking]
    assert all(next(one) for one in listening)
    assert customer.delete("user", f"/me/api-keys/{key['id']}").status_code == 204
    assert session.delete("user", "/sessions/current").status_code == 204
    since, took = time.monotonic(), []
    for one in listening:
        assert list(one) == [], "it ends without a word"
        took.append(time.monotonic() - since)
    assert took[1] < 2
    assert took[2] < 7
    assert [who.get("console", f"/flows/{flow}").status_code for who in asking] == [401] * 3


def ending(mesh: TestMesh, who: Customer, after: timedelta) -> str:
    """An access token of theirs, signed with the real key, that no door takes after that time."""
    token = who.headers["Authorization"].removeprefix("Bearer ")
    key_id = jwt.get_unverified_header(token)["kid"]
    real = mesh.rows('SELECT private_key FROM "user".signing_keys WHERE id = $1', UUID(key_id))[0]["private_key"]
    claims = jwt.decode(token, options={"verify_signature": False})
    return jwt.encode(claims | {"exp": datetime.now(UTC) + after - timedelta(seconds=LEEWAY)}, real, "EdDSA", {"kid": key_id})


def test_operators_see_flows_of_everybody_with_counts_for_each_step(mesh: TestMesh, customer: Customer) -> None:
    ended(customer, customer.flow_id)
    found = mesh.operator.get("console", "/flows?state=done&flow=sign%20up&limit=200").json()
    assert customer.flow_id in [f["id"] for f in found["items"]]
    assert all((f["state"], f["flow"]) == ("done", "sign up") for f in found["items"])
    counts = {(c["flow"], c["step"], c["state"]): c["count"] for c in found["counts"]}
    assert counts["verify an address", "verified", "waiting_person"] >= 1
    waiting = mesh.operator.get("console", "/flows?step=verified&limit=1").json()
    assert len(waiting["items"]) == 1
    assert waiting["items"][0]["step"] == "verified"
    assert mesh.operator.get("console", "/flows?state=nonsense").status_code == 422
    assert customer.get("console", "/flows").status_code == 403


def test_flows_of_an_organization_come_in_pages_newest_first(customer: Customer) -> None:
    org = customer.org_id
    for action in ("suspend", "resume"):
        started = customer.post("org", f"/orgs/{org}/{action}", {"reason": "holiday"} if action == "suspend" else None).json()
        assert ended(customer, started["flow_id"])["state"] in ("done", "superseded")
    names, cursor = [], ""
    while True:
        page = customer.get("console", f"/orgs/{org}/flows?limit=1{cursor}").json()
        names += [f["flow"] for f in page["items"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert names[0] == "resume an organization"
    assert names.index("resume an organization") < names.index("suspend an organization") < names.index("sign up")
    assert len(names) == len(set(names))


def test_a_reaction_that_fails_is_shown_within_seconds_and_its_flow_goes_on_when_it_heals(mesh: TestMesh) -> None:
    name = f"Hole {secrets.token_hex(4)}"
    with failing_subscriptions(mesh, name):
        ann = mesh.sign_up(organization=name)
        eventually(lambda: mesh.rows("SELECT 1 FROM billing.parked WHERE flow_id = $1", UUID(ann.flow_id)), timeout=30, what="a parked reaction")
        flow = eventually(lambda: f if (f := flow_of(mesh.operator, ann.flow_id))["state"] == "failing" else None, timeout=5, what="a failing flow")
        step = next(s for s in flow["steps"] if s["state"] == "failing")
        assert (step["name"], step["service"], step["by"]) == ("subscription started", "billing", "billing.start_the_subscription")
        assert step["error"] == "RaiseError: the plan has a hole"
        assert step["attempt"] >= 1
        assert step["owner"] == "user"
        assert step["since"]
        assert f"mesh flows retry {ann.flow_id}" in step["what_to_do"]
        assert not any(s["what_to_do"] for s in flow_of(ann, ann.flow_id)["steps"]), "customers are not told our commands"
        assert mesh.operator.get("console", "/flows?state=failing").json()["items"][0]["id"] == ann.flow_id
    assert ended(ann, ann.flow_id)["state"] == "done"


@pytest.mark.processes
def test_a_flow_whose_next_service_does_not_act_is_overdue_and_goes_on_when_it_does(mesh: TestMesh) -> None:
    mesh.mesh.hold("org")
    mesh.mesh.kill("org")
    try:
        ann = mesh.sign_up(organization="Late")
        flow = eventually(lambda: f if (f := flow_of(mesh.operator, ann.flow_id))["state"] == "overdue" else None, timeout=5 + 10, what="an overdue flow")
        assert flow["step"] == "organization made"
        assert flow["steps"][1]["told"]
        assert flow["data_age_ms"] > 3000, "the age of the data shows that one service is silent"
    finally:
        mesh.mesh.release("org")
    assert ended(ann, ann.flow_id)["state"] == "done"


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.processes
def test_a_console_that_is_killed_goes_on_and_tells_nothing_twice(mesh: TestMesh, times: int) -> None:
    people = []
    for _ in range(times):
        people += [mesh.sign_up() for _ in range(2)]
        eventually(lambda: mesh.mesh.pid("console"), what="a console that can be killed")
        mesh.mesh.kill("console")
    mesh.mesh.wait_healthy()
    for ann in people:
        assert ended(ann, ann.flow_id)["state"] == "done"
    for source in ("user", "org", "billing"):
        eventually(
            lambda s=source: (  # type: ignore[misc]
                mesh.rows(
                    f'SELECT count(*) AS n FROM "{s}".changes c WHERE NOT again AND stream LIKE $1 '
                    f"AND payload::json ->> 'table' NOT IN ('parked', 'failing_work') AND payload::json ->> 'op' <> 'restate' AND NOT EXISTS "
                    f"(SELECT FROM console.history h WHERE h.name = $2 || '/' || c.stream || '/' || (c.payload::json ->> 'epoch') || '.' || c.seq)",
                    "%:%-%", s,
                )[0]["n"] == 0
            ),
            what=f"every change of {source}",
        )  # fmt: skip

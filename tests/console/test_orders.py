"""What operators do about flows that are stuck, through the console's doors: who carries it out, what comes of it, who sees it."""

from typing import Any
from uuid import UUID

import pytest

from tests.console.stuck import REACTION, failing_subscriptions, let_die, outcomes, parked_of
from tests.console.test_flows import ended, flow_of
from tests.mesh import Customer, TestMesh, eventually


def give(mesh: TestMesh, path: str, **body: Any) -> dict[str, Any]:
    answer = mesh.operator.post("console", path, {"reason": "a test", **body})
    assert answer.status_code == 201, answer.text
    given: dict[str, Any] = answer.json()
    return given


def subscriptions(mesh: TestMesh, customer: Customer) -> list[dict[str, Any]]:
    return mesh.rows("SELECT * FROM billing.subscriptions WHERE org_id = $1", UUID(customer.org_id))


def test_a_dead_reaction_is_shown_as_parked_and_a_retry_brings_its_flow_to_the_end(mesh: TestMesh) -> None:
    with failing_subscriptions(mesh, "Dead"):
        ann = mesh.sign_up(organization="Dead")
        parked_of(mesh, ann)
        let_die(mesh, ann)
        flow = eventually(lambda: f if (f := flow_of(mesh.operator, ann.flow_id))["state"] == "parked" else None, timeout=5, what="a parked flow")
        step = next(s for s in flow["steps"] if s["state"] == "parked")
        assert f"mesh flows skip {ann.flow_id}" in step["what_to_do"]
        assert ann.flow_id in mesh.operator.get("console", "/flows?stuck=true").text
        again = outcomes(mesh.operator, give(mesh, f"/flows/{ann.flow_id}/retry"))
        assert again == ["tried, and failed again: RaiseError: the plan has a hole"]
        assert parked_of(mesh, ann)["state"] == "retrying", "it has another day"
    given = give(mesh, f"/flows/{ann.flow_id}/retry")
    assert ended(ann, ann.flow_id)["state"] == "done"
    assert outcomes(mesh.operator, given)
    assert len(subscriptions(mesh, ann)) == 1


def test_a_skipped_change_is_left_out_and_the_flow_shows_it(mesh: TestMesh) -> None:
    with failing_subscriptions(mesh, "Skipped"):
        ann = mesh.sign_up(organization="Skipped")
        parked = parked_of(mesh, ann)
        assert (parked["org_id"], parked["error"]) == (ann.org_id, "RaiseError: the plan has a hole")
        assert parked["change"].startswith(f"org/org:{ann.org_id}/")
        given = give(mesh, f"/parked/{parked['id']}/skip")
        assert outcomes(mesh.operator, given) == ["skipped; 0 later changes applied"]
    assert mesh.operator.get("console", f"/parked/{parked['id']}").status_code == 404
    step = eventually(lambda: next(s for s in flow_of(mesh.operator, ann.flow_id)["steps"] if s["state"] == "skipped"))
    assert step["name"] == "subscription started"
    assert subscriptions(mesh, ann) == []
    give(mesh, f"/flows/{ann.flow_id}/cancel")


def test_a_cancelled_flow_goes_no_further_takes_nothing_back_and_lists_what_stays(mesh: TestMesh) -> None:
    with failing_subscriptions(mesh, "Cancelled"):
        ann = mesh.sign_up(organization="Cancelled")
        parked_of(mesh, ann)
        org = ann.org_id
        give(mesh, f"/flows/{ann.flow_id}/cancel")
        flow = ended(mesh.operator, ann.flow_id)
    assert flow["state"] == "cancelled"
    assert ("org", "organizations", {"org_id": org}) in [(s["service"], s["table"], s["key"]) for s in flow["stays"]]
    eventually(lambda: not mesh.rows("SELECT FROM billing.parked WHERE flow_id = $1", UUID(ann.flow_id)), what="nothing is parked for it any more")
    assert subscriptions(mesh, ann) == [], "although the plan is mended by now"
    assert ann.get("org", f"/orgs/{org}").json()["state"] == "active"
    renamed = ann.patch("org", f"/orgs/{org}", {"name": "Goes on"})
    assert renamed.status_code == 200, "what stays is not locked"
    assert flow_of(ann, ann.flow_id)["stays"], "its people see it too"


@pytest.mark.processes
def test_an_order_given_while_a_service_is_away_is_carried_out_when_it_is_back(mesh: TestMesh) -> None:
    with failing_subscriptions(mesh, "Away"):
        ann = mesh.sign_up(organization="Away")
        parked = parked_of(mesh, ann)
        mesh.mesh.hold("billing")
        mesh.mesh.kill("billing")
        try:
            given = give(mesh, f"/parked/{parked['id']}/skip")
        finally:
            mesh.mesh.release("billing")
        mesh.mesh.wait_healthy()
        assert outcomes(mesh.operator, given) == ["skipped; 0 later changes applied"]
    give(mesh, f"/flows/{ann.flow_id}/cancel")


def test_all_that_is_parked_for_a_reaction_is_tried_at_once_when_it_is_mended(mesh: TestMesh) -> None:
    with failing_subscriptions(mesh, "Many"):
        people = [mesh.sign_up(organization="Many") for _ in range(3)]
        for ann in people:
            parked_of(mesh, ann)
            let_die(mesh, ann)
    given = give(mesh, "/parked/retry", actor=REACTION)
    eventually(lambda: outcomes(mesh.operator, given).count("tried, and done") >= 3, what="an outcome for each")
    for ann in people:
        assert ended(ann, ann.flow_id)["state"] == "done"


def test_what_operators_do_is_in_the_trail_of_the_organization_and_in_their_own(mesh: TestMesh) -> None:
    with failing_subscriptions(mesh, "Trail"):
        ann = mesh.sign_up(organization="Trail")
        parked_of(mesh, ann)
        given = give(mesh, f"/flows/{ann.flow_id}/skip")
        outcomes(mesh.operator, given)
    give(mesh, f"/flows/{ann.flow_id}/cancel")
    (order,) = given["orders"]
    assert (order["act"], order["by"], order["reason"]) == ("skip", "operator", "a test")

    def trail(who: Any, path: str) -> set[tuple[str, str, str, str]]:
        found = who.get("console", f"{path}?limit=200").json()["items"]
        return {(e["service"], e["table"], e["act"], e["by"]) for e in found if e["act"] and e["flow_id"] == ann.flow_id}

    wanted = {("console", "orders", "skip", "operator"), ("billing", "order_results", "skip", "operator"), ("console", "orders", "cancel", "operator")}
    eventually(lambda: wanted <= trail(ann, f"/orgs/{ann.org_id}/audit"), what="the organization's trail")
    eventually(lambda: wanted <= trail(mesh.operator, "/audit"), what="the operators' trail")
    assert "a test" not in ann.get("console", f"/orgs/{ann.org_id}/audit").text


def test_a_restated_stream_makes_copies_elsewhere_equal_to_its_rows(mesh: TestMesh, customer: Customer) -> None:
    org = UUID(customer.org_id)
    assert ended(customer, customer.flow_id)["state"] == "done"
    mesh.rows("DELETE FROM billing.memberships WHERE org_id = $1", org)
    mesh.rows("UPDATE billing.organizations SET name = 'another' WHERE org_id = $1", org)
    given = give(mesh, "/services/org/restate", stream=f"org:{org}")
    assert outcomes(mesh.operator, given) == ["1 stream being restated"]
    eventually(lambda: mesh.rows("SELECT FROM billing.memberships WHERE org_id = $1", org), what="the copy of the membership")
    eventually(lambda: mesh.rows("SELECT name FROM billing.organizations WHERE org_id = $1", org)[0]["name"] == "Acme", what="the right name")
    assert len(subscriptions(mesh, customer)) == 1, "no reaction ran"


def test_changes_that_are_sent_again_are_passed_over_by_who_has_applied_them(mesh: TestMesh, customer: Customer) -> None:
    assert ended(customer, customer.flow_id)["state"] == "done"
    stream = f"org:{customer.org_id}"
    (told,) = outcomes(mesh.operator, give(mesh, "/services/org/resend", stream=stream, from_seq=1, to_seq=2))
    assert told == "2 changes sent again"
    assert len(subscriptions(mesh, customer)) == 1
    assert flow_of(customer, customer.flow_id)["state"] == "done"


@pytest.mark.parametrize(
    "path", ["/flows/{}/retry", "/flows/{}/skip", "/flows/{}/cancel", "/parked/{}/retry", "/parked/{}/skip", "/parked/retry", "/services/org/restate"]
)
def test_only_operators_act(customer: Customer, mesh: TestMesh, path: str) -> None:
    body = {"actor": REACTION} if path == "/parked/retry" else {}
    where = path.format(customer.flow_id)
    assert customer.post("console", where, body).status_code == 403
    assert mesh.anyone.post("console", where, body).status_code == 401


def test_an_order_that_makes_no_sense_is_refused_with_the_reason(mesh: TestMesh, customer: Customer) -> None:
    unknown = mesh.operator.post("console", f"/flows/{UUID(int=7)}/retry", {})
    assert unknown.status_code == 404
    assert ended(customer, customer.flow_id)["state"] == "done"
    over = mesh.operator.post("console", f"/flows/{customer.flow_id}/cancel", {})
    assert (over.status_code, over.json()["type"]) == (409, "/problems/flow-is-over")
    verify = eventually(lambda: mesh.rows("SELECT id FROM console.flows WHERE flow = 'verify an address' AND person = $1", UUID(customer.user_id))[0]["id"])
    waiting = mesh.operator.post("console", f"/flows/{verify}/skip", {})
    assert (waiting.status_code, waiting.json()["type"]) == (409, "/problems/nothing-waits")
    assert mesh.operator.post("console", "/services/nobody/restate", {}).status_code == 404
    assert mesh.operator.post("console", "/services/org/resend", {"stream": "org:x"}).status_code == 422


def test_an_order_with_the_same_key_is_given_once(mesh: TestMesh, customer: Customer) -> None:
    path, body, key = "/services/org/resend", {"stream": f"org:{customer.org_id}"}, {"Idempotency-Key": customer.flow_id}
    first, second = (mesh.operator.post("console", path, body, headers=key) for _ in range(2))
    assert first.json() == second.json()

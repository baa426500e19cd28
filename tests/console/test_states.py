"""States of flows that need more than a request: lost, superseded, waiting for a timer; each made on the running mesh."""

from typing import Any
from uuid import UUID

import pytest

from tests.console.test_flows import ended, flow_of
from tests.mesh import Customer, TestMesh, eventually


def ready(customer: Customer) -> str:
    """The customer's organization, when its sign-up is done."""
    assert ended(customer, customer.flow_id)["state"] == "done"
    return customer.org_id


def state_of(who: Any, flow_id: str, state: str) -> dict[str, Any]:
    def look() -> dict[str, Any]:
        flow = flow_of(who, flow_id)
        assert flow["state"] == state, (flow["state"], flow["step"])
        return flow

    return eventually(look, timeout=20, what=f"a flow that is {state}")


def swallow_the_next_change(mesh: TestMesh, source: str, org: str, by: str) -> None:
    """A service will pass over the next change of the organization's stream, as if it had reacted to it."""
    told = mesh.rows(
        f"UPDATE {by}.positions p SET seq = s.seq + 1 FROM {source}.streams s WHERE s.stream = p.stream "
        "AND p.reader = 'reactions' AND p.source = $1 AND p.stream = $2 RETURNING p.seq",
        source, f"org:{org}",
    )  # fmt: skip
    assert told


def make_it_older(mesh: TestMesh, flow_id: str, minutes: int) -> None:
    """As if all that happened to the flow's organization had happened so long ago."""
    mesh.rows(
        "UPDATE console.history SET at = at - make_interval(mins => $2) WHERE org_id = (SELECT org_id FROM console.flows WHERE id = $1)", UUID(flow_id), minutes
    )
    mesh.rows("UPDATE console.flows SET check_at = '-infinity' WHERE id = $1", UUID(flow_id))


def test_a_flow_with_nothing_on_its_way_any_more_is_lost_and_ends_when_an_operator_says_so(mesh: TestMesh, customer: Customer) -> None:
    org = ready(customer)
    swallow_the_next_change(mesh, "org", org, by="provisioning")
    flow_id = customer.post("org", f"/orgs/{org}/suspend", {"reason": "holiday"}).json()["flow_id"]
    assert flow_of(customer, flow_id, wait=2)["state"] in ("starting", "running"), "it may still come"
    make_it_older(mesh, flow_id, minutes=2)
    flow = state_of(mesh.operator, flow_id, "lost")
    step = next(s for s in flow["steps"] if s["state"] == "lost")
    assert (flow["step"], step["name"], step["owner"]) == ("data plane told", "data plane told", "org")
    assert step["told"]
    assert f"mesh flows cancel {flow_id}" in step["what_to_do"]
    assert flow_id in [f["id"] for f in mesh.operator.get("console", "/flows?stuck=true&limit=200").json()["items"]]
    assert mesh.operator.post("console", f"/flows/{flow_id}/cancel", {"reason": "done by hand"}).status_code == 201
    state_of(customer, flow_id, "cancelled")


@pytest.mark.processes
def test_a_suspension_that_a_resumption_has_overtaken_is_superseded_and_the_resumption_done(mesh: TestMesh, customer: Customer) -> None:
    org = ready(customer)
    mesh.mesh.hold("agent-local")
    mesh.mesh.kill("agent-local")
    try:
        first = customer.post("org", f"/orgs/{org}/suspend", {"reason": "a slip"}).json()["flow_id"]
        eventually(lambda: flow_of(customer, first)["step"] == "databases closed", what="a suspension that waits for the data plane")
        second = customer.post("org", f"/orgs/{org}/resume").json()["flow_id"]
        flow = state_of(customer, first, "superseded")
        assert flow["finished_at"]
        assert flow["steps"][-1]["state"] == "pending", "its databases were never closed"
    finally:
        mesh.mesh.release("agent-local")
    assert ended(customer, second)["state"] == "done"
    assert flow_of(customer, first)["state"] == "superseded", "what comes late changes nothing"


def test_a_deleted_database_waits_for_its_timer_and_its_flow_ends_when_time_has_passed(mesh: TestMesh, customer: Customer) -> None:
    org = ready(customer)
    database = customer.get("provisioning", f"/orgs/{org}/databases").json()["items"][0]["id"]
    flow_id = customer.delete("provisioning", f"/orgs/{org}/databases/{database}").json()["flow_id"]
    flow = state_of(customer, flow_id, "waiting_timer")
    assert (flow["step"], flow["finished_at"]) == ("data dropped", None)
    assert flow["steps"][-1]["waits_for"]
    assert mesh.operator.post("org", f"/orgs/{org}/clock", {"advance_seconds": 25 * 3600}).status_code == 202
    assert ended(customer, flow_id)["state"] == "done"

"""Flows that went otherwise than they are defined: told by their changes, in the console's doors and as figures."""

from uuid import UUID, uuid4

import pytest
from prometheus_client.parser import text_string_to_metric_families

from services.console.conformance import deviations
from services.console.folding import Fold, definition_of
from tests.console.test_flows import ended, flow_of
from tests.console.test_folding import Story
from tests.mesh import HTTP, Customer, TestMesh, eventually


def of(flow_id: UUID, story: Story) -> list[str]:
    own = [c for c in story.changes if c.flow_id == flow_id]
    defined = definition_of(own)
    assert defined
    return deviations(Fold(flow_id, *defined).add(story.changes), own)


@pytest.fixture
def suspended() -> tuple[Story, UUID]:
    """An organization was suspended, and all went as it is defined."""
    story, flow = Story(), uuid4()
    first = story.tell(flow, "org.organizations", state="suspended", suspended_by="owner")
    story.tell(flow, "provisioning.tenants", cause=first, state="suspending", error=None)
    story.tell(flow, "provisioning.tenants", by="agent:local", state="suspended", error=None)
    return story, flow


def test_a_flow_that_went_as_it_is_defined_deviates_nowhere(suspended: tuple[Story, UUID]) -> None:
    story, flow = suspended
    assert of(flow, story) == []


def test_a_step_that_another_row_meets_again_is_an_effect_that_is_there_twice() -> None:
    story, flow = Story(), uuid4()
    first = story.tell(flow, "org.organizations", op="insert", origin="created")
    story.tell(flow, "billing.subscriptions", op="insert", cause=first)
    assert of(flow, story) == []
    story.tell(flow, "billing.subscriptions", key="another", op="insert", cause=first)
    assert of(flow, story) == ["repeated: subscription started"]


def test_a_step_that_was_never_met_is_told_when_the_flow_is_done_unless_an_operator_skipped_it() -> None:
    story, flow = Story(), uuid4()
    story.tell(flow, "org.organizations", state="suspended", suspended_by="owner")
    assert of(flow, story) == [], "it may still come"
    story.tell(flow, "provisioning.tenants", state="suspended", error=None)
    assert of(flow, story) == ["skipped: data plane told"]
    story.tell(flow, "provisioning.order_results", op="insert", by="operator", act="skip", actor="provisioning.suspend_or_resume", did=True)
    assert of(flow, story) == []


def test_what_a_flow_does_after_its_end_is_told(suspended: tuple[Story, UUID]) -> None:
    story, flow = suspended
    story.tell(uuid4(), "provisioning.tenants", state="suspending", error=None)
    assert of(flow, story) == [], "that was another flow"
    story.tell(flow, "provisioning.tenants", by="agent:local", state="suspended", error=None)
    assert of(flow, story) == ["after the end: databases closed"]


def ends(mesh: TestMesh, flow: str, state: str) -> float:
    """How many flows the console has counted to this end."""
    families = text_string_to_metric_families(HTTP.get(f"{mesh.urls['console']}/metrics").text)
    samples = [s for family in families for s in family.samples if s.name == "mesh_flows_ended_total"]
    return next(s.value for s in samples if (s.labels["flow"], s.labels["state"]) == (flow, state))


def test_a_sign_up_goes_as_it_is_defined_and_its_end_is_counted(mesh: TestMesh) -> None:
    before = ends(mesh, "sign up", "done")
    ann = mesh.sign_up()
    flow = ended(ann, ann.flow_id)
    assert (flow["state"], flow["deviations"]) == ("done", [])
    eventually(lambda: ends(mesh, "sign up", "done") > before)


def test_a_flow_that_deviates_is_found_by_operators_and_counted(mesh: TestMesh, customer: Customer) -> None:
    assert ended(customer, customer.flow_id)["state"] == "done"
    mesh.rows(  # as if billing had made two
        'INSERT INTO console.history SELECT name || \'000\', stream, org_id, at, by, flow_id, cause, "table", op, \'{"org_id": "another"}\', columns, facts '
        "FROM console.history WHERE flow_id = $1 AND \"table\" = 'billing.subscriptions' AND op = 'insert'",
        UUID(customer.flow_id),
    )
    mesh.rows("UPDATE console.flows SET check_at = '-infinity' WHERE id = $1", UUID(customer.flow_id))
    eventually(lambda: flow_of(customer, customer.flow_id)["deviations"] == ["repeated: subscription started"])
    found = mesh.operator.get("console", "/flows?deviating=true&limit=200").json()["items"]
    assert customer.flow_id in [f["id"] for f in found]
    told = HTTP.get(f"{mesh.urls['console']}/metrics").text
    assert 'mesh_flow_deviations_total{flow="sign up",kind="repeated"} 0.0' not in told

"""Plans and subscriptions through their doors."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.billing.conftest import Billing
from tests.flows.people import ready_database
from tests.mesh import Customer, TestMesh, eventually

FREE = {"databases": 1, "members": 3, "connections": 5}
TEAM = {"databases": 3, "members": 15, "connections": 20}
SCALE = {"databases": 20, "members": 200, "connections": 100}


def subscription(customer: Customer) -> dict[str, Any]:
    """The subscription of the customer's organization, once it is there."""
    path = f"/orgs/{customer.org_id}/subscription"
    answer = eventually(lambda: (a := customer.get("billing", path)).status_code == 200 and a, timeout=40, what="the subscription")
    return dict(answer.json())


def test_anybody_may_read_the_price_list(mesh: TestMesh) -> None:
    answer = mesh.anyone.get("billing", "/plans")
    assert answer.status_code == 200
    assert answer.json()["next"] is None
    plans = answer.json()["items"]
    assert {p["id"]: p["limits"] for p in plans} == {"free": FREE, "team": TEAM, "scale": SCALE}
    assert [p["amount"] for p in plans] == sorted(p["amount"] for p in plans)
    assert all(type(p["amount"]) is int for p in plans), "minor units of the currency"
    assert all(p["name"] and p["description"] and (p["currency"], p["interval"]) == ("USD", "month") for p in plans)


def test_a_new_organization_tries_the_team_plan_for_14_days(customer: Customer) -> None:
    trial = subscription(customer)
    assert (trial["plan"], trial["state"], trial["limits"]) == ("free", "trialing", TEAM)
    left = datetime.fromisoformat(trial["trial_ends_at"]) - datetime.now(UTC)
    assert timedelta(days=13, hours=23) < left <= timedelta(days=14)
    assert set(trial) == {"plan", "state", "trial_ends_at", "limits", "stripe_customer"}


def test_when_the_trial_ends_the_free_plans_limits_are_in_force(customer: Customer, mesh: TestMesh) -> None:
    other = mesh.sign_up()
    trial = subscription(customer)
    subscription(other)
    assert advance(mesh, customer, days=13, hours=23).status_code == 202
    assert advance(mesh, customer, hours=2).status_code == 202
    ended = eventually(lambda: (s := subscription(customer))["state"] == "active" and s, what="the end of the trial")
    assert (ended["plan"], ended["limits"], ended["trial_ends_at"]) == ("free", FREE, trial["trial_ends_at"])
    assert subscription(other)["state"] == "trialing"


def test_a_trial_lasts_until_its_last_hour(customer: Customer, mesh: TestMesh) -> None:
    subscription(customer)
    position = advance(mesh, customer, days=13, hours=23).headers["Mesh-Position"]
    assert customer.get("billing", f"/orgs/{customer.org_id}/subscription", headers={"Mesh-Position": position}).json()["limits"] == TEAM


@pytest.mark.processes
def test_a_trial_that_ends_while_billing_is_away_ends_when_it_is_back(customer: Customer, mesh: TestMesh, billing: Billing) -> None:
    subscription(customer)
    with billing.away("billing"):
        assert advance(mesh, customer, days=15).status_code == 202
    eventually(lambda: subscription(customer)["limits"] == FREE, what="the end of the trial")


@pytest.mark.processes
def test_an_organization_made_while_billing_is_away_gets_its_subscription_once(mesh: TestMesh, billing: Billing) -> None:
    with billing.away("billing"):
        customer = mesh.sign_up()
        org_id = customer.org_id
    assert subscription(customer)["state"] == "trialing"
    eventually(lambda: billing.customer_states(org_id) == ["requested", "ready"], what="one subscription, one customer")


def test_an_operator_changes_the_plan_and_its_limits_are_in_force_everywhere(customer: Customer, mesh: TestMesh) -> None:
    subscription(customer)
    path, database = f"/orgs/{customer.org_id}/subscription", f"/orgs/{customer.org_id}/databases/{ready_database(customer)['id']}"
    refused = customer.post("billing", path, {"plan": "scale"})
    assert (refused.status_code, refused.json()["type"]) == (403, "/problems/forbidden")
    assert mesh.operator.post("billing", path, {"plan": "none of ours"}).json()["type"] == "/problems/no-such-plan"
    changed = mesh.operator.post("billing", path, {"plan": "scale"})
    assert changed.status_code == 200, changed.text
    assert (changed.json()["plan"], changed.json()["state"], changed.json()["limits"]) == ("scale", "active", SCALE)
    assert datetime.fromisoformat(changed.json()["trial_ends_at"]) <= datetime.now(UTC), "the trial has ended"
    many = {"connection_limit": 50}
    after = {"Mesh-Position": changed.headers["Mesh-Position"]}
    assert customer.patch("provisioning", database, many, headers=after).status_code == 202
    later = {"Mesh-Position": advance(mesh, customer, days=15).headers["Mesh-Position"]}
    assert customer.get("billing", path, headers=later).json()["limits"] == SCALE, "when the trial would have ended"
    assert mesh.operator.post("billing", path, {"plan": "free"}).json()["limits"] == FREE
    eventually(lambda: customer.get("provisioning", database).json()["limits"]["connections"] == FREE["connections"], what="the lower limit")


def test_only_members_see_the_subscription(customer: Customer, mesh: TestMesh) -> None:
    subscription(customer)
    path = f"/orgs/{customer.org_id}/subscription"
    stranger = mesh.sign_up()
    subscription(stranger)
    assert stranger.get("billing", path).status_code == 404
    assert mesh.anyone.get("billing", path).status_code == 401


def test_the_subscription_stays_readable_while_the_organization_is_suspended(customer: Customer) -> None:
    subscription(customer)
    assert customer.post("org", f"/orgs/{customer.org_id}/suspend", {"reason": "holiday"}).status_code == 202
    assert subscription(customer)["plan"] == "free"


def advance(mesh: TestMesh, customer: Customer, **by: int) -> Any:
    return mesh.operator.post("org", f"/orgs/{customer.org_id}/clock", {"advance_seconds": int(timedelta(**by).total_seconds())})

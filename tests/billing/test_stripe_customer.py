"""Every organization has exactly one customer at Stripe, whatever fails on the way."""

import pytest

from tests.billing.conftest import Billing
from tests.billing.test_subscriptions import subscription
from tests.mesh import Customer, TestMesh, eventually


def customer_id(customer: Customer) -> str:
    """The Stripe customer that the door shows, once there is one."""
    return str(eventually(lambda: subscription(customer)["stripe_customer"], timeout=40, what="the Stripe customer"))


def test_stripe_gets_one_customer_with_the_organizations_name(mesh: TestMesh, billing: Billing) -> None:
    customer = mesh.sign_up(organization="Möwe & Söhne")
    shown = customer_id(customer)
    (made,) = eventually(lambda: [c for c in billing.at_stripe(customer.org_id) if c["name"]], what="the name at Stripe")
    assert (made["id"], made["name"], made["metadata"]) == (shown, "Möwe & Söhne", {"mesh_id": customer.org_id})
    assert billing.customer_states(customer.org_id) == ["requested", "ready"]


def test_stripe_learns_a_new_name(customer: Customer, billing: Billing) -> None:
    customer_id(customer)
    for name in ("First", "Second"):
        assert customer.patch("org", f"/orgs/{customer.org_id}", {"name": name}).status_code == 200
    eventually(lambda: [c["name"] for c in billing.at_stripe(customer.org_id)] == ["Second"], what="the new name at Stripe")


@pytest.mark.processes
def test_killed_between_stripes_answer_and_our_note_there_is_no_second_customer(mesh: TestMesh, billing: Billing) -> None:
    with billing.stripe_is_slow():
        customer = mesh.sign_up()
        org_id = customer.org_id
        eventually(lambda: billing.attempts(org_id) > 0, timeout=40, what="the worker to begin")
        waiting = billing.mesh.nothing_is_written("billing", f"org:{org_id}")
        waiting.__enter__()
    try:
        eventually(lambda: billing.at_stripe(org_id), what="the customer at Stripe")
        mesh.mesh.kill("billing")
    finally:
        waiting.__exit__(None, None, None)
    billing.serves("billing")
    assert billing.customer_states(org_id) == ["requested"]
    billing.lease_ends(org_id)
    shown = customer_id(customer)
    assert [c["id"] for c in billing.at_stripe(org_id)] == [shown]
    assert billing.customer_states(org_id) == ["requested", "ready"]


@pytest.mark.processes
def test_killed_during_the_call_there_is_no_second_customer(mesh: TestMesh, billing: Billing) -> None:
    with billing.stripe_is_slow():
        customer = mesh.sign_up()
        org_id = customer.org_id
        eventually(lambda: billing.attempts(org_id) > 0, timeout=40, what="the worker to begin")
        mesh.mesh.kill("billing")
    billing.serves("billing")
    billing.lease_ends(org_id)
    shown = customer_id(customer)
    assert [c["id"] for c in billing.at_stripe(org_id)] == [shown]


@pytest.mark.processes
def test_an_organization_made_while_stripe_is_away_gets_its_customer_later(mesh: TestMesh, billing: Billing) -> None:
    with billing.away("stripe"):
        customer = mesh.sign_up()
        org_id = customer.org_id
        eventually(lambda: billing.attempts(org_id) > 1, timeout=40, what="a second attempt")
        assert subscription(customer)["stripe_customer"] is None
        assert customer.patch("org", f"/orgs/{org_id}", {"name": "Renamed meanwhile"}).status_code == 200
    shown = customer_id(customer)
    eventually(lambda: [(c["id"], c["name"]) for c in billing.at_stripe(org_id)] == [(shown, "Renamed meanwhile")], what="one customer, well named")


@pytest.mark.processes
def test_when_stripe_stays_away_the_customer_has_failed_and_the_subscription_stands(mesh: TestMesh, billing: Billing) -> None:
    with billing.away("stripe"):
        customer = mesh.sign_up()
        org_id = customer.org_id
        eventually(lambda: billing.attempts(org_id) > 0, timeout=40, what="the worker to begin")
        billing.budget_ends(org_id)
        eventually(lambda: billing.customer_states(org_id) == ["requested", "failed"], timeout=40, what="the failure to be noted")
    assert billing.attempts(org_id) == 0
    assert (subscription(customer)["state"], billing.at_stripe(org_id)) == ("trialing", [])

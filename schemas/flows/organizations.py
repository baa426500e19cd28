"""The flow: a person who has signed up makes another organization."""

from schemas.billing import Subscription
from schemas.org import Organization
from schemas.provisioning import Tenant
from shared.flows import Flow, step

create = Flow(
    "create an organization", version=1, owner="org",
    steps=(
        step("organization made", Organization, on="inserted", origin="created"),
        step("subscription started", Subscription, on="inserted", by="billing.start_the_subscription", within="5 s",
             told="Your plan is not set up yet. We are looking into it."),
        step("payment customer ready", Subscription, by="billing.make_the_stripe_customer", within="1 min", customer_state="ready",
             failing={"customer_state": "failed"}, told="We could not set up your billing account. You can work; we will mend it."),
        step("tenant placed", Tenant, on="inserted", by="provisioning.place_the_tenant",
             told="There is no data plane for your organization yet. We are looking into it."),
    ),
)  # fmt: skip

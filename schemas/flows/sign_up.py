"""The flow: a person signs up, and has a database of their own in a data plane."""

from schemas.billing import Subscription
from schemas.notification import Message
from schemas.org import Organization
from schemas.provisioning import Database, Login, Tenant
from schemas.user import SignUp
from shared.flows import Flow, step
from shared.rows import present

sign_up = Flow(
    "sign up", version=1, owner="user",
    steps=(
        step("signed up", SignUp, on="inserted", organization=present),
        step("organization made", Organization, on="inserted", by="org.make_the_organization", within="5 s",
             told="Your organization is not there yet. We are looking into it."),
        step("subscription started", Subscription, on="inserted", by="billing.start_the_subscription", within="5 s",
             told="Your plan is not set up yet. We are looking into it."),
        step("payment customer ready", Subscription, by="billing.make_the_stripe_customer", within="1 min", customer_state="ready",
             failing={"customer_state": "failed"}, told="We could not set up your billing account. You can work; we will mend it."),
        step("tenant placed", Tenant, on="inserted", by="provisioning.place_the_tenant", within="10 s",
             told="There is no data plane for your organization yet. We are looking into it."),
        step("database asked for", Database, on="inserted", by="provisioning.make_the_first_database", within="10 s",
             told="Your database is not made yet. We are looking into it."),
        step("database ready", Database, within="1 min", state="ready", failing={"state": "failed"},
             told="Your database is not ready yet. We are looking into it."),
        step("access granted", Login, within="30 s", state="ready", failing={"state": "failed"}, told="Your access to the database is not ready yet."),
        step("welcome mail sent", Message, by="notification.send_the_mail", within="2 min", template="welcome", state="sent", failing={"state": "failed"},
             told="The welcome mail could not be delivered. Your database is ready."),
    ),
)  # fmt: skip

join = Flow(
    "sign up alone", version=1, owner="user",
    steps=(step("signed up", SignUp, on="inserted", organization=None),),
)  # fmt: skip
"""A person who signs up without an organization, to join one: nothing more is made."""

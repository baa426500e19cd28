"""What the billing service publishes."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel

from shared.rows import Row


class Limits(BaseModel):
    """What a plan allows: databases and members of an organization, connections to each database."""

    databases: int
    members: int
    connections: int


class Subscription(Row):
    """An organization's plan. ``limits`` are those in force: the trial's while it lasts.

    ``customer_state`` says whether the payment provider knows the customer; its id is ``stripe_customer``.
    """

    table = "billing.subscriptions"
    key = ("org_id",)
    org_id: UUID
    plan: str
    state: Literal["trialing", "active"]
    limits: Limits
    trial_ends_at: datetime | None
    customer_state: Literal["requested", "ready", "failed"]
    stripe_customer: str | None

"""The billing service's doors."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from schemas.billing import Limits
from services.billing import plans, subscriptions
from shared.http.callers import Member, OpenTx, TenantTx
from shared.http.pages import Page
from shared.http.routing import View, new_router

router = new_router(tags=["billing"])


class SubscriptionView(View):
    plan: str
    state: Literal["trialing", "active"]
    trial_ends_at: datetime | None
    limits: Limits
    stripe_customer: str | None


@router.get("/plans")
async def list_plans(tx: OpenTx) -> Page[plans.Plan]:
    """The price list, smallest plan first. `amount` is in minor units of `currency` (ISO 4217), for each `interval`."""
    return Page(items=await plans.all_plans(tx), next=None)


@router.get("/orgs/{org_id}/subscription")
async def get_subscription(org_id: UUID, caller: Member, tx: TenantTx) -> SubscriptionView:
    """The organization's plan and the limits in force: those of the team plan while the trial lasts, then the plan's own.

    `stripe_customer` is null until the payment provider knows the organization.
    """
    return SubscriptionView.model_validate(await subscriptions.get(tx, org_id))

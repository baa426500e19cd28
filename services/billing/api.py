"""The billing service's doors."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from schemas.billing import Limits
from services.billing import plans, subscriptions
from shared.http.callers import Member, OpenTx, Operator, OwnerOrOperator, TenantTx
from shared.http.pages import Page
from shared.http.routing import Body, View, new_router

router = new_router(tags=["billing"])


class PlanBody(Body):
    plan: Annotated[str, Field(max_length=40, description="The id of a plan in `GET /plans`", examples=["scale"])]


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


@router.post("/orgs/{org_id}/subscription", tags=["operators"])
async def change_plan(org_id: UUID, body: PlanBody, operator: Operator, caller: OwnerOrOperator, tx: TenantTx) -> SubscriptionView:
    """Puts the organization on another plan at once; a trial ends with it. For operators: nothing is charged or paid back by this.

    Connections above the new plan's are lowered. Databases and members beyond it stay; no further ones are let in.
    """
    return SubscriptionView.model_validate(await subscriptions.change_plan(tx, org_id, body.plan))

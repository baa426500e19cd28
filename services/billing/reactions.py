"""What the billing service does when others change."""

from schemas.org import Organization
from services.billing import subscriptions
from shared.reactions import on
from shared.tx import Tx


@on(Organization.inserted)
async def start_the_subscription(tx: Tx, organization: Organization) -> None:
    await subscriptions.start(tx, organization.org_id, organization.name)


@on(Organization.updated)
async def rename_the_stripe_customer(tx: Tx, organization: Organization) -> None:
    await subscriptions.rename_customer(tx, organization.org_id, organization.name)

"""Subscriptions: each organization has one, free until an operator changes it, and begins it with a trial of a paid plan's limits."""

from uuid import UUID

from pydantic import BaseModel

from schemas.billing import Subscription
from shared.errors import Refused
from shared.tx import Tx

TRIAL_ENDS = "trial_ends"
STRIPE_CUSTOMER = "stripe_customer"
STRIPE_NAME = "stripe_name"

_PLAN, _TRIAL_OF, _TRIAL_DAYS = "free", "team", 14


class NoSuchPlan(Refused):
    """There is no plan of this id. Take one of those that GET /plans lists."""

    status = 422


class NameToTell(BaseModel):
    """A customer at Stripe who does not have the organization's name yet."""

    customer: str
    name: str


async def start(tx: Tx, org_id: UUID, name: str) -> None:
    """Gives the organization its free subscription, its trial, and a customer at Stripe soon."""
    subscription = await tx.one(
        Subscription,
        "INSERT INTO subscriptions (org_id, customer_name, plan, state, limits, trial_ends_at) "
        "SELECT $1, $2, $3, 'trialing', limits, mesh_now() + make_interval(days => $5) FROM plans WHERE id = $4 RETURNING *",
        org_id, name, _PLAN, _TRIAL_OF, _TRIAL_DAYS,
    )  # fmt: skip
    await tx.schedule(TRIAL_ENDS, org_id, subscription.trial_ends_at)
    await tx.schedule(STRIPE_CUSTOMER, org_id)


async def get(tx: Tx, org_id: UUID) -> Subscription:
    return await tx.one(Subscription, "SELECT * FROM subscriptions WHERE org_id = $1", org_id)


async def change_plan(tx: Tx, org_id: UUID, plan: str) -> Subscription:
    """The plan and its limits are in force from now on, and a trial ends. Raises :class:`NoSuchPlan`, :class:`shared.errors.NotFound`."""
    changed = await tx.maybe(
        Subscription,
        "UPDATE subscriptions s SET plan = p.id, state = 'active', limits = p.limits, trial_ends_at = least(s.trial_ends_at, mesh_now()) "
        "FROM plans p WHERE s.org_id = $1 AND p.id = $2 RETURNING s.*",
        org_id, plan,
    )  # fmt: skip
    if changed is None:
        await get(tx, org_id)
        raise NoSuchPlan
    await tx.unschedule(TRIAL_ENDS, org_id)
    return changed


async def end_trial(tx: Tx, org_id: UUID) -> None:
    """From here on the plan's own limits are in force. A trial that has ended stays ended."""
    await tx.run(
        "UPDATE subscriptions s SET state = 'active', limits = p.limits FROM plans p WHERE s.org_id = $1 AND s.state = 'trialing' AND p.id = s.plan",
        org_id,
    )


async def customer_is_ready(tx: Tx, org_id: UUID, customer: str) -> None:
    """Notes the customer that Stripe has for the organization, and has it named. Said twice, it changes nothing."""
    await tx.run("UPDATE subscriptions SET customer_state = 'ready', stripe_customer = $2 WHERE org_id = $1 AND customer_state <> 'ready'", org_id, customer)
    await _tell_the_name(tx, org_id)


async def customer_failed(tx: Tx, org_id: UUID) -> None:
    await tx.run("UPDATE subscriptions SET customer_state = 'failed' WHERE org_id = $1 AND customer_state = 'requested'", org_id)


async def rename_customer(tx: Tx, org_id: UUID, name: str) -> None:
    """The organization is called so from now on. A customer who is yet to come is named when it has come."""
    if await tx.run("UPDATE subscriptions SET customer_name = $2 WHERE org_id = $1 AND customer_name <> $2", org_id, name):
        await _tell_the_name(tx, org_id)


async def name_to_tell(tx: Tx, org_id: UUID) -> NameToTell | None:
    """What Stripe does not know yet, if anything."""
    return await tx.maybe(
        NameToTell,
        "SELECT stripe_customer AS customer, customer_name AS name FROM subscriptions "
        "WHERE org_id = $1 AND customer_state = 'ready' AND customer_told IS DISTINCT FROM customer_name",
        org_id,
    )


async def name_is_told(tx: Tx, org_id: UUID, name: str) -> None:
    """Notes what Stripe was told; a name that has changed meanwhile is told again."""
    await tx.run("UPDATE subscriptions SET customer_told = $2 WHERE org_id = $1", org_id, name)
    await _tell_the_name(tx, org_id)


async def _tell_the_name(tx: Tx, org_id: UUID) -> None:
    if await name_to_tell(tx, org_id):
        await tx.schedule(STRIPE_NAME, org_id)

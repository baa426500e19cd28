"""What billing does at Stripe, and when a trial ends."""

from datetime import timedelta
from uuid import UUID

import stripe

from services.billing import customers, subscriptions
from shared.failpoints import failpoint
from shared.tx import Tx
from shared.workers import GiveUp, Work, timer, worker

_BUDGET = timedelta(hours=30)
"""Longer than the day for which Stripe repeats its first answer to an Idempotency-Key, even when that was a failure of its own."""


@timer(subscriptions.TRIAL_ENDS)
async def end_the_trial(tx: Tx, org_id: UUID) -> None:
    tx.start_flow()
    await subscriptions.end_trial(tx, org_id)


@worker(subscriptions.STRIPE_CUSTOMER, budget=_BUDGET)
async def make_the_stripe_customer(work: Work) -> None:
    try:
        customer = await customers.find_or_create(work.id, tried_before=work.attempt > 1)
    except stripe.StripeError as error:
        if not work.overdue:
            raise
        async with work.transaction() as tx:
            await subscriptions.customer_failed(tx, work.id)
        raise GiveUp(f"Stripe did not do it within {_BUDGET}") from error
    failpoint("customer")
    async with work.transaction() as tx:
        await subscriptions.customer_is_ready(tx, work.id, customer)


@worker(subscriptions.STRIPE_NAME, budget=_BUDGET)
async def name_the_stripe_customer(work: Work) -> None:
    async with work.transaction() as tx:
        wanted = await subscriptions.name_to_tell(tx, work.id)
    if wanted is None:
        return
    try:
        await customers.rename(wanted.customer, wanted.name)
    except stripe.StripeError as error:
        if work.overdue:
            raise GiveUp(f"Stripe did not do it within {_BUDGET}") from error
        raise
    async with work.transaction() as tx:
        await subscriptions.name_is_told(tx, work.id, wanted.name)

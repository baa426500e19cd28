"""Customers at Stripe: each organization has exactly one, marked with ``metadata.mesh_id``."""

from functools import cache
from uuid import UUID

import stripe

from shared.settings import settings

_TIMEOUT = 8.0  # seconds a request; a look-up and a creation together stay well below the worker's lease


@cache
def _customers() -> "stripe.CustomerService":
    """One client a process. It does not retry by itself: the worker does, and looks before it makes."""
    stripe.enable_telemetry = False  # it would leave an id in the home of whoever runs this
    s = settings()
    client = stripe.StripeClient(
        s.stripe_api_key.get_secret_value(),
        base_addresses={"api": s.stripe_api_base},
        http_client=stripe.HTTPXClient(timeout=_TIMEOUT),
        max_network_retries=0,
    )
    return client.v1.customers


async def find_or_create(org_id: UUID, *, tried_before: bool) -> str:
    """The id of the organization's customer. Raises :class:`stripe.StripeError`.

    A call that was ``tried_before`` may have left one: Stripe is asked first. Its search lags by up to a minute, and for that
    time the Idempotency-Key has it answer with the same customer again. One key goes with one body, so that nothing which may
    change between two tries is in it; the name is told later.
    """
    found = await _find(org_id) if tried_before else None
    return found or await _create(org_id)


async def _find(org_id: UUID) -> str | None:
    found = await _customers().search_async({"query": f"metadata['mesh_id']:'{org_id}'", "limit": 1})
    return found.data[0].id if found.data else None


async def _create(org_id: UUID) -> str:
    made = await _customers().create_async({"metadata": {"mesh_id": str(org_id)}}, {"idempotency_key": str(org_id)})
    return made.id


async def rename(customer: str, name: str) -> None:
    """Raises :class:`stripe.StripeError`."""
    await _customers().update_async(customer, {"name": name})

"""Plans: what an organization may have, and what that costs."""

from typing import Literal

from pydantic import BaseModel

from schemas.billing import Limits
from shared.tx import Tx


class Plan(BaseModel):
    """A plan of the price list. ``amount`` is the price of one ``interval`` in minor units of ``currency`` (ISO 4217)."""

    id: str
    name: str
    description: str
    amount: int
    currency: str
    interval: Literal["month", "year"]
    limits: Limits


async def all_plans(tx: Tx) -> list[Plan]:
    """The price list, smallest plan first."""
    return await tx.all(Plan, "SELECT * FROM plans ORDER BY position")

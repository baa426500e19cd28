"""What this service knows of the tenant."""

from typing import Literal

from pydantic import BaseModel

from shared.errors import NotYet
from shared.tx import Tx


class Known(BaseModel):
    name: str
    origin: Literal["sign_up", "created"]


async def known(tx: Tx) -> Known:
    """Raises :class:`NotYet` while the organization has not come."""
    organization = await tx.maybe(Known, "SELECT name, origin FROM organizations WHERE org_id = (SELECT tenant())")
    if organization is None:
        raise NotYet(f"organization {tx.org_id}")
    return organization

"""The org service's timers."""

from uuid import UUID

from services.org import invitations
from shared.tx import Tx
from shared.workers import timer


@timer(invitations.EXPIRES)
async def expire_the_invitation(tx: Tx, invitation_id: UUID) -> None:
    await invitations.expire(tx, invitation_id)

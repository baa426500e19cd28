"""The notification service's doors."""

from uuid import UUID

from services.notification import messages
from shared.http.callers import OrgAdmin, Person, PersonTx, TenantTx
from shared.http.pages import Page, Paged, page
from shared.http.routing import new_router

router = new_router(tags=["notification"])


@router.get("/me/messages")
async def inbox(caller: Person, tx: PersonTx, query: Paged) -> Page[messages.Received]:
    """What the caller was told, newest first, whether or not the mail has arrived. A secret link is in the mail alone: its `text` is null."""
    return await page(tx, messages.Received, query, messages.MINE, newest_first=True)


@router.post("/me/messages/{message_id}/read", status_code=204)
async def mark_read(message_id: UUID, caller: Person, tx: PersonTx) -> None:
    """Marks a message read. Doing it again changes nothing."""
    await messages.mark_read(tx, message_id)


@router.get("/orgs/{org_id}/messages")
async def list_messages(org_id: UUID, caller: OrgAdmin, tx: TenantTx, query: Paged) -> Page[messages.Listed]:
    """What was sent to whom on behalf of the organization, newest first: state, attempts, and why the last one failed."""
    return await page(tx, messages.Listed, query, messages.OF_ORG, newest_first=True)

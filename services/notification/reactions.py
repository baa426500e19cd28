"""What the notification service does when others change: it tells people."""

from datetime import UTC, datetime
from typing import Literal

from schemas.org import Invitation, Organization
from schemas.provisioning import Database
from schemas.user import LinkRequest
from services.notification import links, messages, organizations, recipients
from services.notification.recipients import OWNERS, OWNERS_AND_ADMINS, Recipient
from shared.reactions import on
from shared.rows import present
from shared.tx import Tx

_LEVELS = {"owner": "an owner", "billing": "billing", "operator": "our operations team"}


@on(LinkRequest.inserted)
async def mail_the_link(tx: Tx, request: LinkRequest) -> None:
    to = Recipient(request.email, request.user_id, request.name)
    variables = {"email": request.email, "until": _in_words(request.expires_at)}
    await messages.queue(tx, request.purpose, to, request.id, variables, expires_at=request.expires_at)


@on(Invitation.inserted)
async def mail_the_invitation(tx: Tx, invitation: Invitation) -> None:
    variables = {
        "organization": (await organizations.known(tx)).name,
        "inviter": await recipients.name_of_member(tx, invitation.invited_by),
        "role": invitation.role,
        "link": links.to_invitation(invitation.id),
        "email": invitation.email,
        "until": _in_words(invitation.expires_at),
    }
    await messages.queue(tx, "invitation", Recipient(invitation.email), invitation.id, variables)


@on(Invitation.became(state=("accepted", "withdrawn", "expired")))
async def recall_the_invitation(tx: Tx, invitation: Invitation) -> None:
    await messages.cancel_unsent(tx, about=invitation.id)


@on(Database.became(state="ready"))
async def welcome_the_owners(tx: Tx, database: Database) -> None:
    organization = await organizations.known(tx)
    if organization.origin != "sign_up" or await messages.was_made(tx, "welcome"):
        return
    variables = {
        "organization": organization.name,
        "org_id": str(database.org_id),
        "database": database.name,
        "database_id": str(database.id),
        "data_plane": database.data_plane,
    }
    for owner in await recipients.members(tx, OWNERS):
        await messages.queue(tx, "welcome", owner, database.id, variables)


@on(Organization.became(state="suspended", suspended_by=present))
async def tell_of_the_suspension(tx: Tx, organization: Organization) -> None:
    await _tell_who_runs_it(tx, "suspended", organization)


@on(Organization.became(state="active"))
async def tell_of_the_resumption(tx: Tx, organization: Organization) -> None:
    if tx.change and tx.change.op == "update":
        await _tell_who_runs_it(tx, "resumed", organization)


async def _tell_who_runs_it(tx: Tx, template: Literal["suspended", "resumed"], organization: Organization) -> None:
    """Each time anew: the change that says so is the occasion."""
    variables = {
        "organization": organization.name,
        "org_id": str(organization.org_id),
        "suspended_by": _LEVELS.get(organization.suspended_by or "", ""),
        "reason": organization.reason or "",
    }
    for recipient in await recipients.members(tx, OWNERS_AND_ADMINS):
        await messages.queue(tx, template, recipient, organization.org_id, variables, occasion=tx.change.name if tx.change else "")


def _in_words(time: datetime) -> str:
    return f"{time.astimezone(UTC):%d %B %Y, %H:%M} UTC"

"""Invitations: an address is invited, and its verified owner accepts."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel

from schemas.org import Invitation, Role
from services.org import members
from shared.errors import NotFound, Refused
from shared.http.callers import Caller, Forbidden, Suspended
from shared.tx import Tx

EXPIRES = "invitation_expires"
_FOR_WHOM = "An invitation is accepted by the person whose verified address it was sent to."


class AlreadyInvited(Refused):
    """An invitation to this address is still open. Withdraw it first, or wait until it is accepted or expires."""

    constraint = "already_invited"


class InvitationClosed(Refused):
    """The invitation was accepted, withdrawn, or has expired. Who accepted it is a member already, see GET /orgs; anybody else asks an admin for a new one."""


class Listed(BaseModel):
    """An invitation as admins see it."""

    id: UUID
    email: str
    role: Role
    state: str
    invited_by: UUID
    expires_at: datetime
    created_at: datetime


LIST = "SELECT * FROM invitations WHERE org_id = (SELECT tenant())"


async def invite(tx: Tx, caller: Caller, email: str, role: Role) -> Invitation:
    """Raises :class:`AlreadyInvited`, :class:`members.AlreadyMember`, :class:`members.MemberLimit`."""
    if role == "owner" and caller.role != "owner":
        raise Forbidden("Only an owner invites an owner.")
    if await tx.value("SELECT true FROM users u JOIN memberships m ON m.user_id = u.id AND m.org_id = (SELECT tenant()) WHERE u.email = $1", email):
        raise members.AlreadyMember
    await members.check_room(tx)
    invitation = await tx.one(
        Invitation,
        "INSERT INTO invitations (email, role, invited_by, flow_id) VALUES ($1, $2, $3, $4) RETURNING *",
        email, role, caller.person, tx.context.flow_id,
    )  # fmt: skip
    await tx.run("INSERT INTO invitation_org (id, org_id) VALUES ($1, $2)", invitation.id, invitation.org_id)
    await tx.schedule(EXPIRES, invitation.id, invitation.expires_at)
    return invitation


async def withdraw(tx: Tx, invitation_id: UUID) -> Invitation:
    await _continue_flow(tx, invitation_id)
    return await _close(tx, invitation_id, "withdrawn")


async def expire(tx: Tx, invitation_id: UUID) -> None:
    await tx.run("UPDATE invitations SET state = 'expired' WHERE id = $1 AND state = 'pending'", invitation_id)


async def accept(tx: Tx, caller: Caller, invitation_id: UUID) -> Invitation:
    """Makes the person a member. Raises :class:`NotFound` unless the invitation is to their verified address, :class:`InvitationClosed`.

    The plan may have become smaller since they were invited: raises :class:`members.NoRoom`.
    """
    org_id = await tx.value("SELECT org_id FROM invitation_org WHERE id = $1", invitation_id)
    email = await tx.value("SELECT email FROM users WHERE id = $1 AND verified_at IS NOT NULL", caller.person)
    if org_id is None or email is None:
        raise NotFound(_FOR_WHOM)
    tx.act_as(org_id, caller.person, tx.context, None)
    if not await tx.value("SELECT true FROM invitations WHERE id = $1 AND email = $2", invitation_id, email):
        raise NotFound(_FOR_WHOM)
    await tx.enter(f"org:{org_id}", user=caller.person)
    if await tx.value("SELECT state FROM organizations WHERE org_id = (SELECT tenant())") != "active":
        raise Suspended
    await _continue_flow(tx, invitation_id)
    accepted = await _close(tx, invitation_id, "accepted")
    await members.add(tx, caller.person, accepted.role)
    await members.check_has_room(tx)
    return accepted


async def _continue_flow(tx: Tx, invitation_id: UUID) -> None:
    tx.continue_flow(await tx.value("SELECT flow_id FROM invitations WHERE org_id = (SELECT tenant()) AND id = $1", invitation_id))


async def _close(tx: Tx, invitation_id: UUID, state: str) -> Invitation:
    closed = await tx.maybe(
        Invitation,
        "UPDATE invitations SET state = $2 WHERE org_id = (SELECT tenant()) AND id = $1 AND state = 'pending' AND expires_at > mesh_now() RETURNING *",
        invitation_id, state,
    )  # fmt: skip
    if closed is None:
        if await tx.value("SELECT true FROM invitations WHERE org_id = (SELECT tenant()) AND id = $1", invitation_id):
            raise InvitationClosed
        raise NotFound
    await tx.unschedule(EXPIRES, invitation_id)
    return closed

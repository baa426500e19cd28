"""Members: who belongs to an organization, with which role; there is always an owner."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel

from schemas.org import Membership, Role
from shared.errors import NotFound, Refused
from shared.http.callers import Caller, Forbidden, Suspended
from shared.tx import Tx


class AlreadyMember(Refused):
    """This person is a member already. Change their role instead, if that is what you want."""

    constraint = "already_member"


class LastOwner(Refused):
    """An organization keeps at least one owner. Make somebody else an owner first."""


class MemberLimit(Refused):
    """The plan has no room for another member, counting open invitations. Remove a member or withdraw an invitation, or ask support for another plan."""


class NoRoom(Refused):
    """The organization's plan has no room for another member. Ask an admin to make some, then accept again: until it expires the invitation stays open."""


class Member(BaseModel):
    """A member as the others see them."""

    id: UUID
    user_id: UUID
    name: str | None
    email: str | None
    role: Role
    created_at: datetime


LIST = "SELECT m.user_id AS id, m.user_id, u.name, u.email, m.role, m.created_at FROM memberships m LEFT JOIN users u ON u.id = m.user_id WHERE m.org_id = (SELECT tenant())"


async def add(tx: Tx, user_id: UUID, role: Role) -> Membership:
    """Raises :class:`AlreadyMember`."""
    return await tx.one(Membership, "INSERT INTO memberships (user_id, role) VALUES ($1, $2) RETURNING *", user_id, role)


async def check_room(tx: Tx) -> None:
    """Raises :class:`MemberLimit` when members and open invitations fill the plan. Without a subscription yet, the plan is not known and not full."""
    full = await tx.value(
        "SELECT (SELECT count(*) FROM memberships WHERE org_id = (SELECT tenant())) + (SELECT count(*) FROM invitations WHERE state = 'pending') "
        ">= (SELECT (limits ->> 'members')::int FROM subscriptions)"
    )
    if full:
        raise MemberLimit


async def check_has_room(tx: Tx) -> None:
    """Raises :class:`NoRoom` when there are more members than the plan has room for, those of this transaction included."""
    if await tx.value("SELECT (SELECT count(*) FROM memberships WHERE org_id = (SELECT tenant())) > (SELECT (limits ->> 'members')::int FROM subscriptions)"):
        raise NoRoom


async def change_role(tx: Tx, caller: Caller, user_id: UUID, role: Role) -> Membership:
    """Raises :class:`NotFound`, :class:`Forbidden` where only an owner may, :class:`LastOwner`."""
    await _check_may_change(tx, caller, user_id, role)
    return await tx.one(Membership, "UPDATE memberships SET role = $2 WHERE org_id = (SELECT tenant()) AND user_id = $1 RETURNING *", user_id, role)


async def remove(tx: Tx, caller: Caller, user_id: UUID) -> Membership:
    """Ends a membership. Raises as :func:`change_role`; leaving by oneself needs no role, and is possible while the organization is suspended."""
    if caller.user_id != user_id:
        await _check_may_remove_others(tx, caller)
    await _check_may_change(tx, caller, user_id, None)
    return await tx.one(Membership, "DELETE FROM memberships WHERE org_id = (SELECT tenant()) AND user_id = $1 RETURNING *", user_id)


async def _check_may_remove_others(tx: Tx, caller: Caller) -> None:
    if caller.role == "member":
        raise Forbidden("It needs the role admin or owner, or to be about yourself.")
    if await tx.value("SELECT state FROM organizations WHERE org_id = (SELECT tenant())") == "suspended":
        raise Suspended


async def _check_may_change(tx: Tx, caller: Caller, user_id: UUID, to: Role | None) -> None:
    role = await tx.value("SELECT role FROM memberships WHERE org_id = (SELECT tenant()) AND user_id = $1", user_id)
    if role is None:
        raise NotFound
    if caller.user_id != user_id and caller.role != "owner" and "owner" in (role, to):
        raise Forbidden("Only an owner makes, changes or removes an owner.")
    if caller.user_id == user_id and to == "owner" and role != "owner":
        raise Forbidden("Only an owner makes an owner.")
    owners = await tx.value("SELECT count(*) FROM memberships WHERE org_id = (SELECT tenant()) AND role = 'owner'")
    if role == "owner" and to != "owner" and owners == 1:
        raise LastOwner

"""The org service's doors."""

from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, AliasChoices, EmailStr, Field

from schemas.org import Role
from services.org import invitations, members, organizations
from shared.http.callers import WHILE_SUSPENDED, IfMatch, Member, OpenTx, Operator, OrgAdmin, OwnerOrOperator, Person, PersonTx, TenantTx, VerifiedPerson
from shared.http.pages import Page, Paged, page
from shared.http.routing import Body, Flowing, View, new_router

router = new_router(tags=["org"])

Name = Annotated[str, Field(min_length=1, max_length=200)]
Email = Annotated[EmailStr, AfterValidator(str.lower), Field(max_length=254)]


class NameBody(Body):
    name: Name


class SuspendBody(Body):
    reason: Annotated[str, Field(min_length=1, max_length=500)]


class InviteBody(Body):
    email: Email
    role: Role = "member"


class RoleBody(Body):
    role: Role


class ClockBody(Body):
    advance_seconds: Annotated[int, Field(ge=1, le=2 * 365 * 86400)]


class OrganizationView(View):
    id: Annotated[UUID, Field(validation_alias=AliasChoices("id", "org_id"))]
    name: str
    state: str
    suspended_by: str | None
    reason: str | None


class StartedOrganization(OrganizationView, Flowing): ...


class AdvancedClock(Flowing):
    org_id: UUID
    advanced: str


class StartedInvitation(Flowing):
    id: UUID
    email: str
    role: Role
    state: str
    expires_at: datetime


class StartedMembership(Flowing):
    org_id: UUID
    user_id: UUID
    role: Role


@router.post("/orgs", status_code=202)
async def create(body: NameBody, caller: VerifiedPerson, tx: OpenTx) -> StartedOrganization:
    """Makes an organization; the caller becomes its owner."""
    return StartedOrganization.of(tx, await organizations.found(tx, body.name, caller.person))


@router.get("/orgs")
async def mine(caller: Person, tx: PersonTx, query: Paged) -> Page[organizations.MyOrganization]:
    """Exactly the organizations the caller is a member of."""
    return await page(tx, organizations.MyOrganization, query, organizations.MINE)


@router.get("/orgs/{org_id}")
async def get(org_id: UUID, caller: Member, tx: TenantTx) -> organizations.MyOrganization:
    """One organization of the caller."""
    return await organizations.mine(tx)


@router.patch("/orgs/{org_id}")
async def rename(org_id: UUID, body: NameBody, caller: OrgAdmin, tx: TenantTx, if_match: IfMatch) -> organizations.MyOrganization:
    """Renames the organization."""
    if_match.check(await organizations.mine(tx))
    return await organizations.rename(tx, body.name)


@router.post("/orgs/{org_id}/suspend", status_code=202)
async def suspend(org_id: UUID, body: SuspendBody, caller: OwnerOrOperator, tx: TenantTx) -> StartedOrganization:
    """Ends every session in the organization's databases and refuses new ones, until it is resumed."""
    return StartedOrganization.of(tx, await organizations.suspend(tx, organizations.level_of(caller), body.reason))


@router.post("/orgs/{org_id}/resume", status_code=202, openapi_extra=WHILE_SUSPENDED)
async def resume(org_id: UUID, caller: OwnerOrOperator, tx: TenantTx) -> StartedOrganization:
    """Undoes a suspension of the caller's own level or below."""
    return StartedOrganization.of(tx, await organizations.resume(tx, organizations.level_of(caller)))


@router.post("/orgs/{org_id}/clock", status_code=202, tags=["operators"])
async def advance_clock(org_id: UUID, body: ClockBody, operator: Operator, caller: OwnerOrOperator, tx: TenantTx) -> AdvancedClock:
    """Moves the business time of a test organization forward, in every service. For operators."""
    return AdvancedClock.of(tx, await organizations.advance_clock(tx, timedelta(seconds=body.advance_seconds)))


@router.post("/orgs/{org_id}/invitations", status_code=202)
async def invite(org_id: UUID, body: InviteBody, verified: VerifiedPerson, caller: OrgAdmin, tx: TenantTx) -> StartedInvitation:
    """Invites an address by mail. The invitation is good for seven days."""
    return StartedInvitation.of(tx, await invitations.invite(tx, caller, body.email, body.role))


@router.get("/orgs/{org_id}/invitations")
async def list_invitations(org_id: UUID, caller: OrgAdmin, tx: TenantTx, query: Paged) -> Page[invitations.Listed]:
    """All invitations with their state."""
    return await page(tx, invitations.Listed, query, invitations.LIST)


@router.delete("/orgs/{org_id}/invitations/{invitation_id}", status_code=202)
async def withdraw(org_id: UUID, invitation_id: UUID, caller: OrgAdmin, tx: TenantTx) -> StartedInvitation:
    """Withdraws an open invitation."""
    return StartedInvitation.of(tx, await invitations.withdraw(tx, invitation_id))


@router.post("/invitations/{invitation_id}/accept", status_code=202)
async def accept(invitation_id: UUID, caller: Person, tx: OpenTx) -> StartedInvitation:
    """Accepts an invitation to the caller's verified address. There is nothing here for anybody else, the address not yet verified included.

    While the plan has no room for another member the invitation stays open.
    """
    return StartedInvitation.of(tx, await invitations.accept(tx, caller, invitation_id))


@router.get("/orgs/{org_id}/members")
async def list_members(org_id: UUID, caller: Member, tx: TenantTx, query: Paged) -> Page[members.Member]:
    """The members with their roles."""
    return await page(tx, members.Member, query, members.LIST)


@router.patch("/orgs/{org_id}/members/{user_id}", status_code=202)
async def change_role(org_id: UUID, user_id: UUID, body: RoleBody, caller: OrgAdmin, tx: TenantTx) -> StartedMembership:
    """Changes a member's role, here and in the databases."""
    return StartedMembership.of(tx, await members.change_role(tx, caller, user_id, body.role))


@router.delete("/orgs/{org_id}/members/{user_id}", status_code=202, openapi_extra=WHILE_SUSPENDED)
async def remove(org_id: UUID, user_id: UUID, caller: Member, tx: TenantTx) -> StartedMembership:
    """Removes a member, or leaves. Their logins in the databases end; what they made stays with the organization."""
    return StartedMembership.of(tx, await members.remove(tx, caller, user_id))

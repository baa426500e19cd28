"""Grants: what a member may do in all of the organization's databases, and whether it has come there."""

from uuid import UUID

from schemas.org import Role
from services.provisioning import databases, logins
from services.provisioning.logins import Credentials
from shared.tx import Tx


async def grant(tx: Tx, user_id: UUID, role: Role) -> None:
    """Gives the member this role in every database, or changes it to this one."""
    await tx.run(
        "INSERT INTO grants (user_id, role, state) VALUES ($1, $2, 'pending') "
        "ON CONFLICT (org_id, user_id) DO UPDATE SET role = excluded.role, state = excluded.state",
        user_id, role,
    )  # fmt: skip
    await logins.make_for_member(tx, user_id, role)
    await settle(tx, user_id)


async def revoke(tx: Tx, user_id: UUID) -> None:
    """Ends the member's logins and sessions in every database; what they made stays."""
    await tx.run("UPDATE grants SET state = 'revoking' WHERE user_id = $1", user_id)
    await logins.remove_of_member(tx, user_id)
    await settle(tx, user_id)


async def settle(tx: Tx, user_id: UUID) -> None:
    """The grant is applied, or revoked, once every login of the member is confirmed; at once when there is none."""
    await tx.run(
        "UPDATE grants SET state = CASE state WHEN 'pending' THEN 'applied' ELSE 'revoked' END "
        "WHERE user_id = $1 AND state IN ('pending', 'revoking') AND NOT EXISTS (SELECT FROM logins l WHERE l.user_id = $1 AND l.observed < l.generation)",
        user_id,
    )


async def issue_credentials(tx: Tx, database_id: UUID, user_id: UUID) -> tuple[databases.Shown, Credentials]:
    """Credentials of their own for a member. Raises :class:`databases.DatabaseDeleted`, :class:`databases.NotPlaced`."""
    database = await databases.get_open(tx, database_id)
    issued = await logins.issue(tx, database_id, user_id)
    if issued is None:  # the membership is known, and what follows from it is still on its way
        await grant(tx, user_id, await tx.value("SELECT role FROM memberships WHERE org_id = (SELECT tenant()) AND user_id = $1", user_id))
        issued = await logins.issue(tx, database_id, user_id)
    if issued is None:
        raise databases.NotPlaced
    return database, issued

"""Who is told: the one place with the recipient rule.

What concerns an organization as a whole goes to its owners; what stops its members from working goes to its admins too. What
concerns one person goes to that person, an invitation to the invited address.
"""

from dataclasses import dataclass
from uuid import UUID

from schemas.org import Role
from shared.errors import NotYet
from shared.tx import Tx

OWNERS: tuple[Role, ...] = ("owner",)
OWNERS_AND_ADMINS: tuple[Role, ...] = ("owner", "admin")


@dataclass(frozen=True)
class Recipient:
    """A person with their address, or an address that was invited and is nobody's yet."""

    address: str
    user_id: UUID | None = None
    name: str | None = None


async def members(tx: Tx, roles: tuple[Role, ...]) -> list[Recipient]:
    """The members of the tenant with one of these roles. Raises :class:`NotYet` while one of them is not known here."""
    rows = await tx.records(
        "SELECT m.user_id, u.email, u.name FROM memberships m LEFT JOIN users u ON u.id = m.user_id "
        "WHERE m.org_id = (SELECT tenant()) AND m.role = ANY($1) ORDER BY m.user_id",
        roles,
    )
    if not rows or any(r["email"] is None for r in rows):
        raise NotYet(f"the {' and '.join(roles)} of organization {tx.org_id} with their addresses")
    return [Recipient(r["email"], r["user_id"], r["name"]) for r in rows]


async def name_of_member(tx: Tx, user_id: UUID) -> str | None:
    """None when they are no member any more. Raises :class:`NotYet` when the person is not known here."""
    rows = await tx.records(
        "SELECT u.name FROM memberships m LEFT JOIN users u ON u.id = m.user_id WHERE m.org_id = (SELECT tenant()) AND m.user_id = $1", user_id
    )
    if rows and rows[0]["name"] is None:
        raise NotYet(f"person {user_id}")
    return rows[0]["name"] if rows else None

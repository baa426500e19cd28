"""Tenants: an organization's place in a data plane, where it is suspended and resumed."""

from typing import Literal
from uuid import UUID

from schemas.feed import Observed
from services.provisioning import data_planes, databases, feed, kafka_grants, observations
from services.provisioning.feed import HeldTenant
from services.provisioning.observations import Kind
from shared.errors import NotYet
from shared.tx import Tx


async def place(tx: Tx, org_id: UUID) -> None:
    """Gives the organization a data plane and asks Kafka for its feed. Raises :class:`NotYet` when no data plane is known."""
    data_plane = await data_planes.roomiest(tx)
    topic = await feed.topic_for(tx, org_id, data_plane)
    await tx.run("INSERT INTO placements (org_id, data_plane) VALUES ($1, $2)", org_id, data_plane)
    await tx.run("INSERT INTO tenants (data_plane, topic) VALUES ($1, $2)", data_plane, topic)
    await kafka_grants.ask(tx, topic, data_plane)


async def open_feed(tx: Tx) -> None:
    """The feed can be read: says all that was wanted until now."""
    tenant = await tx.maybe(HeldTenant, "UPDATE tenants SET opened = true WHERE NOT opened RETURNING *")
    if tenant:
        await feed.say_tenant(tx, tenant)
        await databases.say_waiting(tx, tenant)


async def want(tx: Tx, state: Literal["active", "suspended"]) -> None:
    """Lets the logins in or keeps them out from now on, whatever is still under way. Raises :class:`NotYet` without a place to suspend."""
    changed = await tx.all(
        HeldTenant,
        "UPDATE tenants SET wanted = $1, generation = generation + 1, repeats = 0, error = NULL WHERE wanted <> $1 OR $1 = 'suspended' RETURNING *",
        state,
    )
    await _say(tx, changed)
    if state == "suspended" and not changed:
        raise NotYet("the organization has no data plane yet")


async def assign_again(tx: Tx, seen: int) -> None:
    """The agent knows no assignment, or another one: says it once more, above what was seen."""
    await kafka_grants.make_sure(tx)
    await _say(
        tx,
        await tx.all(
            HeldTenant,
            "UPDATE tenants SET assignment_generation = CASE WHEN $1 > assignment_generation THEN $1 + 1 ELSE assignment_generation END RETURNING *",
            seen,
        ),
    )


async def observe(tx: Tx, seen: Observed) -> None:
    """Takes in what the data plane says of the tenant as a whole; its databases show it."""
    confirmed = await observations.observe(tx, KIND, seen)
    if confirmed:
        await databases.show_suspended(tx, suspended=confirmed.state == "suspended")


async def _say(tx: Tx, changed: list[HeldTenant]) -> None:
    for tenant in changed:
        await feed.say_tenant(tx, tenant)


KIND = Kind("tenant", "tenants", HeldTenant, _say, key="org_id", as_wanted="(wanted = 'suspended') = ($3 = 'suspended')")

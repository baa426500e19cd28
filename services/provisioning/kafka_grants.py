"""Kafka grants: a tenant's topic, readable by the agent of the data plane that holds it."""

from uuid import UUID

from pydantic import BaseModel

from schemas.feed import agent_user
from shared.tx import Tx

MAKE = "kafka_grant"


class KafkaGrant(BaseModel):
    """``principal`` is a Kafka user."""

    id: UUID
    topic: str
    principal: str
    state: str


async def ask(tx: Tx, topic: str, data_plane: str) -> None:
    grant = await tx.one(KafkaGrant, "INSERT INTO kafka_grants (topic, principal) VALUES ($1, $2) RETURNING *", topic, agent_user(data_plane))
    await tx.schedule(MAKE, grant.id)


async def make_sure(tx: Tx) -> None:
    """What was said is not heard: topic and right are looked after again, should Kafka have lost them."""
    for grant in await tx.all(KafkaGrant, "SELECT * FROM kafka_grants"):
        await tx.schedule(MAKE, grant.id)


async def get(tx: Tx, grant_id: UUID) -> KafkaGrant:
    return await tx.one(KafkaGrant, "SELECT * FROM kafka_grants WHERE org_id = (SELECT tenant()) AND id = $1", grant_id)


async def granted(tx: Tx, grant_id: UUID) -> None:
    await tx.run("UPDATE kafka_grants SET state = 'granted' WHERE org_id = (SELECT tenant()) AND id = $1", grant_id)
